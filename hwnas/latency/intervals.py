"""How far to trust a time, and when two times differ: from visits spread over a measurement.

Noise is one-sided and comes in storms of seconds, so samples of one visit are not independent;
visits, a round apart, nearly are. What is said here rests on visits only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: With fewer visits nothing is said.
LEAST_VISITS = 5
#: An interval ends at the visit that the best of as many others exceeds this rarely …
_RARELY = 0.005
#: … and begins this many times as far on the other side: a calmer time may yet come.
_BELOW = 2.0


def repeatable(visits: Sequence[float]) -> tuple[float, float]:
    """Return the interval in which a second measurement of the same length finds its minimum.

    The best of n visits, drawn anew from these, exceeds the k-th smallest with the probability
    (1 − k / n)^n. On recorded measurements (`tests/latency/data/visits.json`, from a machine of
    which neighbours disturbed 98 % of the time) the interval holds what it promises, 95 %.

    Args:
        visits: Least time of each visit, any unit.

    Returns:
        Both ends; infinite where there are too few visits.
    """
    count = len(visits)
    if count < LEAST_VISITS:
        return 0.0, math.inf
    times = sorted(visits)
    rank = next(k for k in range(1, count + 1) if (1 - k / count) ** count <= _RARELY)
    above = times[rank - 1] - times[0]
    return max(0.0, times[0] - _BELOW * above), times[rank - 1]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a second run is slower than a first: 0.03 is 3 %, negative is faster.

    Attributes:
        share: Median over the visits.
        low: Lower end of its interval.
        high: Upper end.
    """

    share: float
    low: float
    high: float

    @property
    def is_told(self) -> bool:
        """Whether the two differ by more than the noise."""
        return not self.low <= 0.0 <= self.high


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two runs that were visited in turns.

    The interval of the median ratio is that of the sign test with at least 95 %: it assumes no
    distribution, only that neither run was favoured. That is the caller's part: the order of the
    two alternates, and models are loaded anew for each visit, because where their memory lies is
    worth some per cent.

    Args:
        first: Least time of each visit.
        second: The same of the other run, in the same rounds.
    """
    ratios = sorted(b / a for a, b in zip(first, second, strict=True))
    count = len(ratios)
    if not count:
        return Difference(0.0, -math.inf, math.inf)
    middle = (ratios[(count - 1) // 2] + ratios[count // 2]) / 2
    # The number of ratios that may lie outside on either side: P(X <= outside) <= 2.5 %.
    outside, chance = -1, 0.0
    for k in range(count):
        chance += math.comb(count, k) / 2**count
        if chance > 0.025:
            break
        outside = k
    if outside < 0:
        return Difference(middle - 1, -math.inf, math.inf)
    return Difference(middle - 1, ratios[outside] - 1, ratios[count - 1 - outside] - 1)
