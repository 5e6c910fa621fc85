"""Durations as people type them."""

from __future__ import annotations

import re

from hwnas.errors import UserInputError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Return the seconds in ``90``, ``90s``, ``30m`` or ``1.5h``.

    Raises:
        UserInputError: The text is not a positive duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if match is None or float(match[1]) <= 0:
        raise UserInputError(f"{text!r} is not a duration", "write 90s, 30m or 2h")
    return float(match[1]) * _UNITS[match[2]]
