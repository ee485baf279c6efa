"""Clients' own files: each read as task.data would be, put one after the other, and named where it is at fault."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from hpcfed.config import read_manifest
from hpcfed.errors import DataError
from hpcfed.tasks.base import Examples, Ragged
from hpcfed.tasks.sources import Gathered
from hpcfed.train.problem import build_problem
from tests.support.command import refused
from tests.support.manifests import given, lines, make_place, recipe
from tests.support.small import sentences, write_jsonl


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, evaluation data, a manifest of five clients, and all their sentences in one file."""
    return make_place(tmp_path_factory.mktemp("manifest"))


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("missing.jsonl", None, ["missing.jsonl does not exist", "relative paths start at the manifest"]),
        ("nobody-*.jsonl", None, ["nobody-*.jsonl"]),
        ("empty.jsonl", "", ["empty.jsonl is empty"]),
        ("torn.jsonl", '{"sentence": "a", "label": 1}\n{"sent', ["torn.jsonl", "line 2"]),
        ("other.jsonl", '{"text": "a", "label": 1}\n', ["no column 'sentence'", "task.text"]),
        ("range.jsonl", '{"sentence": "a", "label": 2}\n', ["row 1: label 2 is out of range; must be 0 to 1"]),
        ("nobody.jsonl", '{"sentence": "a", "label": -1}\n', ["no row has a label"]),
        ("picture.png", "x", ["no .jsonl"]),
    ],
)
def test_bad_files(place: Path, tmp_path: Path, name: str, text: str | None, parts: list[str]):
    if text is not None:
        (tmp_path / name).write_text(text)
    file = lines(tmp_path / "m", [{"id": "good", "data": str(place / "clients/0.jsonl")}, {"id": "bad", "data": name}])
    message = refused("train", "sst2-opt-125m", *given(place, file), "--out", tmp_path / "run")
    for part in [f"clients.manifest='{file}', line 2 ('bad'): ", *parts]:
        assert part in message, message
    assert not (tmp_path / "run" / "journal").exists()


def test_folders_patterns_and_other_formats(place: Path, tmp_path: Path):
    rows = sentences(4, 5)
    write_jsonl(tmp_path / "folder" / "train.jsonl", rows)
    write_jsonl(tmp_path / "folder" / "validation.jsonl", sentences(2, 6))
    write_jsonl(tmp_path / "parts" / "1.jsonl", rows[:1])
    write_jsonl(tmp_path / "parts" / "2.jsonl", rows[1:])
    (tmp_path / "x.csv").write_text("sentence,label\n" + "".join(f"{r['sentence']},{r['label']}\n" for r in rows))
    data = ["folder", "parts/*.jsonl", "x.csv"]
    file = lines(tmp_path / "m", [{"id": name, "data": name} for name in data])
    train = build_problem(recipe(place, file), hosted=read_manifest(str(file)).clients).task.train
    assert isinstance(train, Gathered) and len({part.digest() for part in train.parts}) == 1 and len(train) == 12
    for i in range(4):
        assert (
            np.array_equal(train[i]["input_ids"], train[8 + i]["input_ids"]) and train[i]["label"] == rows[i]["label"]
        )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("clients/[12].jsonl", "clients/1.jsonl"),
        ("clients/1.jsonl", "clients/[12].jsonl"),
        ("clients", "clients/train.jsonl"),
        ("clients/train.jsonl", "clients"),
        ("clients/1*", "clients/?.jsonl*"),
        ("clients/t*.jsonl", "clients/more/link.jsonl"),
        ("packed/*.zip", "packed/x.zip"),
    ],
)
def test_a_file_is_one_clients(place: Path, tmp_path: Path, a: str, b: str):
    rows = sentences(4, 5)
    for name in ("1", "2", "train"):
        write_jsonl(tmp_path / "clients" / f"{name}.jsonl", rows)
    (tmp_path / "clients/more").mkdir()
    (tmp_path / "clients/more/link.jsonl").symlink_to(tmp_path / "clients/train.jsonl")
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed/x.zip", "w") as archive:
        archive.write(tmp_path / "clients/1.jsonl", "train.jsonl")
    file = lines(tmp_path / "m", [{"id": "a", "data": a}, {"id": "b", "data": b}])
    with pytest.raises(DataError, match=r"line \d \('[ab]'\)") as raised:
        build_problem(recipe(place, file), hosted=read_manifest(str(file)).clients)
    assert all(part in str(raised.value) for part in ("line 1 ('a')", "line 2 ('b')", "count twice")), raised.value


