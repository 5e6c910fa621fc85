"""Numbers as people read them. Every function takes None and returns a dash for it."""

from __future__ import annotations

import math
from datetime import datetime

from hwnas.report.results import LatencyPrediction

MISSING = "–"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction: ``0.9725`` → ``97.2 %`` (a narrow space before the sign)."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}\u202f%"


def significant(value: float | None, digits: int = 3) -> str:
    """Format with significant digits, without an exponent between 1e-4 and 1e6."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent <= 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def milliseconds(value: float | None) -> str:
    """Format a latency: ``0.742 ms``."""
    return MISSING if value is None else f"{significant(value)}\u202fms"


def prediction(value: LatencyPrediction | None) -> str:
    """Format a prediction with its interval: ``0.71 ms (0.66–0.76)``."""
    if value is None:
        return MISSING
    bounds = interval(value)
    return f"{milliseconds(value.ms)} ({bounds})" if bounds else milliseconds(value.ms)


def interval(value: LatencyPrediction) -> str:
    """Format the interval of a prediction: ``0.66–0.76``; nothing where it has none."""
    if value.low_ms is None or value.high_ms is None:
        return ""
    return f"{significant(value.low_ms)}–{significant(value.high_ms)}"


def count(value: float | None) -> str:
    """Format a large number with a prefix: ``41200`` → ``41.2 k``."""
    if value is None:
        return MISSING
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{significant(value / size)}\u202f{prefix}"
    return f"{value:g}"


def seconds(value: float | None) -> str:
    """Format a duration: ``0.42 s``, ``73 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if value is None:
        return MISSING
    if value < 100:
        return f"{significant(value, 2)}\u202fs"
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def date(value: datetime | None) -> str:
    """Format a moment to the minute."""
    if value is None:
        return MISSING
    return f"{value:%Y-%m-%d %H:%M} {value.tzname() or ''}".strip()
