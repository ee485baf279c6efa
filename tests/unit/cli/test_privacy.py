"""hpcfed privacy: what a run would cost, on what that rests, and which numbers it cannot be."""

from __future__ import annotations

import pytest

from hpcfed.privacy import forecast, total_epsilon
from tests.support.command import hpcfed, ok, refused

RUN = ("privacy", "--epsilon-per-round", 0.5, "--rounds", 10_000)


def test_it_says_what_it_costs_and_on_what_it_rests():
    said = ok(*RUN, "--sample-rate", 0.1, "--budget", 8).out
    exact = forecast(0.5, 10_000, 0.1, 1e-5, 8)
    public, secret = (next(line for line in said.splitlines() if line.strip().startswith(f"{k}:")) for k in exact)
    assert f"about 1,000 0.5000 500 {exact['public'].tight:,.0f} about {exact['public'].fit}" in " ".join(
        public.split()
    )
    assert f"10,000 {exact['secret'].epsilon:.4f} 629 {exact['secret'].tight:.4f} {exact['secret'].fit}" in " ".join(
        secret.split()
    )
    for word in ("delta 1e-05", "trust row 0", "trust nobody", "0.378", "abstention", "summary.json"):
        assert word in " ".join(said.split())


def test_it_when_all_clients_vote():
    said = ok(*RUN).out
    assert "secret" not in said and "within" not in said and "100 % of the clients" in said
    assert f"{total_epsilon(0.5, 10_000, 1e-5):,.0f}" in said


@pytest.mark.parametrize(
    "wrong",
    [
        ("--epsilon-per-round", "0"),
        ("--epsilon-per-round", "-0.5"),
        ("--epsilon-per-round", "51"),
        ("--epsilon-per-round", "inf"),
        ("--epsilon-per-round", "nan"),
        ("--rounds", "0"),
        ("--rounds", "-3"),
        ("--rounds", "100000001"),
        ("--sample-rate", "0"),
        ("--sample-rate", "1.5"),
        ("--sample-rate", "nan"),
        ("--delta", "0"),
        ("--delta", "1"),
        ("--delta", "nan"),
        ("--budget", "0"),
        ("--budget", "-1"),
        ("--budget", "inf"),
        ("--budget", "nan"),
    ],
    ids=" ".join,
)
def test_it_refuses(wrong):
    said = refused(*RUN, *wrong)  # the last of an option counts
    assert wrong[0] in said and "\n" not in said and "must be" in said


def test_it_wants_numbers():
    assert hpcfed("privacy", "--rounds", 3).code == 2
