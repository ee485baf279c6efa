"""What a run costs: against sums over binomials done with 60 digits, against the library, and by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import mpmath
import pytest

from hpcfed.privacy import Forecast, Ledger, amplified, forecast, most_votes, total_epsilon
from hpcfed.privacy.accountant import LONGEST


def delta_of(total: float, epsilon: float, votes: int) -> mpmath.mpf:
    """Delta at which `votes` randomised responses are (total, delta)-private: sum over k of max(0, P - e^total Q)."""
    with mpmath.workdps(60):
        e, p = mpmath.exp(mpmath.mpf(epsilon)), mpmath.mpf(0)
        factor, stay = mpmath.exp(mpmath.mpf(total)), e / (1 + e)
        for k in range(votes + 1):  # k of them flipped
            ways = mpmath.binomial(votes, k)
            kept = ways * stay ** (votes - k) * (1 - stay) ** k
            other = ways * stay**k * (1 - stay) ** (votes - k)
            p += max(0, kept - factor * other)
        return p


CASES = [
    (epsilon, votes, delta)
    for epsilon in (1e-4, 0.01, 0.3, 1.0, 5.0)
    for votes in (1, 2, 3, 10, 41)
    for delta in (1e-3, 1e-5, 1e-9, 1e-13)
]


@pytest.mark.parametrize(("epsilon", "votes", "delta"), CASES)
def test_total_is_the_tightest(epsilon, votes, delta):
    total = total_epsilon(epsilon, votes, delta)
    assert 0 <= total <= votes * epsilon
    assert delta_of(total, epsilon, votes) <= delta  # enough
    less = total - 1e-5 * max(total, epsilon)
    assert less < 0 or delta_of(less, epsilon, votes) > delta  # and hardly more than enough


@pytest.mark.parametrize(("epsilon", "votes"), [(1e-4, 10**6), (0.01, 10**4), (0.1, 1000), (0.5, 100)])
def test_total_agrees_with_the_library_where_its_transform_is_exact(epsilon, votes):
    from dp_accounting.pld import common, privacy_loss_distribution

    one = privacy_loss_distribution.from_privacy_parameters(common.DifferentialPrivacyParameters(epsilon, 0), epsilon)
    assert total_epsilon(epsilon, votes, 1e-5) == pytest.approx(
        one.self_compose(votes).get_epsilon_for_delta(1e-5), rel=3e-6
    )


@pytest.mark.parametrize(("epsilon", "votes"), [(1e-4, 10**6), (0.001, 10**5), (0.02, 5000), (0.1, 1000)])
@pytest.mark.parametrize("delta", [1e-5, 1e-10])
def test_total_is_below_advanced_composition(epsilon, votes, delta):
    """Kairouz, Oh, Viswanath 2015, theorem 3.4, which holds for every mechanism that is (epsilon, 0)-private."""
    drift = math.tanh(epsilon / 2) * epsilon * votes
    root = epsilon * math.sqrt(2 * votes * math.log(1 / delta))
    total = total_epsilon(epsilon, votes, delta)
    assert total < drift + root
    assert total > 0.5 * root


def test_total_grows_with_votes_and_epsilon_and_as_delta_falls():
    for epsilon, delta in ((1e-4, 1e-5), (0.05, 1e-7), (2.0, 1e-5), (20.0, 1e-9)):
        over = [total_epsilon(epsilon, votes, delta) for votes in (0, 1, 2, 3, 9, 10, 11, 100, 101, 10**4, 10**6)]
        assert over == sorted(over) and over[0] == 0
    over = [total_epsilon(epsilon, 500, 1e-5) for epsilon in (1e-4, 1e-3, 0.01, 0.1, 1, 5, 20)]
    assert over == sorted(over)
    over = [total_epsilon(0.1, 500, delta) for delta in (0.9, 0.1, 1e-3, 1e-9, 1e-30, 1e-300)]
    assert over == sorted(over)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-4, 0.1, 1.0, 20.0, 50.0])
@pytest.mark.parametrize("votes", [1, 1000, 10**6, LONGEST])
@pytest.mark.parametrize("delta", [0.999, 1e-5, 1e-300])
def test_total_of_everything_is_finite_and_at_most_basic(epsilon, votes, delta):
    assert 0 <= total_epsilon(epsilon, votes, delta) <= votes * epsilon


@pytest.mark.parametrize(
    ("epsilon", "delta", "budget"),
    [(0.5, 1e-5, 8), (0.1, 1e-5, 5), (1e-3, 1e-6, 2), (1.0, 1e-9, 1.0), (2.0, 1e-5, 100)],
)
def test_most_votes_is_the_last_that_fits(epsilon, delta, budget):
    most = most_votes(epsilon, delta, budget)
    assert most >= budget // epsilon
    assert total_epsilon(epsilon, most, delta) <= budget < total_epsilon(epsilon, most + 1, delta)


def test_most_votes_at_the_ends():
    assert most_votes(1.0, 1e-5, 0.5) == 0
    assert most_votes(1e-9, 1e-5, 1.0) == LONGEST


def test_amplified():
    assert amplified(0.7, 1.0) == pytest.approx(0.7) and amplified(3.0, 1.0) == pytest.approx(3.0)
    assert amplified(math.log(3), 0.5) == pytest.approx(math.log(2))  # 1 + (3 - 1) / 2
    assert amplified(1e-9, 0.1) == pytest.approx(1e-10)
    assert amplified(1000.0, 0.5) == pytest.approx(1000 - math.log(2))
    assert amplified(1 - 1e-12, 0.3) == pytest.approx(amplified(1.0, 0.3))  # where the two forms meet


def test_amplified_holds_for_a_vote_of_two_clients_of_whom_one_is_drawn():
    """Randomised response of the one that is drawn; the other votes -1, and one client's +1 becomes -1."""
    epsilon = 0.8
    keep = 1 / (1 + math.exp(-epsilon))
    up, up_of_neighbour = 0.5 * keep + 0.5 * (1 - keep), 1 - keep
    assert math.log(up / up_of_neighbour) == pytest.approx(amplified(epsilon, 0.5))


