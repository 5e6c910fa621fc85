"""Seeds derived from the run's seed, so that no generator's state needs to be stored."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2⁶³) that depends on the run's seed and on what it is for.

    Args:
        seed: Seed of the run.
        purpose: Such as ``"train-order", epoch``.
    """
    text = "/".join(str(each) for each in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
