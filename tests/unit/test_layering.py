"""The direction of the arrows: a module imports rows above its own and its own package; heavy things stay fenced in.

Imports are read from the source, also those inside functions; only those for type checkers do not count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcfed

ROOT = Path(hpcfed.__file__).parent
ROWS = (
    ("atomic", "clock", "errors", "messages", "seeds"),
    ("config", "noise", "orbit", "transport"),
    ("clients", "model", "privacy", "runs", "tasks", "weights"),
    ("algorithms", "cluster", "probe"),
    ("first_order", "plan"),
    ("train",),
    ("cli",),
    ("__main__",),
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names}

#: Who may import what.
FENCES = {
    "transformers": ("model", "tasks"),
    "tokenizers": ("model", "tasks"),
    "datasets": ("tasks", "clients"),
    "flwr_datasets": ("clients",),
    "deepspeed": ("model",),
    "mpi4py": ("transport.mpi",),
    "numba": ("noise",),
    "llvmlite": ("noise",),
    "triton": ("noise",),
    "matplotlib": ("runs.plots", "runs.scaling"),
    "torch.utils.tensorboard": ("runs.progress",),
    "typer": ("cli",),
    "pickle": (),
    "random": (),  # every draw has an address
}

FILES = sorted(ROOT.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[str]:
    """Absolute names of all that `file` imports at run time; `from a import b` gives a and a.b."""
    package = ["hpcfed", *file.relative_to(ROOT).parent.parts]
    hidden: set[ast.AST] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            hidden |= {inner for statement in node.body for inner in ast.walk(statement)}
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def ours(name: str) -> str:
    """The row's name of an import of ours: hpcfed.noise.engine.move_ is noise; hpcfed.__version__ is nothing."""
    part = name.removeprefix("hpcfed.").partition(".")[0] if name.startswith("hpcfed.") else ""
    return part if (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file() else ""


def test_every_module_has_a_row():
    without = {module_of(file).partition(".")[0] for file in FILES} - {""} - set(ROW)
    assert not without, f"give {sorted(without)} a row in ROWS"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_upwards(file):
    top = module_of(file).partition(".")[0]
    wrong = {
        name for name in imports(file) if ours(name) and ours(name) != top and not (top and ROW[ours(name)] < ROW[top])
    }
    assert not wrong, f"{module_of(file)} (row {ROW.get(top)}) imports {sorted(wrong)}"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_fences(file):
    module = module_of(file)
    wrong = {
        name
        for name in imports(file)
        for fenced, allowed in FENCES.items()
        if within(name, fenced) and not any(within(module, place) for place in allowed)
    }
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("name", ROWS[0])
def test_words_need_the_standard_library_and_numpy_only(name):
    tops = {imported.partition(".")[0] for imported in imports(ROOT / f"{name}.py")}
    assert tops <= {*sys.stdlib_module_names, *({"numpy"} if name in ("clock", "messages") else ())}


def test_the_test_sees_what_it_should(tmp_path):
    assert "mpi4py" in {name.partition(".")[0] for name in imports(ROOT / "transport" / "mpi.py")}  # inside a function
    assert {ours(name) for name in imports(ROOT / "train" / "build.py")} >= {"clients", "probe", "transport"}
    assert "plan" not in {ours(name) for name in imports(ROOT / "cli" / "tables.py")}  # for type checkers only


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh Python holds after running `code`."""
    tail = "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", [["--help"], ["train", "--help"], ["orbit", "verify", "--help"]], ids=" ".join)
def test_help_starts_light(command):
    code = f"import sys\nsys.argv = ['hpcfed', *{command}]\nfrom hpcfed.cli.main import main\n"
    loaded = loaded_by(code + "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n")
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "mpi4py", "datasets", "numba", "numpy", "matplotlib"}


@pytest.mark.parametrize(
    "module", ["hpcfed.orbit", "hpcfed.runs.folder", "hpcfed.cli.tables", "hpcfed.runs.plots", "hpcfed.config"]
)
def test_light_modules_load_no_framework(module):
    assert not loaded_by(f"import {module}") & {"torch", "transformers", "mpi4py", "datasets", "numba", "matplotlib"}


def test_training_without_mpi_does_not_load_mpi():
    heavy = {"mpi4py", "datasets", "deepspeed", "matplotlib", "tensorboard", "triton"}
    assert not loaded_by("import hpcfed.train.loop") & heavy
