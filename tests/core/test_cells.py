"""hwnas._core.cell_hashes for each instruction set; its values are tested in tests/benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hwnas._core import best_isa

LEVELS = ("v2", "v3", "v4")
PROGRAM = """
from hwnas._core import cell_hashes, enumerate_cells, isa
import hashlib
print(isa(), hashlib.sha256(cell_hashes(*enumerate_cells(5, 9, 3)).tobytes()).hexdigest())
"""


@pytest.mark.skipif(best_isa() not in LEVELS, reason="this processor has one instruction set")
def test_every_instruction_set_computes_the_same_hashes() -> None:
    levels = LEVELS[: LEVELS.index(best_isa()) + 1]
    found = []
    for level in levels:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "HWNAS_ISA": level},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.split())
    assert [each[0] for each in found] == list(levels)
    assert len({each[1] for each in found}) == 1
