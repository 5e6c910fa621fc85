"""What every op promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hwnas import kernels
from hwnas.export.onnx import to_onnx
from hwnas.export.verify import parity
from hwnas.graph import BATCH, EVAL, Graph, GraphBuilder, Primitive, Shape
from hwnas.graph.counts import macs, params
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore

#: Kind of the op, its attributes, and the shapes of its inputs.
Case = tuple[str, Mapping[str, Any], Sequence[Shape]]


def graph_of(case: Case) -> Graph:
    """Return a graph that applies one op.

    One input feeds all of the op's inputs; a vector is reached by a global pooling, shapes other
    than the first by a 1×1 convolution.
    """
    kind, attributes, shapes = case
    first = shapes[0]
    is_vector = len(first) == 1
    g = GraphBuilder((first[0], 2, 2) if is_vector else first)
    start = g.global_avg_pool(g.input) if is_vector else g.input
    inputs = [start]
    for index, shape in enumerate(shapes[1:], start=1):
        inputs.append(g.conv(g.input, channels=shape[0], weights=f"input{index}"))
    return g.finish(getattr(g, kind)(*inputs, weights="op", **attributes))


class OpSuite:
    """Tests of one op; a subclass lists its `cases`."""

    cases: ClassVar[Sequence[Case]] = ()

    def test_reference_returns_the_shape_that_the_rule_promises(self) -> None:
        """Shape rule and PyTorch agree, for a batch of three."""
        for case in self.cases:
            graph = graph_of(case)
            got = run(graph, WeightStore(0), torch.randn(3, *graph.input_shape), EVAL)
            assert got.shape == (3, *graph.nodes[graph.outputs[0]].shape), case

    def test_onnx_computes_what_pytorch_computes(self) -> None:
        """ONNX Runtime and PyTorch agree within float32 rounding."""
        for case in self.cases:
            graph, store = graph_of(case), WeightStore(1)
            images = np.random.default_rng(0).normal(size=(4, *graph.input_shape))
            images = images.astype(np.float32)
            run(graph, store, torch.from_numpy(images), EVAL)  # creates the weights
            weights = {name: value.numpy() for name, value in store.state().items()}

            def reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
                return run(graph, store, torch.from_numpy(x), EVAL).detach().numpy()  # noqa: B023

            assert parity(to_onnx(graph, weights), reference, images).holds, case

    def test_macs_agree_with_pytorchs_own_counter(self) -> None:
        """PyTorch counts two FLOPs for a multiply-accumulate."""
        for case in self.cases:
            graph, store = graph_of(case), WeightStore(0)
            with kernels.use("reference"), FlopCounterMode(display=False) as counter:
                run(graph, store, torch.randn(1, *graph.input_shape), EVAL)
            assert counter.get_total_flops() == 2 * macs(graph), case

    def test_params_are_the_trainable_values_in_the_store(self) -> None:
        """The count agrees with the tensors that were created."""
        for case in self.cases:
            graph, store = graph_of(case), WeightStore(0)
            assert params(graph) == sum(v.numel() for v in store.trainable(graph).values()), case

    def test_gradients_are_right(self) -> None:
        """Gradients of the reference agree with finite differences, in float64."""
        for case in self.cases:
            graph = graph_of(case)
            store = WeightStore(0, dtype=torch.float64)
            trainable = list(store.trainable(graph).values())
            generator = torch.Generator().manual_seed(3)
            x = torch.randn(2, *graph.input_shape, generator=generator, dtype=torch.float64)

            def forward(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
                return run(graph, store, x, BATCH)  # noqa: B023

            assert torch.autograd.gradcheck(
                forward, (x.requires_grad_(), *trainable), atol=1e-4, fast_mode=True
            ), case

    def test_expansion_is_made_of_primitives(self) -> None:
        """Whatever the op is, its graph expands to primitives only."""
        for case in self.cases:
            assert all(isinstance(n.op, Primitive) for n in graph_of(case).expanded().nodes), case
