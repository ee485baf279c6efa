"""hpcfed.evaluate as a user calls it: of a recipe, a run, an orbit and a model folder, to the last bit of the loss."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpcfed
from hpcfed.errors import ConfigError, HpcfedError
from tests.support.digits import SHIPPED, TINY, changed_base, lines, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hpcfed.Result:
    """A finished run of six rounds."""
    return hpcfed.train(tiny(), tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_scores_are_those_that_the_run_found(run: hpcfed.Result):
    told = run.summary
    for what, when in ((tiny(), "before"), (run.folder, "after"), (str(run.folder), "after")):
        score = hpcfed.evaluate(what)["test"]
        assert (score.value, score.loss, score.metric) == (told[f"metric_{when}"], told[f"loss_{when}"], "accuracy")
        assert score.examples == 40
    assert told["loss_before"] != told["loss_after"]


def test_a_recipe_with_an_orbit_is_the_model_that_it_rebuilds(run: hpcfed.Result):
    after = hpcfed.evaluate(run.folder)
    assert run.orbit is not None
    for orbit in (run.orbit, run.folder / "journal", run.folder):
        assert hpcfed.evaluate("digits", orbit=orbit, overrides=TINY) == after
    # The orbit's own method rebuilds it, whatever the recipe's is.
    assert hpcfed.evaluate(tiny("algorithm.name=mezo"), orbit=run.orbit) == after
    assert hpcfed.evaluate(run.folder, overrides=["task.eval_limit=10"])["test"].examples == 10


def test_a_run_that_was_stopped_is_evaluated_where_it_stands(tmp_path: Path):
    def stop(line: dict) -> None:
        if line["t"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hpcfed.train(tiny("eval_every=2"), tmp_path / "run", quiet=True, on_round=stop)
    whole = hpcfed.train(tiny("eval_every=1"), tmp_path / "whole", quiet=True)
    at = {line["t"]: line["loss"] for line in lines(whole.folder) if "split" in line}
    assert hpcfed.evaluate(tmp_path / "run")["test"].loss == at[3]


def test_a_model_folder_wants_a_recipe(run: hpcfed.Result, tmp_path: Path):
    before = hpcfed.evaluate(tiny())
    assert hpcfed.evaluate(SHIPPED, recipe="digits", overrides=TINY) == before
    hpcfed.replay(run.folder, "digits-vit", out=tmp_path / "tuned")
    assert hpcfed.evaluate(tmp_path / "tuned", recipe="digits", overrides=TINY) == hpcfed.evaluate(run.folder)
    with pytest.raises(ConfigError, match="is a model folder; give the task by a recipe"):
        hpcfed.evaluate(SHIPPED)
    with pytest.raises(HpcfedError, match="starts from other weights"):
        hpcfed.evaluate(changed_base(tmp_path / "changed"), recipe="digits", overrides=TINY, orbit=run.folder)


def test_a_dense_run_is_evaluated_from_its_weights(tmp_path: Path):
    result = hpcfed.train(tiny("algorithm.name=fedsgd"), tmp_path / "run", quiet=True)
    score = hpcfed.evaluate(result.folder)["test"]
    assert (score.value, score.loss) == (result.summary["metric_after"], result.summary["loss_after"])


def test_what_is_nothing_at_all_is_one_error():
    with pytest.raises(HpcfedError, match="'digit' is neither a file nor a shipped recipe"):
        hpcfed.evaluate("digit")
