"""Clients with files of their own: the file that names them, what is wrong with it, the same run as from one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcfed.clients import Pool, partition_report
from hpcfed.clients.hosted import hosted_pool
from hpcfed.config import load_recipe, read_manifest, to_toml
from hpcfed.config.files import validate
from hpcfed.errors import ConfigError
from hpcfed.tasks.base import Examples
from hpcfed.tasks.sources import Gathered
from hpcfed.train.build import assemble, build_run
from hpcfed.train.problem import build_problem
from hpcfed.train.round import State
from hpcfed.transport.mesh import MeshShape
from hpcfed.transport.solo import SoloTransport
from tests.support.command import hpcfed, ok, refused, settings
from tests.support.small import save_tiny_folder, sentences, tiny_sst2, write_jsonl

SIZES = (3, 9, 5, 4, 12)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, evaluation data, a manifest of five clients, and all their sentences in one file."""
    folder = tmp_path_factory.mktemp("manifest")
    save_tiny_folder(folder, "opt")
    tiny_sst2(folder)
    held = [sentences(n, 100 + k) for k, n in enumerate(SIZES)]
    for k, rows in enumerate(held):
        write_jsonl(folder / "clients" / f"{k}.jsonl", rows)
    write_jsonl(folder / "whole" / "train.jsonl", [row for rows in held for row in rows])
    write_jsonl(folder / "whole" / "validation.jsonl", sentences(32, 1))
    lines(folder / "m.jsonl", [{"id": f"c{k}", "data": f"clients/{k}.jsonl"} for k in range(len(SIZES))])
    return folder


def lines(file: Path, entries: list[Any]) -> Path:
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def given(place: Path, manifest: Path | str | None = "m.jsonl", **values: Any) -> list[str]:
    """--set options: the tiny model and data, two clients in a group."""
    fixed = {"model__name": place / "opt-causal-lm-0", "task__data": place / "sst2", "rounds": 3, "clients__group": 2}
    named = {} if manifest is None else {"clients__manifest": place / manifest}
    return settings(**(fixed | {"clients__batch": 4, "mesh__threads": 1} | named | values))


def recipe(place: Path, manifest: Path | str | None = "m.jsonl", **values: Any) -> Any:
    return load_recipe("sst2-opt-125m", given(place, manifest, **values)[1::2])


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
        ({"clients__per_round": 6}, ["clients.per_round=6", "clients.count=5"]),
        ({"task__train_limit": 7}, ["task.train_limit=7", "all of its file"]),
        ({"task__few_shot": 7}, ["task.few_shot=7"]),
        ({"task__eval_splits": "[]"}, ["task.eval_splits=[]", "a split to evaluate"]),
        ({"task__name": "digits", "model__name": "digits-vit"}, ['task.name="digits"']),
        ({"algorithm__name": "mezo"}, ["mezo is centralised", "task.data"]),
        ({"clients__manifest": "nowhere.jsonl"}, ["clients.manifest='nowhere.jsonl': cannot read it", "No such file"]),
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


# --- the clients' files ----------------------------------------------------------------------------------------------


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


# --- the run ---------------------------------------------------------------------------------------------------------

ONE = {"algorithm__lr": 1e-2}
METHODS: list[dict[str, Any]] = [
    ONE | {"clients__per_round": 3},
    ONE | {"algorithm__name": "zo-fedavg", "algorithm__local_steps": "epoch"},
    ONE | {"algorithm__name": "fedkseed", "algorithm__pool_size": 16, "algorithm__local_steps": 3},
    ONE | {"algorithm__name": "fedsgd"},
]


