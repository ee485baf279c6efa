"""A dry run shows what a run would be, and writes nothing."""

from __future__ import annotations

import pytest

from hpcfed.config import validate
from hpcfed.errors import ConfigError
from hpcfed.train.build import build_run
from hpcfed.train.dry import dry_run
from hpcfed.train.start import train
from hpcfed.transport.solo import SoloTransport
from tests.support.digits import tiny
from tests.support.open_tasks import ROWS, long_llama
from tests.support.small import write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return long_llama(tmp_path_factory.mktemp("model"))


def recipe_of(tmp_path, folder, name, rounds=3, method="feedsign", privacy=None, **task):
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", ROWS[name] * 3)
    sections = {
        "rounds": rounds,
        "model": {"name": str(folder)},
        "task": {"name": name, "data": str(tmp_path / "data"), **task},
        "clients": {"count": 2, "batch": 2},
        "algorithm": {"name": method, "lr": 1e-3, "mu": 1e-2},
    }
    return validate(sections | ({"privacy": privacy} if privacy else {}))


def test_it_marks_what_the_loss_reads_and_writes_nothing(tmp_path, folder):
    lines = dry_run(recipe_of(tmp_path, folder, "copa"))
    said = "\n".join(lines)
    assert "The film was dull so⟦ it was weak.⟧" in said and "right: it was weak." in said
    assert "2 clients hold 6 examples" in said and "a round took" in said and "memory of a rank" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_picture_has_a_size_and_no_tokens():
    said = dry_run(tiny())
    assert said[said.index("the first training example:") + 1] == "pixel_values: 1 x 8 x 8"


def test_a_private_run_shows_no_clients_example_and_casts_no_vote(tmp_path, folder):
    said = "\n".join(dry_run(recipe_of(tmp_path, folder, "copa", privacy={"mechanism": "local", "epsilon": 1.0})))
    assert "the first evaluated example" in said and "no round is tried out" in said and "clients hold" not in said


@pytest.mark.parametrize(("name", "objective"), [("squad", "f1"), ("copa", "accuracy"), ("squad", "own")])
def test_clients_vote_on_a_metric(tmp_path, folder, name, objective):
    (tmp_path / "reward.py").write_text("def own(prediction, references): return len(prediction) % 3 / 2")
    own = f"{tmp_path}/reward.py:own" if objective == "own" else objective
    settings = {"objective": own} | ({"max_new_tokens": 3} if name == "squad" else {})
    done = train(recipe_of(tmp_path, folder, name, 12, **settings), tmp_path / "run", quiet=True)
    assert done.summary["status"] == "finished"  # though most rounds tie
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"zeros"' in text and done.summary["rounds"] == 12


def test_a_metric_has_no_gradient_and_a_bad_one_is_named(tmp_path, folder):
    with pytest.raises(ConfigError, match=r"task.objective='f1': fedsgd needs gradients"):
        recipe_of(tmp_path, folder, "squad", method="fedsgd", objective="f1")
    (tmp_path / "bad.py").write_text("def own(prediction, references): return 2")
    recipe = recipe_of(tmp_path, folder, "squad", objective=f"{tmp_path}/bad.py:own", max_new_tokens=2)
    with pytest.raises(ConfigError, match=r"bad.py:own'.* 2"):
        train(recipe, tmp_path / "run", quiet=True)


def test_a_private_reward_that_fails_quotes_no_client(tmp_path, folder):
    (tmp_path / "bad.py").write_text("def own(prediction, references): return float(references[0])")
    own = {"objective": f"{tmp_path}/bad.py:own", "max_new_tokens": 2}
    recipe = recipe_of(tmp_path, folder, "squad", privacy={"mechanism": "local", "epsilon": 1.0}, **own)
    with pytest.raises(ConfigError, match=r"bad.py:own': of an answer it raised ValueError$"):
        train(recipe, tmp_path / "run", quiet=True)


def test_a_run_goes_on_with_the_reward_that_it_began_with_only(tmp_path, folder):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("def own(prediction, references): return len(prediction) % 2")
    second.write_text("def own(prediction, references): return len(prediction) % 3 / 2")
    found = {}
    for file in (first, second, first):
        recipe = recipe_of(tmp_path, folder, "copa", objective=f"{file}:own")
        run = build_run(recipe, SoloTransport())
        found.setdefault(file, []).append(run.digests["the file of task.objective"])
    assert found[first][0] == found[first][1] != found[second][0]
    assert "the file of task.objective" not in build_run(recipe_of(tmp_path, folder, "copa"), SoloTransport()).digests
