"""Documents and docstrings say what is there: links, files, tests, commands, settings."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from hpcfed.cli.main import app
from hpcfed.train.round import run_round

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    p for p in ROOT.rglob("*.md") if not {".venv", "build", "runs", ".pytest_cache"} & set(p.relative_to(ROOT).parts)
)
SOURCES = sorted(
    file for room in ("hpcfed", "tests", "benchmarks", "tools", "examples") for file in (ROOT / room).rglob("*.py")
)
COMMAND = typer.main.get_command(app)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"[\w./-]*\w\.(?:py|md|sh|sbatch|toml)\b(?:::\w+)?")
#: Files that a page or a docstring speaks of as the reader's own, or as another project's.
OF_OTHERS = {"FILE.py", "NAME.py", "test_NAME.py", "my.toml", "recipe.toml", "submit.sbatch"}
#: Where a name without a folder, or with a part of its path, may lie.
PLACES = ("", "hpcfed", "tests", "tests/unit", "tests/ranks")


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "launch/README.md"} <= set(map(name_of, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{target}: no such heading"


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_tests_that_a_page_names_are_there(page):
    text = LINK.sub("]", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`([^`\n]+)`", text):
        for named in FILE.findall(code) if not code.startswith("hpcfed ") else []:
            assert is_there(named, page.parent), f"`{named}` is nowhere"


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_files_that_a_docstring_names_are_there(source):
    for prose in prose_of(source):
        for named in FILE.findall(prose):
            assert is_there(named, source.parent), f"{named} is nowhere: {prose.splitlines()[0]}"


def prose_of(source: Path) -> Iterator[str]:
    """Docstrings and comments."""
    text = source.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    yield from re.findall(r"#:? (.+)$", text, re.MULTILINE)


def is_there(named: str, folder: Path) -> bool:
    """Whether a file, or a test in one, of that name lies in the folder or where such names are looked for."""
    path, _, test = named.partition("::")
    if path.split("/")[-1] in OF_OTHERS:
        return True
    files = [place / path for place in (folder, *(ROOT / place for place in PLACES)) if (place / path).is_file()]
    return any(not test or f"def {test}(" in file.read_text(encoding="utf-8") for file in files)


def blocks(page: Path) -> list[list[str]]:
    """The lines of each fenced block, continued ones joined."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    return [block.splitlines() for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def test_the_commands_are_found():
    assert {"train RECIPE", "doctor [RECIPE]"} <= {" ".join(line.split()[:2]) for line in commands(ROOT / "README.md")}
    assert len(list(commands(ROOT / "docs" / "LAUNCH.md"))) > 10


def commands(page: Path) -> Iterator[str]:
    """What stands behind `hpcfed` in blocks and in code of the text, without comments."""
    lines = [line for block in blocks(page) for line in block]
    lines += re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    for line in lines:
        for part in re.split(r"&&|;", re.sub(r"\s# .*", "", line)):
            if command := re.match(r"(?:.*\s)?hpcfed ([a-z].*)", part):
                yield command[1].strip()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_understood(page):
    for line in commands(page):
        if re.search(r"\[|\||\.\.\.|   ", line):
            understood_as_synopsis(line)
        else:
            understood([word for word in shlex.split(line) if not word.startswith("$")], line)


def test_commands_that_are_not_understood():
    understood(shlex.split("orbit replay runs/a --base B --out C"), "")
    for line in ("trane digits", "train digits --sett rounds=3", "orbit replay runs/a --base B"):
        with pytest.raises(pytest.fail.Exception):
            understood(shlex.split(line), line)
    with pytest.raises(pytest.fail.Exception):
        understood_as_synopsis("train RECIPE [--resum]")


def understood(words: list[str], line: str) -> None:
    """Parse a command as the command line would, without running it."""
    command, rest = subcommand(words, line)
    if rest:  # without, prose speaks of the command
        try:
            command.make_context(line, rest)
        except Exception as e:  # UsageError, of the click that this typer brings
            pytest.fail(f"hpcfed {line}: {e}")


def understood_as_synopsis(line: str) -> None:
    """Every option of a line like `train RECIPE [--out DIR]    trains` is one of the command's."""
    words = re.sub(r"   .*", "", line)
    command, _ = subcommand(words.split(), line)
    parts = getattr(command, "commands", {"": command}).values()
    known = {option for part in parts for parameter in part.params for option in parameter.opts}
    if unknown := set(re.findall(r"--[a-z-]+", words)) - known:
        pytest.fail(f"hpcfed {line}: {sorted(unknown)} is none of {sorted(known)}")


def subcommand(words: list[str], line: str) -> tuple[Any, list[str]]:
    """The command, or where a synopsis lists several the group of them, that the first words name; the other words."""
    command: Any = COMMAND
    while words and hasattr(command, "commands") and (command is COMMAND or "|" not in words):
        if words[0] not in command.commands:
            pytest.fail(f"hpcfed {line}: there is no {words[0]}")
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_stands_in_two_blocks(page):
    """A block that was pasted twice, or into another."""
    seen: dict[str, int] = {}
    for number, block in enumerate(blocks(page)):
        for line in filter(re.compile(r"(hpcfed|torchrun|launch/|make|python|pip|srun|for) ").match, block):
            assert seen.setdefault(line, number) == number, line


def test_settings_page_is_fresh():
    done = subprocess.run([sys.executable, ROOT / "tools" / "make_settings_page.py", "--check"], timeout=120)
    assert done.returncode == 0, "run python tools/make_settings_page.py"


def test_the_readme_is_no_wall():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_a_round_is_read_on_one_screen():
    body = inspect.getsource(run_round).split('"""')[-1].strip().splitlines()
    assert len(body) <= 15
    five = re.findall(r"^\d\. \[(\S+)\]", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert five[0] == "train/round.py" and len(five) == 5


def test_every_room_is_explained():
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.MULTILINE))))
    rooms = {p.stem for p in (ROOT / "hpcfed").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__"} <= explained
