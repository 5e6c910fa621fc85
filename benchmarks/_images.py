"""Image ops: the graphs that are timed, forward and backward, and the same graphs in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from _measure import Contender, Settings
from torch.nn.functional import batch_norm

from hwnas.graph import TRAIN_SHARED, Graph, GraphBuilder, Primitive, Value
from hwnas.graph.ops.mixed_op import Candidate
from hwnas.graph.ops.pool_bn import PoolBn
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.kernels.backends import backend_named
from hwnas.kernels.plan import Branch, Plan
from hwnas.kernels.region import Step, region
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore

#: Batch, channels and side of the activations of a CIFAR-10 network's three stages.
SHAPES = ((64, 16, 32), (64, 32, 16), (64, 64, 8))
#: Images that the gate's float64 truth is computed for.
GATE_IMAGES = 8
BRANCHES = 7
EPSILON = 1e-5

#: Contenders by the names that rows use.
FUSED, CHANNELS_LAST, NCHW, COMPILED = "fused", "eager channels_last", "eager NCHW", "torch.compile"


@dataclass(frozen=True)
class Problem:
    """A function of tensors that require gradients, all of them inputs or weights.

    Attributes:
        leaves: The tensors by name.
        forward: Returns `[N, D, P, Q]` (any shape will do).
        gradient: Of what `forward` returns.
    """

    leaves: Mapping[str, torch.Tensor]
    forward: Callable[[], torch.Tensor]
    gradient: torch.Tensor

    def step(self) -> None:
        """Run forward and backward, as a training step does, and drop the gradients."""
        torch.autograd.backward(self.forward(), self.gradient)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Let the next step start without gradients."""
        for leaf in self.leaves.values():
            leaf.grad = None

    def results(self) -> dict[str, torch.Tensor]:
        """Return the output and the gradient of each leaf."""
        y = self.forward()
        torch.autograd.backward(y, self.gradient)
        found = {"output": y.detach()}
        for name, leaf in self.leaves.items():
            found[f"gradient of {name}"] = (
                torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            )
        self.drop_gradients()
        return found


class ImageOp:
    """One op of the graph on one shape.

    Args:
        name: As rows show it.
        shape: (N, C, S): images, channels, side.
        add: Adds the op to a builder.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        add: Callable[[GraphBuilder, Value, int], Value],
    ) -> None:
        images, channels, side = shape
        self.name = f"{name}, {images}x{channels}x{side}x{side}"
        self.shape = (images, channels, side, side)
        self._add = add

    @cached_property
    def graph(self) -> Graph:
        """The op as a network of its own."""
        g = GraphBuilder(self.shape[1:])
        return g.finish(self._add(g, g.input, self.shape[1]))

    def problem(
        self,
        device: str,
        *,
        images: int | None = None,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.channels_last,
        plain: bool = False,
        transform: Callable[[Any], Any] = lambda forward: forward,
    ) -> Problem:
        """Return the op with values that depend on nothing but the op.

        Args:
            device: Where it runs.
            images: Size of the batch; the op's own if None.
            dtype: Of everything.
            layout: Memory format of activations and filters; `run` knows channels_last only.
            plain: Call PyTorch op after op, instead of `hwnas.supernet.run`.
            transform: Applied to the plain function, such as torch.compile.
        """
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> torch.Tensor:
            value = torch.randn(shape, generator=generator)
            return value.to(device, dtype).contiguous(memory_format=layout)

        shape = (images or self.shape[0], *self.shape[1:])
        x = draw(*shape).requires_grad_()
        gradient = draw(shape[0], *self.graph.nodes[self.graph.outputs[0]].shape)
        # Created in float32 and then converted: a store's random values depend on its dtype.
        store = WeightStore(0, torch.float32, device)
        store.trainable(self.graph)
        store.dtype = dtype
        store.load(store.state())
        weights = store.trainable(self.graph)
        if not plain:
            leaves = {"x": x, **weights}
            return Problem(leaves, lambda: run(self.graph, store, x, TRAIN_SHARED), gradient)
        own = {name: _leaf(value, layout) for name, value in weights.items()}
        forward = transform(_plain(self.graph, list(own)))
        return Problem({"x": x, **own}, lambda: forward(x, list(own.values())), gradient)

    def contenders(self, wanted: Sequence[str], settings: Settings) -> dict[str, Contender]:
        """Return the fused form and the baselines that are wanted."""
        device = settings.device
        made = {FUSED: Contender(self.problem(device).step, settings.backend)}
        if CHANNELS_LAST in wanted:
            made[CHANNELS_LAST] = Contender(self.problem(device).step, "reference")
        if NCHW in wanted:
            problem = self.problem(device, layout=torch.contiguous_format, plain=True)
            made[NCHW] = Contender(problem.step)
        if COMPILED in wanted:
            problem = self.problem(device, plain=True, transform=compiled)
            made[COMPILED] = Contender(problem.step)
        return made

    def for_gate(self, device: str, dtype: torch.dtype) -> Problem:
        """Return the op on few images; under `hwnas.kernels.use` it runs with that backend."""
        return self.problem(device, images=GATE_IMAGES, dtype=dtype)


def compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for the very shapes that come."""
    return torch.compile(forward, dynamic=False)


