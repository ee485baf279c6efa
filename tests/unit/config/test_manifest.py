"""The manifest: the file that names clients with files of their own, what is wrong with it, settings beside it.

Their files are read in tasks/test_sources.py; the same run as from one file is in clients/test_hosted.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcfed.config import load_recipe, read_manifest, to_toml
from hpcfed.errors import ConfigError
from tests.support.command import refused
from tests.support.manifests import given, lines, make_place, recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, evaluation data, a manifest of five clients, and all their sentences in one file."""
    return make_place(tmp_path_factory.mktemp("manifest"))


# --- the file --------------------------------------------------------------------------------------------------------


def test_what_a_manifest_says(tmp_path: Path):
    text = '{"id": "a, b", "data": "x.jsonl", "weight": 3}\n\n  \n{"weight": 7, "data": "/y z/*.csv", "id": "ü"}'
    (tmp_path / "m").write_text(text, encoding="utf-8")
    found = read_manifest(str(tmp_path / "m"))
    assert [client.id for client in found.clients] == ["a, b", "ü"] and found.weights == [3, 7]
    assert [client.data for client in found.clients] == [str(tmp_path / "x.jsonl"), "/y z/*.csv"]
    assert found.clients[1].where.endswith("m', line 4 ('ü')")
    moved = lines(tmp_path / "n", [{"id": "a, b", "data": "q", "weight": 3}, {"id": "ü", "data": "r", "weight": 7}])
    assert read_manifest(str(moved)).digest() == found.digest()
    lines(moved, [{"id": "ü", "data": "x", "weight": 7}, {"id": "a, b", "data": "r", "weight": 3}])
    assert read_manifest(str(moved)).digest() != found.digest()


