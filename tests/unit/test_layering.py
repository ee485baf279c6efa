"""The direction of the arrows: a module imports its own room and the floors below; heavy things stay fenced in.

The floors are those of docs/ARCHITECTURE.md. Imports are read from the source, also those inside functions; only those
for type checkers do not count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hpcfed
from hpcfed.config import METHODS
from hpcfed.tasks.metrics import METRICS

ROOT = Path(hpcfed.__file__).parent
PAGE = ROOT.parent / "docs" / "ARCHITECTURE.md"
#: Floor -> its rooms, from the table of the page.
FLOORS = {
    int(number): tuple(re.findall(r"`(\w+)`", rooms))
    for number, rooms in re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

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
    "lm_eval": ("train.harness",),
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


def imports(file: Path, late: bool = True) -> Iterator[str]:
    """Absolute names of all that `file` imports; `from a import b` gives a and a.b.  late: also inside functions."""
    package = ["hpcfed", *file.relative_to(ROOT).parent.parts]
    hidden: set[ast.AST] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            hidden |= {inner for statement in node.body for inner in ast.walk(statement)}
        if isinstance(node, ast.FunctionDef) and not late:
            hidden |= set(ast.walk(node))
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
    """The room of an import of ours: hpcfed.noise.engine.move_ is noise; hpcfed.__version__ is nothing."""
    part = name.removeprefix("hpcfed.").partition(".")[0] if name.startswith("hpcfed.") else ""
    return part if (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file() else ""


def test_a_house_of_few_rooms_and_floors():
    rooms = {module_of(file).partition(".")[0] for file in FILES} - {""}
    assert rooms == set(FLOOR), f"{PAGE.name} and hpcfed/ differ in {sorted(rooms ^ set(FLOOR))}"
    assert sum(map(len, FLOORS.values())) == len(rooms) <= 26, "every room once, and not too many"
    assert sorted(FLOORS) == list(range(1, len(FLOORS) + 1)) and len(FLOORS) <= 8


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_down(file):
    room = module_of(file).partition(".")[0]
    wrong = {
        name
        for name in imports(file)
        if ours(name) and ours(name) != room and not (room and FLOOR[ours(name)] < FLOOR[room])
    }
    assert not wrong, f"{module_of(file)} (floor {FLOOR.get(room)}) imports {sorted(wrong)}"


def test_no_circle_within_a_room():
    arrows = {f"hpcfed.{module_of(file)}": set(imports(file, late=False)) for file in FILES if module_of(file)}
    for module, targets in arrows.items():
        targets &= arrows.keys() - {module, module.rpartition(".")[0]}  # `from . import x` names the room, too
    TopologicalSorter(arrows).prepare()  # CycleError names the circle


#: A method's name, however it is spelled: FedKSeedConfig, is_fedavg, "zo-fedsgd".
NAMED = re.compile("(?<![a-z])(?i:" + "|".join(name.replace("-", "[-_]?") for name in METHODS) + ")(?![a-z])")
OWN_FILES = {ROOT / "config" / "methods.py"} | {
    ROOT.parent / (traits.record.partition(":")[0].replace(".", "/") + ".py") for traits in METHODS.values()
}


def test_a_method_is_named_in_its_own_file_only():
    """What differs between methods is a trait, or a function of their records; prose, which cites papers, is free, and
    so is a metric called after the paper that counts so."""
    naming = {file: [word for word in words_of(file) if NAMED.search(word) and word not in METRICS] for file in FILES}
    assert all(naming[file] for file in OWN_FILES), "the search finds what is there"
    assert not {str(file.relative_to(ROOT)): words for file, words in naming.items() if words and file not in OWN_FILES}


def words_of(file: Path) -> Iterator[str]:
    """Names, and text that is no docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value
        for field in ("id", "attr", "name", "arg", "module"):
            if isinstance(word := getattr(node, field, None), str):
                yield word


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


@pytest.mark.parametrize("name", FLOORS[1])
def test_words_need_the_standard_library_and_numpy_only(name):
    tops = {imported.partition(".")[0] for imported in imports(ROOT / f"{name}.py")}
    assert tops <= {*sys.stdlib_module_names, *({"numpy"} if name in ("clock", "messages") else ())}


