"""The cells of DARTS: four nodes, each the sum of two ops on two earlier states.

Source: Liu et al. 2019, "DARTS: Differentiable Architecture Search", sections 2.1 and 3, appendix
A, and the authors' code (`cnn/operations.py`, `model.py`, `model_search.py`, `train.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from hwnas.graph import Architecture, Graph, GraphBuilder, Op, Pick, Shape, Value
from hwnas.graph.ops.factorized_conv import FactorizedConv
from hwnas.graph.ops.factorized_reduction import FactorizedReduction
from hwnas.graph.ops.mixed_op import Candidate
from hwnas.graph.ops.pool import AvgPool, MaxPool
from hwnas.graph.ops.pool_bn import PoolBn
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.graph.ops.zero import Zero
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace
from hwnas.spaces._cells import Branch, Cell, CellNode, check_output, join, pick_cell, sum_branches
from hwnas.spaces._genotype import Genotype, from_genotype, genotype_settings, to_genotype
from hwnas.spaces._text import must_have

__all__ = ["Darts", "Genotype", "from_genotype", "genotype_settings", "to_genotype"]

#: What a derived cell may have: the eight ops of the search without `none`.
OPS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
#: What DARTS' code can build besides: `none` of the search, and ops of NASNet and AmoebaNet.
MORE_OPS = ("none", "sep_conv_7x7", "conv_7x1_1x7")


@SPACES.register("darts")
class Darts(SearchSpace):
    """DARTS: a normal and a reduction cell whose nodes sum two ops each; all nodes concatenated.

    `build` gives the derived network: two edges a node. `mixture` gives the relaxed one, with
    every op on every edge and a gate for each, for strategies that learn the gates.

    Order of the picks for a node: first input, second input, first op, second op. They are
    independent, so both may be one state, and both orders are answers: (7^4 · 5!)^4 sequences,
    where DARTS counts pairs of different inputs, (7^2)^8 · (1 · 3 · 6 · 10)^2 graphs.

    Deviations from the authors' code: batch norms scale and shift in the search too (theirs do
    not), and the auxiliary classifier for ImageNet is that for CIFAR-10.
    """

    class Config(PluginConfig):
        """Settings of `darts`; the defaults are the published search (CIFAR-10)."""

        form: Literal["search", "final"] = Field(
            "search", description="search: batch norm behind pooling; final: none"
        )
        nodes: int = Field(4, ge=1, le=12, description="nodes of a cell")
        layers: int = Field(8, ge=3, description="cells, the two reductions included")
        channels: int = Field(16, ge=2, multiple_of=2, description="channels of the first cells")
        ops: tuple[str, ...] = Field(OPS, min_length=1, description="ops to choose from")
        stem: Literal["cifar", "imagenet"] = Field(
            "cifar",
            description="cifar: one convolution; imagenet: three of stride two",
        )
        stem_multiplier: int = Field(
            3, ge=1, description="stem cifar: channels of the stem / channels"
        )
        auxiliary: bool = Field(False, description="a second classifier for the training")
        drop_path: float = Field(0.0, ge=0, lt=1, description="rate of drop-path at the end")
        normal_concat: tuple[int, ...] | None = Field(
            None, description="states that the normal cell concatenates; null: all nodes"
        )
        reduce_concat: tuple[int, ...] | None = Field(
            None, description="states that the reduction cell concatenates; null: all nodes"
        )

        @model_validator(mode="after")
        def _check(self) -> Darts.Config:
            known = (*OPS, *MORE_OPS)
            if set(self.ops) - set(known) or len(set(self.ops)) < len(self.ops):
                raise ValueError(f"ops: {list(self.ops)} must be some of {list(known)}, once")
            for name in ("normal_concat", "reduce_concat"):
                check_output(name, getattr(self, name), self.nodes)
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the networks of the genotypes that DARTS' code and its followers list."""
        from hwnas.spaces._published_darts import PUBLISHED

        return PUBLISHED

    @classmethod
    def cell_outputs(cls, config: PluginConfig) -> Mapping[str, tuple[int, ...]]:
        """Return all nodes, or what the settings say."""
        assert isinstance(config, Darts.Config)
        nodes = tuple(range(2, config.nodes + 2))
        return {
            "normal": config.normal_concat or nodes,
            "reduction": config.reduce_concat or nodes,
        }

    def parse(self, text: str) -> Architecture:
        """Read a genotype: ``Genotype(normal=[…], normal_concat=…, reduce=[…], …)``."""
        genotype = Genotype.parse(text)
        c, nodes = self.config, len(genotype.normal) // 2
        must_have(c, nodes=nodes)
        outputs = self.cell_outputs(c)
        for name, states, has in (
            ("normal_concat", genotype.normal_concat, outputs["normal"]),
            ("reduce_concat", genotype.reduce_concat, outputs["reduction"]),
        ):
            if states != has:
                is_default = states == tuple(range(2, nodes + 2))
                must_have(c, **{name: None if is_default else states})
        return genotype.architecture

    def format(self, architecture: Architecture) -> str:
        """Return the genotype, with the outputs that the settings say."""
        return to_genotype(architecture, self.config.normal_concat, self.config.reduce_concat)

    def build(self, pick: Pick) -> Graph:
        """Stack the cells: reductions after a third and two thirds of them."""
        c = self.config
        normal = pick_cell(pick, "normal", c.nodes, c.ops)
        return self._stack(normal, pick_cell(pick, "reduction", c.nodes, c.ops))

    def mixture(self) -> Graph:
        """Return the relaxed network: a gated `mixed_op` of all `ops` on every edge.

        The gates of the edge from state j to node i of cell k are the weight
        ``cell<k>/node<i>/from<j>/gates/weight``, in the order of `ops`. DARTS gives the cells of a
        kind the same gates. Its weights have the names that the derived networks use.
        """
        return self._stack(None, None)

    def _stack(self, normal: Cell | None, reduction: Cell | None) -> Graph:
        c = self.config
        g = GraphBuilder(self.input_shape)
        before, last = self._stem(g)
        channels, auxiliary = c.channels, []
        for layer in range(c.layers):
            is_reduction = layer in (c.layers // 3, 2 * c.layers // 3)
            channels *= 2 if is_reduction else 1
            cell = reduction if is_reduction else normal
            added = self._cell(g, cell, (before, last), channels, is_reduction, f"cell{layer}")
            before, last = last, added
            if c.auxiliary and layer == 2 * c.layers // 3:
                head = g.auxiliary_head(last, classes=self.classes, weights="auxiliary")
                auxiliary.append(head)
        return g.finish(g.classifier(last, classes=self.classes, weights="head"), *auxiliary)

    def _stem(self, g: GraphBuilder) -> tuple[Value, Value]:
        c = self.config
        if c.stem == "cifar":
            channels = c.channels * c.stem_multiplier
            stem = g.conv_bn(g.input, channels=channels, kernel=3, weights="stem")
            return stem, stem
        layer = {"kernel": 3, "stride": 2}
        x = g.conv_bn(
            g.input, channels=c.channels // 2, relu="after", weights="stem0/conv0", **layer
        )
        before = g.conv_bn(x, channels=c.channels, weights="stem0/conv1", **layer)
        stem = g.conv_bn(before, channels=c.channels, relu="before", weights="stem1", **layer)
        return before, stem

    def _cell(
        self,
        g: GraphBuilder,
        cell: Cell | None,
        inputs: tuple[Value, Value],
        channels: int,
        is_reduction: bool,
        name: str,
    ) -> Value:
        c = self.config
        states = _preprocess(g, *inputs, channels, name)
        for i in range(c.nodes):
            strides = [2 if is_reduction and state < 2 else 1 for state in range(i + 2)]
            node = f"{name}/node{i}"
            if cell is None:
                states.append(self._mixed_node(g, states, channels, strides, node))
                continue
            branches = self._branches(cell[i], channels, strides)
            read = (states[cell[i].first], states[cell[i].second])
            states.append(sum_branches(g, read, branches, c.drop_path, node))
        chosen = self.cell_outputs(c)["reduction" if is_reduction else "normal"]
        return _concat(g, states, chosen, channels, name)

    def _branches(self, node: CellNode, channels: int, strides: list[int]) -> list[Branch]:
        """Return the two edges of a node; weights belong to an edge, whichever slot has it."""
        branches = []
        is_double = (node.op1, node.first) == (node.op2, node.second)
        for place, (slot, name, state) in enumerate(node.branches):
            op = self._op(name, channels, strides[state])
            again = "/again" if is_double and slot == "b" else ""
            candidate = Candidate(op, place, f"from{state}/{name}{again}")
            branches.append(Branch(candidate, is_dropped=op is not None))
        return branches

    def _mixed_node(
        self, g: GraphBuilder, states: list[Value], channels: int, strides: list[int], name: str
    ) -> Value:
        total = None
        for state, (value, stride) in enumerate(zip(states, strides, strict=True)):
            candidates = tuple(
                Candidate(self._op(op, channels, stride), 0, op) for op in self.config.ops
            )
            edge = g.mixed_op(value, branches=candidates, gated=True, weights=f"{name}/from{state}")
            total = edge if total is None else g.sum(total, edge)
        assert total is not None
        return total

    def _op(self, name: str, channels: int, stride: int) -> Op | None:
        if name == "none":
            return Zero(stride)
        if name == "skip_connect":
            return FactorizedReduction(channels, relu=True) if stride > 1 else None
        if name == "conv_7x1_1x7":
            return FactorizedConv(channels, stride=stride, inner_norm=False)
        kind, _, size = name.rpartition("_")
        if kind == "sep_conv":
            return SepConv(channels, kernel=int(size[0]), stride=stride)
        if kind == "dil_conv":
            return SepConv(channels, kernel=int(size[0]), stride=stride, stages=1, dilation=2)
        if self.config.form == "search":
            return PoolBn("max" if kind == "max_pool" else "avg", stride=stride)
        return MaxPool(stride=stride) if kind == "max_pool" else AvgPool(stride=stride)


def _preprocess(
    g: GraphBuilder, before: Value, last: Value, channels: int, name: str
) -> list[Value]:
    """Bring both inputs to the cell's channels, and the first to the second's size."""
    if before.shape[1:] != last.shape[1:]:
        first = g.factorized_reduction(
            before, channels=channels, relu=True, weights=f"{name}/before"
        )
    else:
        first = g.conv_bn(before, channels=channels, relu="before", weights=f"{name}/before")
    second = g.conv_bn(last, channels=channels, relu="before", weights=f"{name}/last")
    return [first, second]


def _concat(
    g: GraphBuilder, states: list[Value], chosen: tuple[int, ...], channels: int, name: str
) -> Value:
    """Concatenate states; an input of a reduction cell is reduced first."""
    size = states[-1].shape[1:]
    return join(
        g,
        [
            states[i]
            if states[i].shape[1:] == size
            else g.factorized_reduction(
                states[i], channels=channels, relu=True, weights=f"{name}/out{i}"
            )
            for i in chosen
        ],
    )
