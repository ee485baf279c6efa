"""What all sections share: no setting that is not known, no number that is none, nothing changes once it is checked."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from hpcfed.config import Recipe, validate
from hpcfed.config.section import NotNegative, Positive, Section
from tests.support.recipes import SMALLEST, refused_override


class Oven(Section):
    """A section of our own."""

    heat: Annotated[float, Field(gt=0)] = 180.0
    """Degrees."""
    trays: Positive = 2
    """Of them, how many."""
    rest: NotNegative = 0
    fan: bool = False
    dish: str = "bread"


def wrong(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Oven(**values)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_recipe_cannot_be_changed():
    recipe = validate(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        recipe.rounds = 2  # type: ignore[misc]
    assert recipe == Recipe.model_validate(SMALLEST)


@pytest.mark.parametrize(
    "name",
    ["task.data", "model.name", "task.name", "task.train_split", "task.label", "clients.manifest", "clients.id_column"],
)
def test_nothing_is_no_value(name: str):
    assert f"{name}=''" in (message := refused_override(f"{name}=")) and "is empty" in message
    assert "is empty" in refused_override(f'{name}=""')


@pytest.mark.parametrize("name", ["task.text", "task.eval_splits"])
@pytest.mark.parametrize("value", ['[""]', '["a", ""]', '[" "]'])
def test_nothing_names_nothing(name: str, value: str):
    message = refused_override(f"{name}={value}")
    assert name in message and "an empty name" in message


def test_an_empty_default_is_one():
    class Table(Section):
        cloth: str = ""
        food: str | None = None

    assert Table(cloth="").cloth == ""
    with pytest.raises(ValidationError, match="is empty"):
        Table(food="")


@pytest.mark.parametrize("override", ["algorithm.lr=true", "seed=false", "clients.per_round=true", "model.name=true"])
def test_true_and_false_are_no_numbers(override):
    assert "true and false" in refused_override(override)


@pytest.mark.parametrize("setting", ["heat", "trays", "rest", "dish"])
@pytest.mark.parametrize("value", [True, False])
def test_only_a_switch_can_be_true(setting: str, value: bool):
    assert "true and false are no value for this setting" in wrong(**{setting: value})
    assert Oven(fan=value).fan is value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(value: float):
    assert "finite number" in wrong(heat=value) and "rest" in wrong(rest=value)


def test_counts_have_their_bounds():
    assert Oven(trays=1, rest=0).trays == 1
    assert "greater than or equal to 1" in wrong(trays=0) and "greater than or equal to 0" in wrong(rest=-1)


def test_settings_that_are_not_known_are_refused_and_known_ones_stay():
    assert "heet" in wrong(heet=200) and Oven().heat == 180.0
    with pytest.raises(ValidationError, match="frozen"):
        Oven().heat = 200  # type: ignore[misc]


def test_the_text_below_a_setting_is_its_description():
    fields = Oven.model_fields
    assert fields["heat"].description == "Degrees." and fields["trays"].description == "Of them, how many."
    assert fields["fan"].description is None
