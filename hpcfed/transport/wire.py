"""What a row's votes look like on the wire, and what is made of those of all rows. No communication in here.

    sum    [sums q | cast q | stop], int8 or int32, added up over rows.  cast: votes that were not abstentions
    bits   [signs | abstentions | stop], a bit a client and direction, uint8, recounted by every row
    answer [signs q | state | stops], what row 0 tells the others of a private tally, in the dtype of the sums

Promise: all count alike, in integers that honest rows cannot overflow. Of a sum |sum| <= cast <= voters and sum = cast
(mod 2) are checked; that catches an impossible total, not a lie within those bounds. In the bits form a client has one
vote whatever its row sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

VOTED, STUFFED = range(2)  # state of a private tally: signs are decided; the sum is impossible


def encode_sum(votes: np.ndarray, stop: bool, most: int) -> np.ndarray:
    """[sums | cast | stop] of int8 votes [m, q].  most: the largest count an entry may reach, voters or rows.

    A stuffed sum may leave the lane and wraps, as the sum over rows does, so that check_sum finds the same however the
    clients are spread over rows. Clipping would not: two rows at +127 make a possible -2. Wrapping keeps the parity.
    """
    # int32, not the votes' own int8: 128 clients that agree would wrap round to -128 and lose the vote.
    lane = np.int8 if most <= 127 else np.int32
    q = votes.shape[1]
    vector = np.empty(2 * q + 1, lane)
    vector[:q] = votes.sum(0, dtype=lane)
    vector[q:-1] = (votes != 0).sum(0, dtype=lane)
    vector[-1] = stop
    return vector


def check_sum(vector: np.ndarray, voters: int, rows: int) -> tuple[np.ndarray, np.ndarray, int] | str:
    """(sums, cast, stops) of a summed vector [sums | cast | stop], or what is impossible about it."""
    wide = vector.astype(np.int32)
    q = len(wide) // 2
    sums, cast, stops = wide[:q], wide[q:-1], int(wide[-1])
    wrong = (np.abs(sums) > cast) | (cast > voters) | ((sums ^ cast) & 1).astype(bool)
    if not wrong.any() and 0 <= stops <= rows:
        return sums, cast, stops
    if not wrong.any():
        return f"{stops} of {rows} rows ask to stop: a row stuffed the ballot box"
    i = int(wrong.argmax())
    return (
        f"direction {i}: {cast[i]} votes that sum to {sums[i]} cannot come from {voters} voters of -1, 0 or +1; a row "
        'stuffed the ballot box (algorithm.ballot = "bits" makes that impossible)'
    )


def decide_alone(received: np.ndarray, voters: int, draw: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Row 0's answer to all, [signs q | state | stops], to what the rows sent it, [rows, 2 q + 1], in that dtype."""
    rows, q = len(received), received.shape[1] // 2
    answer = np.zeros(q + 2, received.dtype)
    # In the rows' own dtype, which wraps where an all-reduce would: what tally refuses is refused here.
    checked = check_sum(received.sum(0, dtype=received.dtype), voters, rows)
    if isinstance(checked, str):
        answer[-2] = STUFFED
        return answer
    sums, _, answer[-1] = checked  # nobody voted: still a draw, for that nobody did would tell each client's vote
    signs = draw(sums)
    assert signs.shape == (q,) and signs.dtype == np.int8 and (np.abs(signs) == 1).all()
    answer[:q] = signs
    return answer


def encode_bits(votes: np.ndarray, stop: bool, slots: int) -> np.ndarray:
    """uint8: packed signs [slots, q], packed abstentions [slots, q], stop.  slots: most clients that any row hosts."""
    padded = np.zeros((slots, votes.shape[1]), np.int8)
    padded[: len(votes)] = votes
    return np.concatenate([np.packbits(padded < 0), np.packbits(padded == 0), np.array([stop], np.uint8)])


def count_bits(received: np.ndarray, hosted: Sequence[int], q: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(sums, cast, stops) of what all rows sent, uint8 [rows, n]; slots beyond a row's clients count for nothing."""
    rows, slots = len(hosted), max(hosted)
    half = received.shape[1] // 2
    shape = (rows, slots, q)
    minus = np.unpackbits(received[:, :half], axis=1, count=slots * q).reshape(shape).astype(bool)
    abstains = np.unpackbits(received[:, half:-1], axis=1, count=slots * q).reshape(shape).astype(bool)
    voted = filled(hosted)[:, :, None] & ~abstains
    cast = voted.sum((0, 1), dtype=np.int32)
    return (cast - 2 * (voted & minus).sum((0, 1), dtype=np.int32), cast, int(np.count_nonzero(received[:, -1])))


def filled(hosted: Sequence[int]) -> np.ndarray:
    """bool [rows, max(hosted)]: the slots of a row's message that a client of it fills; the others mean nothing."""
    return np.arange(max(hosted)) < np.asarray(hosted)[:, None]