def test_a_row_knows_the_names_of_the_others(place: Path, tmp_path: Path):
    write_jsonl(tmp_path / "1.jsonl", sentences(4, 5))
    write_jsonl(tmp_path / "2.jsonl", sentences(4, 6))
    file = lines(tmp_path / "m", [{"id": "a", "data": "*.jsonl"}, {"id": "b", "data": "2.jsonl"}])
    with pytest.raises(DataError, match=r"line 1 \('a'\): .*2\.jsonl is the data of .*line 2 \('b'\), too"):
        build_problem(recipe(place, file), hosted=read_manifest(str(file)).clients[:1])


@pytest.mark.parametrize(
    ("name", "noted"),
    [
        ("validation.jsonl", "is evaluated as validation and is the data of"),
        ("link.jsonl", "is evaluated as validation and is the data of"),
        ("links/*.jsonl", "is evaluated as validation and is the data of"),
        ("copy.jsonl", "validation holds the same examples as a client"),
        ("train.jsonl", None),
        (".", None),
    ],
)
def test_what_a_client_trains_on_and_is_evaluated_is_noted(place: Path, tmp_path: Path, name: str, noted: str | None):
    data = tmp_path / "data"
    write_jsonl(data / "train.jsonl", sentences(4, 5))
    write_jsonl(data / "validation.jsonl", sentences(4, 6))
    write_jsonl(data / "copy.jsonl", sentences(4, 6))
    (data / "link.jsonl").symlink_to("validation.jsonl")
    (data / "links").mkdir()
    (data / "links/a.jsonl").symlink_to("../validation.jsonl")
    file = lines(tmp_path / "m", [{"id": "a", "data": str(data / name)}])
    problem = build_problem(recipe(place, file, task__data=data), hosted=read_manifest(str(file)).clients)
    notes = [note for note in problem.task.overlaps if "scores on it are scores on training data" in note]
    assert len(notes) == (noted is not None) and (noted or "") in "".join(notes), problem.task.notes


def of_client(sizes: list[int]) -> Examples:
    """Examples whose i-th has i % 2 as label, and tokens that say which it is."""
    return Examples({"ids": Ragged.of([[n, i] for i, n in enumerate(sizes)])}, np.arange(len(sizes)) % 2)


def test_clients_lie_one_after_the_other():
    parts = [of_client(sizes) for sizes in ([5, 6], [], [7, 8], [9, 10, 11])]
    gathered = Gathered(parts)
    assert len(gathered) == 7 and gathered.owners is not None and gathered.owners.tolist() == [0, 0, 2, 2, 3, 3, 3]
    assert gathered.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert [gathered[i]["ids"].tolist() for i in range(7)] == [
        [5, 0], [6, 1], [7, 0], [8, 1], [9, 0], [10, 1], [11, 2],
    ]  # fmt: skip
    assert [gathered[i]["label"] for i in range(7)] == gathered.labels.tolist()
    assert len(Gathered([])) == 0


def test_the_digest_tells_who_holds_what():
    a, b = of_client([1, 2]), of_client([3])
    digests = {
        Gathered(parts).digest() for parts in ([a, b], [b, a], [a], [a, b, of_client([])], [of_client([1, 2, 3])])
    }
    assert len(digests) == 5 and Gathered([of_client([1, 2]), b]).digest() in digests
