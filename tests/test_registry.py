import subprocess
import sys

import pytest

from hwnas.errors import HwnasError, UserInputError
from hwnas.registry import Registry
from hwnas.spaces import SPACES
from hwnas.strategies import STRATEGIES


def test_an_unknown_name_gets_the_nearest_and_the_command_that_lists_all():
    with pytest.raises(UserInputError) as error:
        STRATEGIES.get("enass")
    assert error.value.message == "unknown strategy 'enass'"
    assert error.value.hint == "Did you mean 'enas'? List all with: hwnas ls strategies"


def test_two_plugins_of_one_name_are_refused():
    registry = Registry("space", "hwnas.spaces")
    registry.register("same")(type("One", (), {}))
    with pytest.raises(HwnasError, match="two plug-ins claim the space 'same'"):
        registry.register("same")(type("Other", (), {}))


def test_a_name_is_described_by_the_first_line_of_its_docstring():
    assert SPACES.describe("conv_chain").startswith("A chain of convolutions")


def test_listing_and_configuring_every_plugin_imports_nothing_heavy():
    code = """
import sys
from hwnas.data import DATASETS
from hwnas.engine.executors import EXECUTORS
from hwnas.estimators import ESTIMATORS
from hwnas.graph import OPS
from hwnas.latency.runtimes import RUNTIMES
from hwnas.objectives import REWARDS
from hwnas.report.sections import SECTIONS
from hwnas.spaces import SPACES
from hwnas.strategies import STRATEGIES
from hwnas.tracking import TRACKERS
for registry in (DATASETS, EXECUTORS, ESTIMATORS, OPS, RUNTIMES, REWARDS, SECTIONS, SPACES,
                 STRATEGIES, TRACKERS):
    assert registry.names(), registry.kind
    for name in registry.names():
        assert registry.describe(name), (registry.kind, name)
heavy = {"torch", "onnxruntime", "sklearn", "plotly"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
