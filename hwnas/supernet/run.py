"""Runs a graph with the weights of a store."""

from __future__ import annotations

import functools

import torch

from hwnas import kernels
from hwnas.graph import EVAL, Graph, Primitive, RunMode
from hwnas.supernet.weights import WeightStore


@functools.cache
def _require_backend() -> None:
    """Refuse, once a process, a kernel backend that was asked for by name and is not ready."""
    kernels.fused("graph")


def run(graph: Graph, store: WeightStore, x: torch.Tensor, mode: RunMode = EVAL) -> torch.Tensor:
    """Return the logits of a batch.

    Images are kept in channels_last order inside: PyTorch's CPU convolutions, pools and norms are
    1.5 to 5 times faster that way.

    Args:
        graph: The child.
        store: Weights, shared or its own; missing ones are created.
        x: `[N, C, H, W]` normalised images.
        mode: How batch norm and dropout behave.

    Raises:
        KernelUnavailable: HWNAS_KERNELS names a backend that is not ready.

    Returns:
        `[N, classes]` logits.
    """
    _require_backend()
    expanded = graph.expanded()
    values: list[torch.Tensor] = [x.contiguous(memory_format=torch.channels_last)]
    for node, bindings in zip(expanded.nodes[1:], expanded.bindings()[1:], strict=True):
        assert isinstance(node.op, Primitive)
        weights = {local: store.get(name, spec) for local, name, spec in bindings}
        values.append(node.op.forward([values[i] for i in node.inputs], weights, mode))
    return values[expanded.outputs[0]]
