"""benchmarks/generate.py measures what it says: all variants write the answers of one model. No figure is looked at."""

from __future__ import annotations

import pytest

from benchmarks import generate as benchmark
from tests.support.probes import moved
from tests.support.written import WRITERS, writer


@pytest.mark.parametrize("family", WRITERS)
def test_the_variants_write_the_same(family: str) -> None:
    model, inputs = writer(family), benchmark.make_prompts(3, words=512)
    assert inputs["attention_mask"].sum(1).tolist() == [8, 20, 32]
    runs = benchmark.variants(model, inputs, 6)
    assert list(runs) == ["transformers", "ours", "both sides"]
    own = runs["transformers"]()
    assert runs["ours"]() == own and {len(answer) for answer in own} == {6}
    sides = [benchmark.variants(moved(model, 3, mu), inputs, 6)["ours"]() for mu in (benchmark.MU, -benchmark.MU)]
    assert runs["both sides"]() == sides[0] + sides[1]
    table = benchmark.timed(runs, 2)
    assert table["transformers"]["ratio"] == 1 and table["both sides"]["rate"] > 0
    assert "tokens/s" in benchmark.report({"dtype": "float32", "variant": "ours"} | table["ours"])


def test_the_script_reads_its_arguments() -> None:
    chosen = benchmark.arguments(["--model", "folder", "--rows", "4"])
    assert (chosen.model, chosen.rows, chosen.tokens, chosen.dtype) == ("folder", 4, 50, ["float32", "bfloat16"])
