"""Rows of other versions or processors are refused; what is written down of this process."""

from __future__ import annotations

import json

import pytest
import torch

from hpcfed.errors import ConfigError
from hpcfed.train.surroundings import check_alike, surroundings
from hpcfed.transport.launch import Launch
from hpcfed.transport.solo import SoloTransport

HERE = {
    "versions": {"hpcfed": "1", "torch": "2", "transformers": "3", "numpy": "4", "numba": "5"},
    "cpu_capability": "AVX2",
    "gpu": None,
}


class Beside(SoloTransport):
    """A row beside one that has other things to say."""

    def __init__(self, theirs: dict) -> None:
        super().__init__()
        known = {**theirs["versions"], "cpu": theirs["cpu_capability"]}
        self.answers = [known[key] for key in ("hpcfed", "torch", "transformers", "numpy", "cpu")]

    def everyone(self, data: bytes) -> list[bytes]:
        return [data, self.answers.pop(0).encode()]


@pytest.mark.parametrize("name", ["hpcfed", "torch", "transformers", "numpy"])
def test_another_version_is_refused(name: str):
    theirs = {**HERE, "versions": HERE["versions"] | {name: "9"}}
    with pytest.raises(ConfigError, match=rf"the version of {name} differs between rows \(row 0: .; row 1: 9\)"):
        check_alike(Beside(theirs), HERE)


def test_another_processor_is_refused_with_a_cure():
    with pytest.raises(ConfigError, match=r"ATEN_CPU_CAPABILITY=avx2.* differs .*row 0: AVX2; row 1: AVX512"):
        check_alike(Beside({**HERE, "cpu_capability": "AVX512"}), HERE)
    check_alike(Beside({**HERE, "cpu_capability": "AVX512"}), {**HERE, "gpu": "H100"})  # which computes then


def test_alike_is_right():
    check_alike(Beside(HERE), HERE)
    check_alike(Beside({**HERE, "versions": HERE["versions"] | {"numba": "9"}}), HERE)  # whose kernels have one spec


def test_what_is_written_down():
    here = surroundings(Launch(), "cpu", 3)
    assert here["torch_threads"] == 3 and here["gpu"] is None and here["cpu"] and here["launcher"] == "alone"
    assert here["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert surroundings(Launch(), "cpu", 0)["torch_threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(here)) == here