TESTS = Path(__file__).parents[1]
#: Modules whose tests are not in the file of their name, and where they are.
ELSEWHERE = {
    "config.task": "unit/config/test_settings.py",
    "noise.cpu_draw": "unit/noise/test_cpu.py",
    "noise.cpu_formats": "unit/noise/test_cpu.py",
    "noise.cpu_hash": "unit/noise/test_cpu.py",
    "tasks.asked": "unit/tasks/test_build.py",
    "tasks.class_rows": "unit/tasks/test_build.py",
    "tasks.formats": "unit/tasks/test_files.py",
    "tasks.hub": "unit/tasks/test_load.py",
    "tasks.open_rows": "unit/tasks/test_answers.py",
    "tasks.own": "unit/config/test_outside.py",
    "tasks.padding": "unit/tasks/test_text.py",
    "tasks.shapes": "unit/tasks/test_answers.py",
    "tasks.shown": "unit/train/test_dry.py",
    "transport.mpi": "mpi/test_transport_mpi.py",  # it needs a launcher
}


def test_tests_are_where_their_module_says():
    modules = {module_of(file): file.relative_to(ROOT) for file in FILES if not file.stem.startswith("__")}
    own = {module: f"unit/{path.parent}/test_{path.name}" for module, path in modules.items()}
    assert not {module for module in ELSEWHERE if module not in own or (TESTS / own[module]).exists()}, (
        "ELSEWHERE is old"
    )
    missing = {module: file for module, file in {**own, **ELSEWHERE}.items() if not (TESTS / file).is_file()}
    assert not missing, f"no tests of {missing}"


def test_what_two_tests_need_is_in_support():
    shared = re.compile(r"^\s*(?:from|import) tests\.(?!support\b)\w+", re.MULTILINE)
    assert not {str(file): found for file in TESTS.rglob("*.py") if (found := shared.findall(file.read_text("utf-8")))}
    assert shared.search("from tests.ranks.test_train import ROUNDS") and not shared.search("import tests.support.toy")


def test_the_test_sees_what_it_should(tmp_path):
    assert "mpi4py" in {name.partition(".")[0] for name in imports(ROOT / "transport" / "mpi.py")}  # inside a function
    assert {ours(name) for name in imports(ROOT / "train" / "build.py")} >= {"clients", "probe", "transport"}
    assert "plan" not in {ours(name) for name in imports(ROOT / "cli" / "tables.py")}  # for type checkers only


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh Python holds after running `code`."""
    tail = "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command", [["--help"], ["train", "--help"], ["orbit", "verify", "--help"], ["privacy", "--help"]], ids=" ".join
)
def test_help_starts_light(command):
    code = f"import sys\nsys.argv = ['hpcfed', *{command}]\nfrom hpcfed.cli.main import main\n"
    loaded = loaded_by(code + "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n")
    assert "typer" in loaded
    heavy = {"torch", "transformers", "mpi4py", "datasets", "numba", "numpy", "matplotlib", "scipy", "dp_accounting"}
    assert not loaded & heavy


@pytest.mark.parametrize(
    "module", ["hpcfed.orbit", "hpcfed.runs.folder", "hpcfed.cli.tables", "hpcfed.runs.plots", "hpcfed.config"]
)
def test_light_modules_load_no_framework(module):
    assert not loaded_by(f"import {module}") & {"torch", "transformers", "mpi4py", "datasets", "numba", "matplotlib"}


@pytest.mark.parametrize("code", ["import hpcfed", "from hpcfed import __all__ as names; assert 'train' in names"])
def test_the_public_entry_loads_nothing_until_it_is_used(code):
    assert not loaded_by(code) & {"torch", "numpy", "pydantic", "transformers", "mpi4py"}


def test_a_recipe_is_read_without_a_framework():
    loaded = loaded_by("import hpcfed; assert hpcfed.load_recipe('digits', ['rounds=3']).rounds == 3")
    assert not loaded & {"torch", "transformers", "numba", "datasets", "mpi4py"}


def test_training_without_mpi_does_not_load_mpi():
    heavy = {"mpi4py", "datasets", "deepspeed", "matplotlib", "tensorboard", "triton"}
    assert not loaded_by("import hpcfed.train.loop") & heavy
