"""Runs a graph with the weights of a store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import TYPE_CHECKING

import torch

from hwnas import kernels
from hwnas.errors import ShapeError
from hwnas.graph import EVAL, Graph, Node, Primitive, RunMode
from hwnas.graph.ops.carried import Carried
from hwnas.kernels.region import Step, region
from hwnas.supernet.weights import WeightStore

if TYPE_CHECKING:
    from hwnas.kernels.backend import Backend
    from hwnas.kernels.form import Form


def run(graph: Graph, store: WeightStore, x: torch.Tensor, mode: RunMode = EVAL) -> torch.Tensor:
    """Return the logits of a batch; outputs that only training needs are not computed.

    Args and errors are those of `run_all`.

    Returns:
        `[N, classes]` logits.
    """
    return run_all(graph.inference(), store, x, mode)[0]


def run_all(
    graph: Graph,
    store: WeightStore,
    x: torch.Tensor,
    mode: RunMode = EVAL,
    carried: Mapping[str, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Return all outputs of a graph for a batch.

    Ops that have a fused form are run by the kernels of `hwnas.kernels`, where a backend takes
    the tensors; all else by PyTorch. Images are kept in channels_last order inside: PyTorch's CPU
    convolutions, pools and norms are 1.5 to 5 times faster that way.

    Args:
        graph: The child.
        store: Weights, shared or its own; missing ones are created.
        x: `[N, C, H, W]` normalised images, or `[N, T]` tokens.
        mode: How batch norm and dropout behave.
        carried: States by the name of the `carried` op that returns them, `[N, *size]`; those
            that are missing are zeros.

    Raises:
        UserInputError: HWNAS_KERNELS names no backend.
        KernelUnavailable: HWNAS_KERNELS names a backend that cannot run here.
        ShapeError: The input is not of the size that the graph is for.

    Returns:
        The graph's outputs, in their order.
    """
    if tuple(x.shape[1:]) != graph.nodes[0].shape:
        raise ShapeError(
            f"the graph takes inputs of shape {graph.nodes[0].shape}, got {tuple(x.shape[1:])}"
        )
    backend = kernels.chosen(x.device, x.dtype if x.is_floating_point() else store.dtype)
    if torch.is_autocast_enabled(x.device.type):
        backend = None  # autocast decides types inside PyTorch's ops
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    if backend is None:
        return _run_primitives(graph, store, x, mode, carried or {})
    return _run_fused(graph, store, x, mode, backend, carried or {})


def _run_primitives(
    graph: Graph,
    store: WeightStore,
    x: torch.Tensor,
    mode: RunMode,
    carried: Mapping[str, torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    expanded = graph.expanded()
    values: list[torch.Tensor] = [x]
    for node, bindings in zip(expanded.nodes[1:], graph.bindings()[1:], strict=True):
        weights = {local: store.get(name, spec) for local, name, spec in bindings}
        values.append(_run_node(node, [values[i] for i in node.inputs], weights, mode, carried))
    return tuple(values[i] for i in expanded.outputs)


def _run_node(
    node: Node,
    inputs: Sequence[torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    mode: RunMode,
    carried: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Run a primitive; what is carried over comes from outside."""
    assert isinstance(node.op, Primitive)
    if isinstance(node.op, Carried) and node.op.name in carried:
        return carried[node.op.name]
    return node.op.forward(inputs, weights, mode)


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
    graph: Graph,
    store: WeightStore,
    x: torch.Tensor,
    mode: RunMode,
    backend: Backend,
    carried: Mapping[str, torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """Run neighbouring ops that the backend offers as one region, all else by PyTorch."""
    fusable = graph.fusable()
    forms = fusable.forms()
    values = {0: x}
    weights: dict[int, dict[str, torch.Tensor]] = {}
    fused: list[int] = []  # nodes of the region at hand

    def finish_region(following: int) -> None:
        if fused:
            behind = chain.from_iterable(node.inputs for node in fusable.nodes[following:])
            needed = {*fusable.outputs, *behind}
            _run_region(fusable, fused, needed, values, weights, mode, backend)
            fused.clear()

    for place, bindings in enumerate(graph.fusable_bindings()):
        weights[place] = {local: store.get(name, spec) for local, name, spec in bindings}
        form, node = forms[place], fusable.nodes[place]
        if form is not None and backend.offers(form.plan):
            fused.append(place)
            continue
        finish_region(place)
        if place == 0:
            continue  # the input
        inputs = [values[i] for i in node.inputs]
        if isinstance(node.op, Primitive):
            values[place] = _run_node(node, inputs, weights[place], mode, carried)
        else:
            values[place] = _run_expansion(fusable, node, inputs, weights[place], mode)
    finish_region(len(fusable.nodes))
    return tuple(values[i] for i in fusable.outputs)


def _run_region(
    graph: Graph,
    places: Sequence[int],
    needed: AbstractSet[int],
    values: dict[int, torch.Tensor],
    weights: Mapping[int, Mapping[str, torch.Tensor]],
    mode: RunMode,
    backend: Backend,
) -> None:
    """Run the nodes at `places`, and keep the values that are needed behind them."""
    inside = set(places)
    outside = {i: None for place in places for i in graph.nodes[place].inputs if i not in inside}
    number = {place: i for i, place in enumerate([*outside, *places])}
    steps, forms = [], [graph.forms()[place] for place in places]
    for place, form in zip(places, forms, strict=True):
        assert form is not None
        node = graph.nodes[place]
        if form.norms and mode.batch_statistics:
            _refuse_single_value(len(values[0]), node)
        inputs = tuple(number[i] for i in node.inputs)
        steps.append(_step(form, inputs, weights[place], mode))
    wanted = [place for place in places if place in needed]
    results, found = region(
        backend, [values[i] for i in outside], steps, [number[place] for place in wanted]
    )
    values.update(zip(wanted, results, strict=True))
    if mode.batch_statistics and mode.momentum > 0:
        for place, form, statistics in zip(places, forms, found, strict=True):
            assert form is not None
            count = _count(len(values[0]), graph.nodes[place])
            _follow(form, weights[place], statistics, count, mode.momentum)


def _step(
    form: Form, inputs: tuple[int, ...], weights: Mapping[str, torch.Tensor], mode: RunMode
) -> Step:
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
    gates = None if form.gates is None else weights[form.gates]
    return Step(form.plan, inputs, own, running, gates)


def _count(images: int, node: Node) -> int:
    """Return how many values each of a node's channels has."""
    return images * math.prod(node.shape[1:])


def _refuse_single_value(images: int, node: Node) -> None:
    """Refuse what PyTorch's batch norm refuses: one value has no variance."""
    if _count(images, node) == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, got a batch of 1 image whose "
            "features are 1x1"
        )


@torch.no_grad()
def _follow(
    form: Form,
    weights: Mapping[str, torch.Tensor],
    found: Sequence[torch.Tensor | None],
    count: int,
    momentum: float,
) -> None:
    """Move running statistics towards the batch's, the variance unbiased, as PyTorch does.

    `count` is that of the node's result: stages after the first keep the size of the first.
    """
    if not count:
        return
    unbiased = count / max(1, count - 1)
    for norm, statistics in zip(form.norms, found, strict=True):
        if statistics is None:
            continue
        mean, variance = weights[f"{norm}/mean"], weights[f"{norm}/variance"]
        mean.lerp_(statistics[0].to(mean.dtype), momentum)
        variance.lerp_((statistics[1] * unbiased).to(variance.dtype), momentum)
