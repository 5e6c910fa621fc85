"""Where there is no GPU, Triton's kernels run in its interpreter; it is chosen when they are
defined, so before any test imports them."""

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill every block and workspace of the CPU kernels with NaN before it is handed out."""
    from hwnas import _core

    _core.arena_poison(True)
    yield
    _core.arena_poison(False)