A = {"id": "a", "data": "a.jsonl"}


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ([A, {"id": "b", "data": "b"}, A], ["line 3: id 'a' is that of line 1"]),
        ([A, {"id": "b", "data": "b", "weight": 2}], ["line 2: a weight, unlike the lines before", "all lines one or"]),
        ([A | {"weight": 2}, {"id": "b", "data": "b"}], ["line 2: no weight, unlike"]),
        ([A | {"weight": 0}], ["line 1: weight 0 must be an integer from 1", "leave it out"]),
        ([A | {"weight": -3}], ["weight -3"]),
        ([A | {"weight": 2.5}], ["weight 2.5", "multiplied by the same number"]),
        ([A | {"weight": True}], ["weight True"]),
        ([A | {"weight": "12"}], ["weight '12'"]),
        ([A | {"weight": 2**31}], ["weight 2147483648", "2,147,483,647"]),
        ([A | {"wieght": 2}], ["'wieght' is not one of id, data, weight", "did you mean weight?"]),
        ([{"id": "a"}], ["line 1: data is missing", '{"id": "a", "data": "a.jsonl", "weight": 100}']),
        ([{"id": 7, "data": "a"}], ["id 7 is no text"]),
        ([{"id": " ", "data": "a"}], ["id ' ' is no text"]),
        ([["a", "b"]], ["line 1: not a JSON object"]),
        ([], ["holds no clients"]),
    ],
)
def test_bad_lines(tmp_path: Path, entries: list[Any], parts: list[str]):
    with pytest.raises(ConfigError) as caught:
        read_manifest(str(lines(tmp_path / "m", entries)))
    assert all(part in str(caught.value) for part in [str(tmp_path / "m"), *parts]), caught.value


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"id,data\na,a.jsonl\n", "line 1: not JSON"),
        (b'{"id": "a", "data": "a"}\n{"id": ', "line 2: not JSON"),
        (b'{"id": "\xff"}', "line 1: not UTF-8 text (byte 9)"),
        (b"[" * 100_000, "line 1: not JSON"),
    ],
)
def test_bad_bytes(tmp_path: Path, raw: bytes, part: str):
    (tmp_path / "m").write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        read_manifest(str(tmp_path / "m"))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        '{"id": "a", "data": "c2", "data": "c1"}',
        '{"id": "a", "id": "a", "data": "c2"}',
        '{"data": "c2", "weight": 1, "id": "a", "weight": 2}',
        '{"id": "a", "data": "x", "data": null}',
        '{"id": "a", "data": "x", "\\u0069d": "b"}',
        '{"id": "a", "data": {"x": 1, "x": 2}}',
    ],
)
def test_a_key_is_there_once(tmp_path: Path, raw: str):
    (tmp_path / "m").write_text('{"id": "first", "data": "f"}\n' + raw)
    with pytest.raises(ConfigError, match=r"line 2: the key '\w+' twice in one object"):
        read_manifest(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("c2/train.jsonl", "./c2/../c2/train.jsonl"),
        ("c2/train.jsonl", "c2//train.jsonl"),
        ("c2", "c2/"),
        ("c2/*.jsonl", "./c2/*.jsonl"),
        ("link.jsonl", "c2/train.jsonl"),
        ("c2/train.jsonl", "folder/train.jsonl"),
        ("gone.jsonl", "./gone.jsonl"),
    ],
)
def test_two_clients_have_not_the_same_data(tmp_path: Path, one: str, other: str):
    (tmp_path / "c2").mkdir()
    (tmp_path / "c2/train.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to("c2/train.jsonl")
    (tmp_path / "folder").symlink_to("c2")
    entries = [{"id": "a", "data": one}, {"id": "b", "data": "other.jsonl"}, {"id": "c", "data": other}]
    with pytest.raises(ConfigError, match=r"line 3 \('c'\): its data, .* are those of .*line 1 \('a'\)"):
        read_manifest(str(lines(tmp_path / "m", entries)))


def test_ten_thousand_lines(tmp_path: Path):
    n = 10_000
    file = lines(tmp_path / "m", [{"id": f"c{k}", "data": f"{k}.jsonl", "weight": k + 1} for k in range(n)])
    found = load_recipe("sst2-opt-125m", [f"clients.manifest={file}", "clients.per_round=100"])
    assert found.clients.count == n and found.clients.cohort == 100  # and not a file of theirs was opened
    assert read_manifest(str(file)).weights == list(range(1, n + 1))


# --- settings beside it ----------------------------------------------------------------------------------------------


def test_the_recipe_takes_its_clients_from_there(place: Path, tmp_path: Path):
    found = recipe(place)
    assert found.clients.count == 5 and found.clients.partition == "manifest" and found.task.train_limit is None
    file = tmp_path / "resolved.toml"
    file.write_text(to_toml(found))
    assert load_recipe(str(file)) == found
    file.write_text(to_toml(found).replace("m.jsonl", "moved.jsonl"))
    assert load_recipe(str(file)).clients.count == 5  # what was resolved is read without it


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"clients__count": 4}, ["clients.count=4", "has 5", "leave clients.count out"]),
        ({"clients__partition": "iid"}, ["clients.partition='iid'", "who holds what", "leave clients.partition out"]),
        ({"clients__beta": 0.5}, ["clients.beta=0.5", "leave clients.beta out"]),
        ({"clients__shards_per_client": 3}, ["clients.shards_per_client=3"]),
        ({"clients__id_column": "idx"}, ["clients.id_column='idx'"]),
        ({"clients__class_column": "kind"}, ["clients.class_column='kind'", "leave clients.class_column out"]),
        ({"clients__per_round": 6}, ["clients.per_round=6", "clients.count=5"]),
        ({"task__train_limit": 7}, ["task.train_limit=7", "all of its file"]),
        ({"task__few_shot": 7}, ["task.few_shot=7"]),
        ({"task__eval_splits": "[]"}, ["task.eval_splits=[]", "a split to evaluate"]),
        ({"task__name": "digits", "model__name": "digits-vit"}, ['task.name="digits"']),
        ({"algorithm__name": "mezo"}, ["mezo is centralised", "task.data"]),
        ({"clients__manifest": "nowhere.jsonl"}, ["clients.manifest='nowhere.jsonl': cannot read it", "No such file"]),
        ({"clients__manifest": ""}, ["clients.manifest", "is empty"]),
        ({"clients__manifest": 7}, ["clients.manifest=7", "valid string"]),
    ],
)
def test_settings_that_contradict_it(place: Path, tmp_path: Path, values: dict[str, Any], parts: list[str]):
    message = refused("train", "sst2-opt-125m", *given(place, **values), "--out", tmp_path / "run")
    assert all(part in message for part in parts), message


def test_the_partition_of_that_name_needs_one(place: Path, tmp_path: Path):
    values = given(place, None, clients__partition="manifest")
    message = refused("train", "sst2-opt-125m", *values, "--out", tmp_path / "run")
    assert 'clients.partition="manifest": clients.manifest must name the file' in message


def test_marks_and_odd_names(tmp_path):
    names = ["run[1].jsonl", "~x.jsonl", "a::b.jsonl", "v$HOME.jsonl", "a b#.jsonl", "*.jsonl"]
    (tmp_path / "~x.jsonl").touch()
    rows = "".join(json.dumps({"id": name, "data": name}) + "\r\n" for name in names)
    (tmp_path / "m").write_bytes(rows.encode("utf-8-sig"))
    clients = read_manifest(str(tmp_path / "m")).clients
    assert [client.data for client in clients] == [str(tmp_path / name) for name in names]
