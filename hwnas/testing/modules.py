"""What every converter of a `torch.nn.Module` promises: the graph computes what the module does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from hwnas.export.onnx import to_onnx
from hwnas.export.verify import parity
from hwnas.graph import EVAL, Graph, Shape
from hwnas.graph.counts import params
from hwnas.spaces.torch_modules.convert import convert, weights_of
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore


def converted(module: nn.Module, shape: Shape, dtype: str = "float32") -> tuple[Graph, WeightStore]:
    """Return the graph of a module, and a store with the module's values."""
    graph = convert(copy.deepcopy(module), shape, dtype).graph
    store = WeightStore(0)
    store.load(weights_of(module, graph))
    return graph, store


def shaken(module: nn.Module) -> nn.Module:
    """Give every tensor of a module values that show when it is taken for another.

    Buffers whose name begins with ``code`` keep theirs.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, each in [*module.named_parameters(), *module.named_buffers()]:
            if each.is_floating_point() and not name.startswith("code"):
                each.copy_(0.5 + 0.4 * torch.rand(each.shape, generator=generator))
                if each.ndim > 1:
                    each.sub_(0.7)
    return module


@torch.no_grad()
def assert_converts(module: nn.Module, shape: Shape) -> Graph:
    """Compare outputs, parameters and the exported file of a graph with the module.

    Args:
        module: What takes images or vectors; its values are changed.
        shape: Of an example.

    Raises:
        AssertionError: They differ by more than float32 rounding.

    Returns:
        The graph.
    """
    shaken(module)
    graph, store = converted(module, shape)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(run(graph, store, x, EVAL), module.eval()(x), rtol=1e-5, atol=1e-5)
    assert params(graph) == sum(each.numel() for each in module.parameters())
    weights = {name: value.numpy() for name, value in store.state().items()}

    def reference(inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return run(graph, store, torch.from_numpy(inputs), EVAL).numpy()

    assert parity(to_onnx(graph, weights), reference, x.numpy()).holds
    return graph
