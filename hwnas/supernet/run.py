"""Runs a graph with the weights of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from hwnas import kernels
from hwnas.graph import EVAL, Graph, Node, Primitive, RunMode
from hwnas.kernels.mixed_op import mixed_op
from hwnas.supernet.weights import WeightStore

if TYPE_CHECKING:
    from hwnas.kernels.backend import Backend
    from hwnas.kernels.form import Form


def run(graph: Graph, store: WeightStore, x: torch.Tensor, mode: RunMode = EVAL) -> torch.Tensor:
    """Return the logits of a batch.

    Ops that have a fused form are run by the kernels of `hwnas.kernels`, where a backend takes
    the tensors; all else by PyTorch. Images are kept in channels_last order inside: PyTorch's CPU
    convolutions, pools and norms are 1.5 to 5 times faster that way.

    Args:
        graph: The child.
        store: Weights, shared or its own; missing ones are created.
        x: `[N, C, H, W]` normalised images.
        mode: How batch norm and dropout behave.

    Raises:
        UserInputError: HWNAS_KERNELS names no backend.
        KernelUnavailable: HWNAS_KERNELS names a backend that cannot run here.

    Returns:
        `[N, classes]` logits.
    """
    backend = kernels.chosen(x.device, x.dtype)
    if torch.is_autocast_enabled(x.device.type):
        backend = None  # autocast decides types inside PyTorch's ops
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    if backend is None:
        return _run_primitives(graph, store, x, mode)
    fusable = graph.fusable()
    values: list[torch.Tensor] = [x]
    steps = zip(fusable.nodes, graph.fusable_bindings(), fusable.forms(), strict=True)
    next(steps)  # the input
    for node, bindings, form in steps:
        weights = {local: store.get(name, spec) for local, name, spec in bindings}
        inputs = [values[i] for i in node.inputs]
        if form is not None and backend.offers(form.plan):
            values.append(_run_fused(form, backend, inputs, weights, mode))
        elif isinstance(node.op, Primitive):
            values.append(node.op.forward(inputs, weights, mode))
        else:
            values.append(_run_expansion(fusable, node, inputs, weights, mode))
    return values[fusable.outputs[0]]


def _run_primitives(
    graph: Graph, store: WeightStore, x: torch.Tensor, mode: RunMode
) -> torch.Tensor:
    expanded = graph.expanded()
    values: list[torch.Tensor] = [x]
    for node, bindings in zip(expanded.nodes[1:], graph.bindings()[1:], strict=True):
        assert isinstance(node.op, Primitive)
        weights = {local: store.get(name, spec) for local, name, spec in bindings}
        values.append(node.op.forward([values[i] for i in node.inputs], weights, mode))
    return values[expanded.outputs[0]]


def _run_expansion(
    graph: Graph,
    node: Node,
    inputs: Sequence[torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    mode: RunMode,
) -> torch.Tensor:
    """Run a composite that the backend does not offer."""
    inner, result = graph.expansion_of(node)
    values = list(inputs)
    for each in inner[len(inputs) :]:
        assert isinstance(each.op, Primitive)
        prefix = f"{each.weights}/"
        own = {
            local.removeprefix(prefix): weights[local]
            for local in weights
            if local.startswith(prefix)
        }
        values.append(each.op.forward([values[i] for i in each.inputs], own, mode))
    return values[result]


def _run_fused(
    form: Form,
    backend: Backend,
    inputs: Sequence[torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    mode: RunMode,
) -> torch.Tensor:
    if form.norms and mode.batch_statistics:
        _refuse_single_values(form, inputs)
    own = [
        weights[names[0]]
        if len(names) == 1
        else torch.cat([weights[name] for name in names], dim=1)
        for names in form.weights
    ]
    running: list[torch.Tensor] = []
    if not mode.batch_statistics:
        running = [
            torch.stack([weights[f"{norm}/mean"], weights[f"{norm}/variance"]])
            for norm in form.norms
        ]
    y, found = mixed_op(
        form.plan,
        inputs,
        own,
        backend=backend.name,
        statistics=running,
        gates=None if form.gates is None else weights[form.gates],
    )
    if mode.batch_statistics and mode.momentum > 0:
        _follow(form, weights, found, y, mode.momentum)
    return y


def _refuse_single_values(form: Form, inputs: Sequence[torch.Tensor]) -> None:
    """Refuse what PyTorch's batch norm refuses: one value has no variance."""
    n, _, height, width = inputs[0].shape
    p, q = form.plan.branches[0].size(height, width)
    if n * p * q == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got a batch of 1 image whose "
            f"features are {p}x{q}"
        )


@torch.no_grad()
def _follow(
    form: Form,
    weights: Mapping[str, torch.Tensor],
    found: Sequence[torch.Tensor | None],
    y: torch.Tensor,
    momentum: float,
) -> None:
    """Move running statistics towards the batch's, the variance unbiased, as PyTorch does."""
    count = y.numel() // max(1, y.shape[1])  # stages after the first keep the size of the first
    if not count:
        return
    unbiased = count / max(1, count - 1)
    for norm, statistics in zip(form.norms, found, strict=True):
        if statistics is None:
            continue
        mean, variance = weights[f"{norm}/mean"], weights[f"{norm}/variance"]
        mean.lerp_(statistics[0].to(mean.dtype), momentum)
        variance.lerp_((statistics[1] * unbiased).to(variance.dtype), momentum)