def test_ledger_by_hand():
    ledger = Ledger(4)
    assert ledger.most == 0 and ledger.would_be([0, 3]) == 1 and ledger.would_be([]) == 0
    ledger.spend([0, 3])
    ledger.spend([3, 1])
    assert ledger.most == 2 and ledger.would_be([0, 1]) == 2 and ledger.would_be([3]) == 3 and ledger.would_be([2]) == 2
    assert ledger.most == 2  # asking spends nothing
    for _ in range(3):
        ledger.spend([2])
    assert ledger.most == 3
    with pytest.raises(AssertionError):
        ledger.spend([1, 1])


def test_forecast():
    found = forecast(0.5, 1000, 0.1, 1e-5, budget=8)
    assert found["public"] == Forecast(100, 0.5, 50.0, total_epsilon(0.5, 100, 1e-5), 10 * most_votes(0.5, 1e-5, 8))
    cheap = amplified(0.5, 0.1)
    assert found["secret"] == Forecast(
        1000, cheap, 1000 * cheap, total_epsilon(cheap, 1000, 1e-5), most_votes(cheap, 1e-5, 8)
    )
    everybody = forecast(0.5, 1000, 1.0, 1e-5)
    assert everybody["public"].fit is None and everybody["public"].rounds == everybody["secret"].rounds == 1000
    assert forecast(0.5, 30, 0.1, 1e-5)["public"].rounds == 3  # 0.1 * 30 is a hair above 3


def test_accountant_loads_the_library_only_when_asked():
    code = "import sys, hpcfed.privacy; assert not {'dp_accounting', 'scipy', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
