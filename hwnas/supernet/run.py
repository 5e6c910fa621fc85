"""Runs a graph with the weights of a store."""

from __future__ import annotations

import torch

from hwnas.graph import EVAL, Graph, Primitive, RunMode
from hwnas.supernet.weights import WeightStore


def run(graph: Graph, store: WeightStore, x: torch.Tensor, mode: RunMode = EVAL) -> torch.Tensor:
    """Return the logits of a batch.

    Images are kept in channels_last order inside: PyTorch's CPU convolutions, pools and norms are
    1.5 to 5 times faster that way.

    Args:
        graph: The child.
        store: Weights, shared or its own; missing ones are created.
        x: `[N, C, H, W]` normalised images.
        mode: How batch norm and dropout behave.

    Returns:
        `[N, classes]` logits.
    """
    expanded = graph.expanded()
    values: list[torch.Tensor] = [x.contiguous(memory_format=torch.channels_last)]
    for node, bindings in zip(expanded.nodes[1:], expanded.bindings()[1:], strict=True):
        assert isinstance(node.op, Primitive)
        weights = {local: store.get(name, spec) for local, name, spec in bindings}
        values.append(node.op.forward([values[i] for i in node.inputs], weights, mode))
    return values[expanded.outputs[0]]
