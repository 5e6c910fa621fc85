"""The search space of NASNet and AmoebaNet: a normal and a reduction cell of five blocks.

Source: Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image Recognition",
sections 3.1 and 4 and appendix A; the networks' public code (tensorflow/models,
`research/slim/nets/nasnet`); for the ops that NASNet-A does not use, AmoebaNet's public code
(tensorflow/tpu, `models/official/amoeba_net/network_utils.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from hwnas.graph import Answer, Architecture, Graph, GraphBuilder, Pick, Shape, Value
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace
from hwnas.spaces._cells import (
    Cell,
    cell_answers,
    check_output,
    fit,
    join,
    pick_cell,
    unread,
    unread_states,
)
from hwnas.spaces._genotype import Genotype, to_genotype
from hwnas.spaces._text import must_have

#: In the order of the paper's list.
OPS = (
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
#: What DARTS' genotypes call these ops; they have no name for the others that they do not share.
_AS_DARTS = {"identity": "skip_connect", "conv_1x7_7x1": "conv_7x1_1x7"}
_FROM_DARTS = {theirs: ours for ours, theirs in _AS_DARTS.items()}
COMBINES: tuple[Literal["add", "concat"], ...] = ("add", "concat")


@SPACES.register("nasnet")
class NasNet(SearchSpace):
    """NASNet: blocks of two inputs, two ops and a way to combine them; unread states concatenated.

    Order of the picks for a block, as published: first input, second input, first op, second op,
    combination. State 0 is the cell before the last one, state 1 the last one (the public code
    numbers these two the other way round).

    Choices where the paper is silent, all as in the public code: convolutions other than separable
    ones are bottlenecks of a quarter of the channels (three eighths for 1×3 then 3×1); a strided
    identity is a strided 1×1 convolution; a state of other channels (after ``concat``, or the
    stem's) is brought to the cell's by a 1×1 convolution where it is read.

    Deviations: padding is symmetric (TensorFlow's SAME pads one pixel more at the end where the
    stride is two), and a block may read the same state twice, as there.
    """

    class Config(PluginConfig):
        """Settings of `nasnet`; N and the channels are those of the CIFAR-10 search, unverified."""

        nodes: int = Field(5, ge=1, le=12, description="blocks of a cell")
        repeats: int = Field(2, ge=1, description="normal cells between reductions (N)")
        channels: int = Field(32, ge=4, multiple_of=4, description="channels of the first cells")
        ops: tuple[str, ...] = Field(OPS, min_length=1, description="ops to choose from")
        combines: tuple[Literal["add", "concat"], ...] = Field(
            COMBINES, min_length=1, description="ways to combine a block's two results"
        )
        stem: Literal["cifar", "imagenet"] = Field(
            "cifar",
            description="cifar: a 3×3 convolution; imagenet: one of stride two and two reduction "
            "cells of a quarter and half of the channels",
        )
        stem_channels: int = Field(96, ge=1, description="channels of the stem's convolution")
        dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the classifier")
        auxiliary: bool = Field(False, description="a second classifier for the training")
        drop_path: float = Field(
            0.0, ge=0, lt=1, description="the last cell's rate of drop-path, at the end"
        )
        skips_reduction_input: bool = Field(
            False,
            description="the cell behind a reduction reads, as the cell before the last one, that "
            "of its reduction (as in NASNet-A large)",
        )
        normal_output: tuple[int, ...] | None = Field(
            None, description="states that the normal cell concatenates; null: the unread ones"
        )
        reduction_output: tuple[int, ...] | None = Field(
            None, description="states that the reduction cell concatenates; null: the unread ones"
        )

        @model_validator(mode="after")
        def _check(self) -> NasNet.Config:
            for name, known in (("ops", OPS), ("combines", COMBINES)):
                options = getattr(self, name)
                unknown = sorted(set(options) - set(known))
                if unknown or len(set(options)) < len(options):
                    raise ValueError(f"{name}: {list(options)} must be some of {list(known)}, once")
            for name in ("normal_output", "reduction_output"):
                check_output(name, getattr(self, name), self.nodes)
            takes_inputs = self.reduction_output is None or self.reduction_output[0] < 2
            if self.stem == "imagenet" and self.channels % 8 and takes_inputs:
                raise ValueError(
                    f"channels: {self.channels} is no multiple of 8; the stem's first cell has a "
                    "quarter of them, and an input that it concatenates is reduced in two halves"
                )
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return NASNet-A and AmoebaNet-A in the sizes of their papers."""
        from hwnas.spaces._published_nasnet import PUBLISHED

        return PUBLISHED

    @classmethod
    def cell_outputs(cls, config: PluginConfig) -> Mapping[str, tuple[int, ...]]:
        """Return what the settings say; unread states where they say nothing."""
        assert isinstance(config, NasNet.Config)
        said = {"normal": config.normal_output, "reduction": config.reduction_output}
        return {name: states for name, states in said.items() if states is not None}

    def parse(self, text: str) -> Architecture:
        """Read cells as DARTS' code lists NASNet-A and AmoebaNet-A; every block adds."""
        genotype = Genotype.parse(text)
        must_have(self.config, nodes=len(genotype.normal) // 2)
        cells = {
            "normal": (genotype.normal, genotype.normal_concat),
            "reduction": (genotype.reduce, genotype.reduce_concat),
        }
        answers: dict[str, Answer] = {}
        for cell, (edges, concat) in cells.items():
            if concat != self.cell_outputs(self.config).get(cell, unread_states(edges)):
                must_have(self.config, **{f"{cell}_output": concat})
            pairs = [(_FROM_DARTS.get(op, op), state) for op, state in edges]
            rows = list(zip(pairs[::2], pairs[1::2], strict=True))
            answers |= cell_answers(cell, rows, combine="add")
        return Architecture(answers)

    def format(self, architecture: Architecture) -> str | None:
        """Return the cells as DARTS' code lists NASNet-A's; None where a block concatenates."""
        picks = {name: answer for name, answer in architecture.items() if "/combine" not in name}
        if any(architecture[name] == "concat" for name in architecture.keys() - picks.keys()):
            return None
        plain = Architecture({name: _AS_DARTS.get(str(x), x) for name, x in picks.items()})
        edges, outputs = Genotype.of(plain), self.cell_outputs(self.config)
        return to_genotype(
            plain,
            outputs.get("normal", unread_states(edges.normal)),
            outputs.get("reduction", unread_states(edges.reduce)),
        )

    def build(self, pick: Pick) -> Graph:
        """Stack N normal cells three times, with a reduction cell in between."""
        c = self.config
        normal = pick_cell(pick, "normal", c.nodes, c.ops, c.combines)
        reduction = pick_cell(pick, "reduction", c.nodes, c.ops, c.combines)

        g = GraphBuilder(self.input_shape)
        stack = _Stack(g, c, normal, reduction)
        stack.add_stem()
        channels, auxiliary = c.channels, []
        for i in range(3 * c.repeats):
            skipped = stack.before
            if i in (c.repeats, 2 * c.repeats):
                channels *= 2
                stack.add_cell("reduction", channels, stack.before)
            before = skipped if c.skips_reduction_input else stack.before
            stack.add_cell("normal", channels, before)
            if c.auxiliary and i == 2 * c.repeats - 1:
                name = f"auxiliary{stack.last.shape[0]}"
                auxiliary.append(g.auxiliary_head(stack.last, classes=self.classes, weights=name))
        logits = g.classifier(
            stack.last,
            classes=self.classes,
            relu=True,
            dropout=c.dropout,
            weights=f"head{stack.last.shape[0]}",
        )
        return g.finish(logits, *auxiliary)


class _Stack:
    """Adds cells one on top of the other."""

    def __init__(self, g: GraphBuilder, config: NasNet.Config, normal: Cell, reduction: Cell):
        self.g = g
        self.config = config
        self.cells = {"normal": normal, "reduction": reduction}
        self.outputs = NasNet.cell_outputs(config)
        self.total = 3 * config.repeats + 2 + (2 if config.stem == "imagenet" else 0)
        self.values: list[Value] = []
        self.done = 0

    @property
    def last(self) -> Value:
        """The output of the last cell, or of the stem."""
        return self.values[-1]

    @property
    def before(self) -> Value | None:
        """The output of the cell before the last one; None behind the stem's convolution."""
        return self.values[-2] if len(self.values) > 1 else None

    def add_stem(self) -> None:
        """Add what comes before the first cell (`_cifar_stem`, `_imagenet_stem`)."""
        g, c = self.g, self.config
        if c.stem == "cifar":
            stem = g.conv_bn(g.input, channels=c.stem_channels, kernel=3, weights="stem")
            self.values.append(stem)
            return
        x = g.conv(
            g.input,
            channels=c.stem_channels,
            kernel=3,
            stride=2,
            padding="valid",
            weights="stem/conv",
        )
        self.values.append(g.batch_norm(x, weights="stem/bn"))
        for divisor in (4, 2):
            self.add_cell("reduction", c.channels // divisor, self.before)

    def add_cell(
        self, kind: Literal["normal", "reduction"], channels: int, before: Value | None
    ) -> None:
        """Add a cell that reads `before` and the last value (`NasNetABaseCell`)."""
        g, name = self.g, f"cell{self.done}"
        cell, last = self.cells[kind], self.last
        # Behind the stem's convolution both inputs are its output, and only one is brought to the
        # channels of the cell.
        first = last if before is None else fit(g, before, last, channels, f"{name}/before")
        base = f"{name}/last{last.shape[0]}"
        states = [first, g.conv_bn(last, channels=channels, relu="before", weights=base)]
        rate = self.config.drop_path * (self.done + 1) / self.total
        for i, node in enumerate(cell):
            results = []
            for slot, op, state in node.branches:
                stride = 2 if kind == "reduction" and state < 2 else 1
                x = states[state]
                weights = f"{name}/node{i}/{slot}/{op}/from{state}x{x.shape[0]}"
                x = _apply(g, op, x, channels, stride, weights)
                dropped = rate and op != "identity"
                results.append(g.drop_path(x, rate=rate) if dropped else x)
            states.append(g.sum(*results) if node.combine == "add" else g.concat(*results))
        chosen = self.outputs.get(kind, unread(cell))
        self.values.append(_output(g, states, chosen, f"{name}/out"))
        self.done += 1


def _apply(g: GraphBuilder, op: str, x: Value, channels: int, stride: int, weights: str) -> Value:
    """Add an op, with what brings its input to the cell's channels (`_apply_operation`)."""
    kind, _, size = op.rpartition("_")
    has_other_channels = x.shape[0] != channels
    if op in ("identity", "conv_1x1"):
        if op == "identity" and stride == 1 and not has_other_channels:
            return x
        return g.conv_bn(x, channels=channels, stride=stride, relu="before", weights=weights)
    if kind in ("avg_pool", "max_pool"):
        pool = g.avg_pool if kind == "avg_pool" else g.max_pool
        x = pool(x, kernel=int(size[0]), stride=stride)
        return g.conv_bn(x, channels=channels, weights=weights) if has_other_channels else x
    if kind == "sep_conv":
        return g.sep_conv(x, channels=channels, kernel=int(size[0]), stride=stride, weights=weights)
    factorized = op in ("conv_1x3_3x1", "conv_1x7_7x1")
    return g.bottleneck_conv(
        x,
        channels=channels,
        reduced=3 * channels // 8 if op == "conv_1x3_3x1" else channels // 4,
        kernel=int(size[0]),
        stride=stride,
        dilation=2 if op == "dil_conv_3x3" else 1,
        factorized=factorized,
        weights=weights,
    )


def _output(g: GraphBuilder, states: Sequence[Value], chosen: Sequence[int], weights: str) -> Value:
    """Concatenate states, brought to the last one's size and channels where they differ."""
    last = states[-1]
    parts = []
    for i in chosen:
        state, name = states[i], f"{weights}/from{i}x{states[i].shape[0]}to{last.shape[0]}"
        if state.shape[1:] != last.shape[1:]:
            state = g.factorized_reduction(state, channels=last.shape[0], weights=name)
        elif state.shape[0] != last.shape[0]:
            state = g.conv_bn(state, channels=last.shape[0], weights=name)
        parts.append(state)
    return join(g, parts)