def _leaf(value: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    """Return a copy whose strides are the layout's also where a side of one leaves a choice.

    torch.compile goes by strides: with the others its convolutions run twice as long.
    """
    value = value.detach()
    value = value.clone(memory_format=layout) if value.ndim == 4 else value.clone()
    return value.requires_grad_()


def _plain(graph: Graph, names: Sequence[str]) -> Callable[..., torch.Tensor]:
    """Return a function that calls PyTorch for one primitive of the graph after the other."""
    expanded = graph.expanded()
    place = {name: index for index, name in enumerate(names)}
    steps: list[tuple[Primitive, tuple[int, ...], tuple[tuple[str, int], ...]]] = []
    for node, bindings in zip(expanded.nodes[1:], graph.bindings()[1:], strict=True):
        assert isinstance(node.op, Primitive)
        own = tuple((each.local, place[each.name]) for each in bindings if each.name in place)
        steps.append((node.op, node.inputs, own))

    def forward(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        values = [x]
        for op, inputs, own in steps:
            # Running statistics are left out: nothing reads them in this mode.
            bound: dict[str, Any] = {"mean": None, "variance": None}
            bound.update({local: weights[index] for local, index in own})
            values.append(op.forward([values[i] for i in inputs], bound, TRAIN_SHARED))
        return values[expanded.outputs[0]]

    return forward


class GatedSum:
    """Gated sum of seven tensors, to each of which a batch norm with known statistics is applied.

    It is what follows the branches of a mixed op; graphs have no op for it alone, so
    a region is run with seven branches that only apply a norm.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        images, channels, side = shape
        self.name = f"gated sum of {BRANCHES} + BN apply, {images}x{channels}x{side}x{side}"
        self.shape = (images, channels, side, side)
        branches = [Branch("identity", (i,), epsilon=EPSILON) for i in range(BRANCHES)]
        self._plan = Plan(tuple(branches))

    def problem(
        self,
        device: str,
        backend: str,
        *,
        images: int | None = None,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.channels_last,
        transform: Callable[[Any], Any] = lambda forward: forward,
    ) -> Problem:
        """Return the sum; backend ``reference`` calls PyTorch op after op."""
        generator = torch.Generator().manual_seed(0)
        shape = (images or self.shape[0], *self.shape[1:])

        def draw(*shape: int) -> torch.Tensor:
            value = torch.randn(shape, generator=generator).to(device, dtype)
            return value.contiguous(memory_format=layout) if value.ndim == 4 else value

        zs = [draw(*shape).requires_grad_() for _ in range(BRANCHES)]
        norms = [draw(shape[1]).requires_grad_() for _ in range(2 * BRANCHES)]
        statistics = [draw(2, shape[1]).square().float() for _ in range(BRANCHES)]
        gates = draw(BRANCHES).requires_grad_()
        leaves = {
            **{f"z{i}": z for i, z in enumerate(zs)},
            **{f"norm{i}": each for i, each in enumerate(norms)},
            "gates": gates,
        }
        plain = transform(_gated_sum)
        exact = [each.to(dtype) for each in statistics]

        def forward() -> torch.Tensor:
            if backend == "reference":
                total: torch.Tensor = plain(zs, norms, exact, gates)
                return total
            step = Step(self._plan, tuple(range(BRANCHES)), norms, statistics, gates)
            return region(backend_named(backend), zs, [step], [BRANCHES])[0][0]

        return Problem(leaves, forward, draw(*shape))

    def contenders(self, wanted: Sequence[str], settings: Settings) -> dict[str, Contender]:
        """Return the fused form and the baselines that are wanted."""
        device = settings.device
        made = {FUSED: Contender(self.problem(device, settings.backend).step)}
        if CHANNELS_LAST in wanted:
            made[CHANNELS_LAST] = Contender(self.problem(device, "reference").step)
        if NCHW in wanted:
            problem = self.problem(device, "reference", layout=torch.contiguous_format)
            made[NCHW] = Contender(problem.step)
        if COMPILED in wanted:
            problem = self.problem(device, "reference", transform=compiled)
            made[COMPILED] = Contender(problem.step)
        return made

    def for_gate(self, device: str, dtype: torch.dtype) -> Problem:
        """Return the sum on few images, with the backend that `hwnas.kernels.use` has set."""
        from hwnas import kernels

        backend = kernels.chosen(torch.device(device), dtype)
        name = "reference" if backend is None else backend.name
        return self.problem(device, name, images=GATE_IMAGES, dtype=dtype)


def _gated_sum(
    zs: Sequence[torch.Tensor],
    norms: Sequence[torch.Tensor],
    statistics: Sequence[torch.Tensor],
    gates: torch.Tensor,
) -> torch.Tensor:
    total = None
    for i, z in enumerate(zs):
        mean, variance = statistics[i]
        y = batch_norm(z, mean, variance, norms[2 * i], norms[2 * i + 1], eps=EPSILON) * gates[i]
        total = y if total is None else total + y
    assert total is not None
    return total


def sep_conv(kernel: int, shape: tuple[int, int, int]) -> ImageOp:
    """Return the two-stage separable convolution of ENAS and DARTS."""
    return ImageOp(
        f"sep_conv {kernel}x{kernel}",
        shape,
        lambda g, x, channels: g.sep_conv(x, channels=channels, kernel=kernel, weights="op"),
    )


def pool_bn(pool: str, shape: tuple[int, int, int]) -> ImageOp:
    """Return a 3×3 pooling of stride one with its norm."""
    return ImageOp(
        f"{pool} pool 3x3 + BN", shape, lambda g, x, _: g.pool_bn(x, pool=pool, weights="op")
    )


def reduction(shape: tuple[int, int, int]) -> ImageOp:
    """Return ReLU → factorised reduction to twice the channels → batch norm."""
    return ImageOp(
        "factorized reduction",
        shape,
        lambda g, x, channels: g.factorized_reduction(
            x, channels=2 * channels, relu=True, weights="op"
        ),
    )


def mixed_op_of_7(shape: tuple[int, int, int]) -> ImageOp:
    """Return the mixture of DARTS' candidates but for "none", all gates open."""

    def add(g: GraphBuilder, x: Value, channels: int) -> Value:
        candidates = (
            Candidate(SepConv(channels, 3), weights="sep3"),
            Candidate(SepConv(channels, 5), weights="sep5"),
            Candidate(SepConv(channels, 3, stages=1, dilation=2), weights="dil3"),
            Candidate(SepConv(channels, 5, stages=1, dilation=2), weights="dil5"),
            Candidate(PoolBn("max"), weights="max"),
            Candidate(PoolBn("avg"), weights="avg"),
            Candidate(),
        )
        return g.mixed_op(x, branches=candidates, gated=True, weights="op")

    return ImageOp(f"mixed op of {BRANCHES}", shape, add)
