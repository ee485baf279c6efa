"""What each mechanism does to a vote and to a tally, and what it lets be told."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.config import PrivacyConfig
from hpcfed.errors import ConfigError
from hpcfed.messages import Ballots
from hpcfed.privacy import MECHANISMS, Privacy, make_privacy
from hpcfed.transport.solo import SoloTransport
from hpcfed.transport.wire import encode_sum

VOTES = np.array([[1, -1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 1]], np.int8)
LOUD = 50.0  # epsilon at which a vote is flipped once in 5e21 times
PRIVATE = [name for name in MECHANISMS if name != "none"]


def privacy_of(mechanism: str, epsilon: float = LOUD, **settings) -> Privacy:
    config = PrivacyConfig() if mechanism == "none" else PrivacyConfig(mechanism=mechanism, epsilon=epsilon, **settings)
    return make_privacy(config, VOTES.shape[1], len(VOTES), lambda t: range(len(VOTES)))


def counted(privacy: Privacy, votes: np.ndarray, form="sum", stop: bool = False):
    return privacy.count(SoloTransport(), Ballots(range(len(votes)), votes), len(votes), [len(votes)], form, stop)


@pytest.mark.parametrize("form", ["sum", "bits"])
def test_without_a_mechanism_votes_are_what_they_are(form):
    privacy = privacy_of("none")
    assert privacy.on_votes(VOTES) is VOTES
    tally = counted(privacy, VOTES, form, stop=True)
    assert tally.sums.tolist() == [2, -2, 1] and tally.cast.tolist() == [4, 4, 1]
    assert (tally.voters, tally.stop) == (4, 1)
    assert privacy.may_tell and privacy.tally_known and privacy.extra_entries(3) == 0
    privacy.resumed(10**6, 5)
    privacy.spend(0)
    assert privacy.room_for(0) and privacy.summary() is None


def test_local_privacy_flips_at_the_client_and_the_tally_is_true_of_what_was_sent():
    privacy = privacy_of("local")
    said = privacy.on_votes(VOTES)
    assert said.dtype == np.int8 and set(np.unique(said)) <= {-1, 1}  # an abstention is told by nobody
    assert np.array_equal(said[VOTES != 0], VOTES[VOTES != 0])
    tally = counted(privacy, said)
    assert tally.sums.tolist() == said.sum(0).tolist() and tally.cast.tolist() == [4, 4, 4]
    assert privacy.tally_known and privacy.extra_entries(3) == 0
    many = np.ones((2000, 3), np.int8)
    flips = (privacy_of("local", 1e-6).on_votes(many) == -1).mean()
    assert abs(flips - 0.5) < 0.05  # 6000 fair coins: 7 standard deviations


def test_central_privacy_tells_the_drawn_majority_and_nothing_else():
    privacy = privacy_of("central")
    assert privacy.on_votes(VOTES) is VOTES
    tally = counted(privacy, VOTES[:, :2], stop=True)
    assert tally.sums.tolist() == [1, -1] and tally.cast.tolist() == [1, 1] and (tally.voters, tally.stop) == (4, 1)
    nobody = counted(privacy, np.zeros_like(VOTES))
    assert set(nobody.sums.tolist()) <= {-1, 1} and nobody.cast.tolist() == [1, 1, 1]  # not even that all abstained
    assert not privacy.tally_known
    drawn = [counted(privacy_of("central", 1e-6), np.ones((2, 3), np.int8)).sums for _ in range(700)]
    assert abs(np.mean(drawn)) < 0.16  # 2100 fair coins: 7 standard deviations


@pytest.mark.parametrize("mechanism", PRIVATE)
def test_a_private_run_tells_nothing_else_and_says_what_it_promises(mechanism):
    privacy = privacy_of(mechanism, 0.5, budget=3.0)
    assert not privacy.may_tell
    rounds = next(t for t in range(100) if not privacy.room_for(t) or privacy.spend(t))
    said = privacy.summary()
    assert said is not None and said["mechanism"] == mechanism and said["votes_of_one_client"] == 3 * rounds > 0
    assert ("nobody" in said["trusted"]) == (mechanism == "local") != ("row 0" in said["trusted"])
    again = privacy_of(mechanism, 0.5, budget=3.0)
    again.resumed(rounds, 0)
    assert again.summary() == said and not again.room_for(rounds)
    with pytest.raises(ConfigError, match=r"privacy\.budget"):
        privacy_of(mechanism, 0.5, budget=1.0)


class Twice(SoloTransport):
    """Row 0 of two rows that say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 2

    def _sum(self, vector: np.ndarray) -> None:
        vector *= 2

    def _to_root(self, vector: np.ndarray) -> np.ndarray:
        return np.stack([vector, vector])


@pytest.mark.parametrize("mechanism", list(MECHANISMS))
def test_extra_entries_are_what_is_sent_beside_the_tally(mechanism):
    privacy, votes = privacy_of(mechanism), np.ones((2, 3), np.int8)
    tally = privacy.count(Twice(), Ballots(range(2), votes), 4, [2, 2], "sum", False)
    ballot = encode_sum(votes, False, 4)
    assert tally.payload_bytes == (ballot.size + privacy.extra_entries(3)) * ballot.itemsize
    assert tally.sums.tolist() == ([1, 1, 1] if mechanism == "central" else [4, 4, 4])
