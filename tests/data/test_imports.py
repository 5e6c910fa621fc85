"""Listing data sets and rewards costs nothing heavy."""

import subprocess
import sys


def test_listing_data_sets_and_rewards_imports_nothing_heavy() -> None:
    program = """
import sys
from hwnas.data import DATASETS
from hwnas.objectives import REWARDS
for registry in (DATASETS, REWARDS):
    for name, plugin in registry.items():
        plugin.Config.model_json_schema()
heavy = {"torch", "sklearn", "PIL", "pyarrow", "moocore", "onnxruntime", "plotly"}
sys.exit(" ".join(heavy & set(sys.modules)) or 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
