"""What every test of kernels gets: memory full of NaN."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill every block of the CPU kernels with NaN before it is handed out."""
    from hwnas import _core

    _core.arena_poison(True)
    yield
    _core.arena_poison(False)
