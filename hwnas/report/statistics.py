"""The statistics that say how far to trust a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's rank correlation τ-b, in ``[-1, 1]``; ties count for neither side.

    Args:
        first: Scores of the items.
        second: Other scores of the same items.

    Returns:
        None for fewer than two items, or where all scores of one kind are equal.
    """
    agreement = pairs_first = pairs_second = 0
    for (a, x), (b, y) in combinations(zip(first, second, strict=True), 2):
        sign_first = (a > b) - (a < b)
        sign_second = (x > y) - (x < y)
        agreement += sign_first * sign_second
        pairs_first += sign_first != 0
        pairs_second += sign_second != 0
    if not pairs_first or not pairs_second:
        return None
    tau: float = agreement / (pairs_first * pairs_second) ** 0.5
    return tau


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile with linear interpolation; `values` must not be empty."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def describe_tau(tau: float) -> str:
    """Return a word for how well two rankings agree."""
    if tau == 1:
        return "perfectly"
    for limit, word in ((0.9, "almost perfectly"), (0.7, "well"), (0.4, "partly"), (0.1, "weakly")):
        if tau >= limit:
            return word
    return "not at all" if tau > -0.1 else "in reverse"