@pytest.mark.parametrize("values", METHODS, ids=lambda values: values.get("algorithm__name", "feedsign"))
def test_the_same_run_as_from_one_file(place: Path, values: dict[str, Any]):
    """Against a pool whose clients' examples lie in one file, one client after the other."""
    run = build_run(recipe(place, **values), SoloTransport())
    whole = recipe(
        place, None, **(values | {"task__data": place / "whole", "clients__count": 5, "task__train_limit": 99})
    )
    problem, ends = build_problem(whole), np.cumsum(SIZES)
    parts = [np.arange(end - n, end) for n, end in zip(SIZES, ends, strict=True)]
    c = whole.clients
    other = assemble(whole, SoloTransport(), MeshShape(1), problem, Pool(parts, c.cohort, c.group, c.batch, whole.seed))
    assert run.header.settings == other.header.settings
    states = State(), State()
    for t in range(3):
        found = [r.round(t, state) for r, state in zip((run, other), states, strict=True)]
        assert found[0].loss == found[1].loss
    assert states[0].last == states[1].last
    assert run.problem.weights.fingerprint() == problem.weights.fingerprint() != run.header.base_fingerprint
    labels = problem.task.train.labels
    assert run.pool.report(labels, ["a", "b"]).data() == partition_report(parts, labels, ["a", "b"]).data()


def test_weights_weigh(place: Path, tmp_path: Path):
    def entries(weights: list[int] | None) -> Path:
        named = [{"id": f"c{k}", "data": str(place / f"clients/{k}.jsonl")} for k in range(5)]
        both = [e | {"weight": w} for e, w in zip(named, weights, strict=True)] if weights else named
        return lines(tmp_path / "m.jsonl", both)

    def ends(weights: list[int] | None) -> tuple[list[int], str]:
        run = build_run(recipe(place, entries(weights), **METHODS[2]), SoloTransport())
        run.round(0, State())
        return run.pool.sizes(0).tolist(), run.problem.weights.fingerprint()

    counted, far = ends(None), ends([1, 1, 1, 1, 500])
    assert counted[0] == list(SIZES) and far[0] == [1, 1, 1, 1, 500] and counted[1] != far[1]
    assert ends(list(SIZES)) == counted
    assert ends([2 * n for n in SIZES])[1] == counted[1]  # only ratios count


NOTHING = Examples({}, np.zeros(0, np.int64))  # whose digest is not asked for


def test_a_private_pool_tells_no_numbers():
    raw = {"rounds": 1, "model": {"name": "m"}, "task": {"name": "t"}, "algorithm": {"lr": 1}}
    recipe = validate(raw | {"clients": {"count": 3, "manifest": "m", "partition": "manifest"}})
    held = [(np.array([2, 0]), "0" * 32), (np.array([1, 5]), "1" * 32), (np.array([0, 1]), "2" * 32)]
    sent = []

    class Ear(SoloTransport):
        def all_gather(self, data: bytes) -> list[bytes]:
            sent.append(len(data))
            return super().all_gather(data)

    private = hosted_pool(Ear(), recipe, range(3), held, None, may_tell=False)
    told = hosted_pool(Ear(), recipe, range(3), held, None, may_tell=True)
    assert sent == [48, 96] and private.digest(NOTHING) == told.digest(NOTHING)
    assert [part.tolist() for part in private.parts] == [[0, 1], [2, 3, 4, 5, 6, 7], [8]]
    assert told.sizes(0).tolist() == [2, 6, 1] and told.most_steps() == 1
    weighed = hosted_pool(Ear(), recipe, range(3), held, [5, 6, 7], may_tell=True)
    assert weighed.digest(NOTHING) != told.digest(NOTHING) and weighed.sizes(0).tolist() == [5, 6, 7]


def test_a_changed_file_or_weight_is_noticed(place: Path, tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", sentences(4, 1))
    write_jsonl(tmp_path / "b.jsonl", sentences(4, 2))
    file = lines(tmp_path / "m", [{"id": "a", "data": "a.jsonl"}, {"id": "b", "data": "b.jsonl"}])
    argv = ["train", "sst2-opt-125m", *given(place, file, clients__group=1), "--out", tmp_path / "run"]
    ok(*argv)
    told = ok("evaluate", tmp_path / "run")  # opens no client's file
    (tmp_path / "a.jsonl").rename(tmp_path / "gone.jsonl")
    assert ok("evaluate", tmp_path / "run").out == told.out
    write_jsonl(tmp_path / "a.jsonl", sentences(4, 3))
    (tmp_path / "run" / "summary.json").unlink()
    assert "the training data, or who holds which, changed since the run began" in refused(*argv, "--resume")
    (tmp_path / "gone.jsonl").replace(tmp_path / "a.jsonl")
    assert hpcfed(*argv, "--resume").code == 0
