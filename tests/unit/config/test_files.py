"""Recipes: what is wrong is said with its cure, and what is right survives TOML. Bounds are in test_settings.py."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.config import load_recipe, shipped, to_toml, validate
from hpcfed.config.files import inline
from hpcfed.errors import ConfigError
from tests.support.recipes import SMALLEST, refused_override

TEXT = st.characters(exclude_categories=["Cs"])


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_load_and_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    file = tmp_path / "resolved.toml"
    file.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(str(file)) == recipe
    assert to_toml(load_recipe(str(file))) == file.read_text()


def test_what_is_shipped():
    assert {"digits", "sst2-opt-125m", "sst2-roberta-large"} <= set(shipped())


def test_defaults_are_written_out():
    table = tomllib.loads(to_toml(validate(SMALLEST)))
    assert table["clients"]["count"] == 5 and table["algorithm"]["distribution"] == "gaussian"
    assert "revision" not in table["model"]  # settings that are None are left out


@given(
    text=st.text(TEXT, min_size=1, max_size=20),
    lr=st.floats(1e-300, 1e300),
    words=st.lists(st.text(TEXT, min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=3),
    per_round=st.one_of(st.integers(1, 5), st.floats(0.01, 1)),
)
def test_every_value_survives_toml(text, lr, words, per_round):
    raw = json.loads(json.dumps(SMALLEST))
    raw["model"]["name"], raw["algorithm"]["lr"] = text, lr
    raw["task"]["verbalizers"], raw["clients"] = words, {"per_round": per_round}
    recipe = validate(raw)
    again = validate(tomllib.loads(to_toml(recipe)))
    assert again == recipe and type(again.clients.per_round) is type(recipe.clients.per_round)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("algorithm.mo=1", "algorithm.mu"),
        ("zzz=1", ""),
        ("clients.counts=3", "clients.count"),
        ("round=3", "rounds"),
        ("modle.name=x", "model"),
        ("mesh.shard=2", "mesh.shards"),
    ],
)
def test_unknown_setting_names_the_nearest(override, nearest):
    text = refused_override(override)
    assert "is not a setting" in text and "(known: " in text
    assert (f"did you mean {nearest}?" in text) if nearest else ("did you mean" not in text)


def test_all_that_is_wrong_is_said_at_once():
    text = refused_override("algorithm.lr=0", "algorithm.mo=1", "rounds=0")
    assert len(text.splitlines()) == 3 and all(word in text for word in ("algorithm.lr", "algorithm.mo", "rounds"))


def test_missing_settings_are_named():
    with pytest.raises(ConfigError) as caught:
        validate({"rounds": 1, "algorithm": {}})
    assert {line.split(" ")[0] for line in str(caught.value).splitlines()} == {"model", "task", "algorithm.lr"}


@pytest.mark.parametrize("item", ["algorithm.lr", "=3", " =3", "rounds", ""])
def test_set_is_key_equals_value(item):
    assert "write it as section.key=value" in refused_override(item)


def test_set_below_a_setting():
    assert "rounds is a setting, not a section" in refused_override("rounds.x=3")


def test_set_reads_toml_values_and_bare_words():
    recipe = load_recipe(
        "digits",
        [
            "algorithm.schedule=cosine",
            " algorithm.lr = 1e-4 ",
            'algorithm.train_only=["classifier.*"]',
            "model.name=/some/folder=odd",
            "tensorboard=true",
            "rounds=7",
            "rounds=8",
            'task.name="sst2"',
        ],
    )
    assert recipe.algorithm.schedule == "cosine" and recipe.algorithm.lr == 1e-4
    assert recipe.algorithm.train_only == ["classifier.*"] and recipe.model.name == "/some/folder=odd"
    assert recipe.tensorboard and recipe.rounds == 8 and recipe.task.name == "sst2"


def test_set_may_open_a_section_that_the_file_does_not_have(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('rounds = 3\n[model]\nname = "m"\n[task]\nname = "t"\n[algorithm]\nlr = 1\n')
    assert load_recipe(str(file), ["clients.count=9", "mesh.threads=2"]).clients.count == 9


def test_unknown_recipe():
    with pytest.raises(ConfigError, match=r"'digit' is neither a file nor a shipped recipe; did you mean digits\?"):
        load_recipe("digit")


@pytest.mark.parametrize("raw", [b"rounds = ", b"[model\n", b"a = 1\na = 2\n"])
def test_unreadable_recipe(tmp_path, raw):
    file = tmp_path / "bad.toml"
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match=re.escape(f"recipe {file}: not a readable TOML file")):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"a = '\xff'", "not UTF-8 text"),
        (b"a = 'caf\xe9'", "Windows-1252"),
        ("rounds = 3".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_recipe_in_another_encoding_is_named_so(tmp_path, raw, said):
    (tmp_path / "bad.toml").write_bytes(raw)
    with pytest.raises(ConfigError, match=rf"bad\.toml.*{said}"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_a_choice_of_types_is_one_message():
    assert refused_override("clients.per_round=half").count("clients.per_round") == 1


@pytest.mark.parametrize(
    "words",
    [
        {"complaint": "terrible", "praise": "great"},
        {"very good": "a", "": "b", "1": "c", "sci/tech": 'd"'},
        {"Ärger": "x", "a.b": "y", "a\\b\n": "z"},
        ["terrible", "great"],
    ],
)
def test_words_by_class_survive_toml(tmp_path, words):
    file = tmp_path / "r.toml"
    file.write_text(to_toml(load_recipe("sst2-opt-125m", [f"task.verbalizers={inline(words)}"])), encoding="utf-8")
    again = load_recipe(str(file))
    assert again.task.verbalizers == words and to_toml(again) == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("rounds = 2\n".encode("utf-16"), "UTF-16, not UTF-8; convert it: iconv"),
        ("rounds = 2\n".encode("utf-16be"), "not a readable TOML file"),
        (b"# caf\xe9\n", r"not UTF-8 text \(byte 6\): 0xe9 there"),
    ],
)
def test_a_recipe_of_another_encoding_is_named(tmp_path, raw, says):
    (tmp_path / "bad.toml").write_bytes(raw)
    with pytest.raises(ConfigError, match=says):
        load_recipe(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path, ends):
    text = shipped()["digits"].read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_bytes(text.replace("\n", ends).encode("utf-8-sig"))
    assert load_recipe(str(tmp_path / "mine.toml")) == load_recipe("digits")
