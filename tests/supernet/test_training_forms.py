"""What only training sees: auxiliary classifiers, drop-path, carried states, progress."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hwnas import kernels
from hwnas.export.onnx import to_onnx
from hwnas.graph import EVAL, TRAIN, Graph, GraphBuilder, RunMode
from hwnas.graph.counts import macs, params
from hwnas.graph.ops.conv_bn import ConvBn
from hwnas.graph.ops.mixed_op import Candidate
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.run import run, run_all
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore

SHAPE = (3, 8, 8)
IMAGES = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def _network(*, auxiliary: bool) -> Graph:
    g = GraphBuilder(SHAPE)
    x = g.conv_bn(g.input, channels=4, kernel=3, weights="stem")
    logits = g.classifier(x, classes=3, weights="head")
    if not auxiliary:
        return g.finish(logits)
    return g.finish(logits, g.auxiliary_head(x, classes=3, weights="auxiliary"))


def test_what_only_training_needs_is_not_counted_priced_or_exported() -> None:
    plain, trained = _network(auxiliary=False), _network(auxiliary=True)
    assert trained.inference() == plain
    assert (params(trained), macs(trained)) == (params(plain), macs(plain))
    assert to_onnx(trained) == to_onnx(plain)
    assert len(trained.weight_specs()) > len(plain.weight_specs())


def test_all_outputs_come_back_and_the_first_alone_computes_nothing_else() -> None:
    graph, store = _network(auxiliary=True), WeightStore(0)
    logits = run(graph, store, IMAGES)
    assert not any(name.startswith("auxiliary") for name in store)
    both = run_all(graph, store, IMAGES)
    assert [tuple(each.shape) for each in both] == [(6, 3), (6, 3)]
    torch.testing.assert_close(both[0], logits)


def test_the_auxiliary_loss_reaches_the_trunk_with_its_weight() -> None:
    moved = {}
    for weight in (0.0, 0.4):
        graph, store = _network(auxiliary=True), WeightStore(0)
        before = {k: v.detach().clone() for k, v in store.trainable(graph).items()}
        config = OptimiserConfig(auxiliary_weight=weight, weight_decay=0.0, clip_norm=1e9)
        result = Trainer(store, config, epochs=2).step([graph], (IMAGES, LABELS), 0.0, TRAIN)
        logits = run(graph, _copy(before), IMAGES, RunMode(batch_statistics=True))
        expected = torch.nn.functional.cross_entropy(logits, LABELS)
        assert result.loss == pytest.approx(expected.item(), rel=1e-5)  # of the logits alone
        moved[weight] = {k: store[k].detach() - v for k, v in before.items()}
    head = "auxiliary/full/conv/weight"
    assert not moved[0.0][head].any()
    assert moved[0.4][head].any()
    assert not torch.equal(moved[0.0]["stem/conv/weight"], moved[0.4]["stem/conv/weight"])


def _copy(weights: dict[str, torch.Tensor]) -> WeightStore:
    store = WeightStore(0)
    store.load(weights)
    return store


def test_drop_path_drops_whole_images_and_grows_with_the_training() -> None:
    g = GraphBuilder((2, 3, 3))
    graph, store = g.finish(g.drop_path(g.input, rate=0.5)), WeightStore(0)
    x = torch.ones(4000, 2, 3, 3)
    assert torch.equal(run(graph, store, x, EVAL), x)
    assert torch.equal(run(graph, store, x, TRAIN), x)  # progress 0
    for progress, keep in ((0.5, 0.75), (1.0, 0.5)):
        torch.manual_seed(0)
        mode = RunMode(batch_statistics=True, dropout=True, progress=progress)
        values = run(graph, store, x, mode).flatten(1)
        assert (values == values[:, :1]).all()
        kept = values[:, 0] > 0
        assert torch.allclose(values[kept], torch.tensor(1 / keep))
        assert float(kept.float().mean()) == pytest.approx(keep, abs=0.03)


def test_the_trainer_tells_how_far_the_training_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def record(*arguments: Any) -> tuple[torch.Tensor, ...]:
        seen.append(arguments[3].progress)
        return run_all(*arguments)

    monkeypatch.setattr("hwnas.supernet.run.run_all", record)
    graph = _network(auxiliary=False)
    trainer = Trainer(WeightStore(0), OptimiserConfig(), epochs=4)
    for epoch in (0.0, 1.0, 3.5, 4.2):
        trainer.step([graph], (IMAGES, LABELS), epoch, TRAIN)
    assert seen == [0.0, 0.25, 0.875, 1.0]


def test_a_carried_state_replaces_the_zeros() -> None:
    g = GraphBuilder((2,))
    state = g.carried(g.input, name="state", size=(2,))
    graph, store = g.finish(g.sum(g.input, state)), WeightStore(0)
    x, before = torch.randn(3, 2), torch.randn(3, 2)
    torch.testing.assert_close(run(graph, store, x), x)
    (carried,) = run_all(graph, store, x, carried={"state": before})
    torch.testing.assert_close(carried, x + before)


def test_one_branch_without_a_kernel_leaves_the_others_fused() -> None:
    branches = (
        Candidate(SepConv(4), 0, "a"),
        Candidate(ConvBn(4, kernel=(1, 3)), 0, "b"),
        Candidate(None, 0),
    )
    g = GraphBuilder((4, 6, 6))
    graph = g.finish(g.mixed_op(g.input, branches=branches, weights="node"))
    kinds = [node.op.kind for node in graph.fusable().nodes]
    assert "sep_conv" in kinds
    assert "conv_bn" not in kinds
    store, x = WeightStore(0), torch.randn(2, 4, 6, 6)
    mode = RunMode(batch_statistics=True)
    fused = run(graph, store, x, mode)
    with kernels.use("reference"):
        torch.testing.assert_close(run(graph, store, x, mode), fused, rtol=1e-4, atol=1e-4)
