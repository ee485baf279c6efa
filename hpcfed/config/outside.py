"""What a recipe takes from a file of the user's own: "FILE.py:NAME" is the object NAME that the Python file makes.

A method, a task or a partition may come so. The file's code runs when the recipe is loaded, as that of any script: a
recipe that names a file is as trustworthy as the file. Orbits never name one, so that nobody's orbit runs code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, HpcfedError, did_you_mean, first_line


def is_outside(name: str) -> bool:
    """Whether `name` means an object of a file rather than one that hpcfed has."""
    return ".py:" in name or name.endswith(".py")


def load_outside(setting: str, name: str) -> Any:
    """The object that `name`, "FILE.py:NAME", means. A relative FILE starts in the folder where hpcfed was started.

    setting: whose value `name` is, for messages.  Raises ConfigError.
    """
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py") or not attribute:
        raise ConfigError(f"{setting}={name!r}: write FILE.py:NAME, the object NAME of a Python file")
    module = _module(f"{setting}={name!r}", Path(file).expanduser())
    if not hasattr(module, attribute):
        own = [key for key in vars(module) if not key.startswith("_")]
        raise ConfigError(f"{setting}={name!r}: {file} has no {attribute}{did_you_mean(attribute, own)}")
    return getattr(module, attribute)


def outside_digest(name: str) -> str:
    """128-bit hex digest of the file that `name` means, as it was when it was loaded."""
    return str(sys.modules[_module_name(Path(name.rpartition(":")[0]).expanduser())].__dict__["hpcfed_digest"])


def _module_name(file: Path) -> str:
    return f"hpcfed_outside_{hashlib.blake2b(str(file.resolve()).encode(), digest_size=8).hexdigest()}"


def _module(what: str, file: Path) -> ModuleType:
    """The module of a file, which is run once in a process."""
    name = _module_name(file)
    if name in sys.modules:
        return sys.modules[name]
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: cannot read {file}: {error.strerror}; it is looked for in {Path.cwd()}") from None
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    module = importlib.util.module_from_spec(spec)
    module.__dict__["hpcfed_digest"] = hashlib.blake2b(source, digest_size=16).hexdigest()
    sys.modules[name] = module  # before it runs: dataclasses and pydantic look their module up
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, HpcfedError) or not isinstance(error, Exception):
            raise
        trace, line = error.__traceback__, 0
        while trace:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == str(file) else line
            trace = trace.tb_next
        where = f"{file}, line {getattr(error, 'lineno', None) or line}"
        raise ConfigError(f"{what}: {where}: {type(error).__name__}: {first_line(error)}") from None
    return module
