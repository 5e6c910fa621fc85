"""The micro space of ENAS: two cells of nodes that each combine two earlier ones.

Source: Pham et al. 2018, section 2.4, and the authors' code (`micro_child.py`,
`micro_controller.py`). It has two forms: the one that is searched, whose reduction cells get a
halved image and end in a 1×1 convolution, and the one that is trained in the end (`_fixed_layer`),
whose reduction cells stride themselves and whose cells end in a concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from hwnas.errors import UserInputError
from hwnas.graph import Answer, Architecture, Graph, GraphBuilder, Op, Pick, Shape, Value
from hwnas.graph.ops.factorized_reduction import FactorizedReduction
from hwnas.graph.ops.mixed_op import Candidate
from hwnas.graph.ops.pool import AvgPool, MaxPool
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace, Stated
from hwnas.spaces._cells import (
    Branch,
    Cell,
    CellNode,
    cell_answers,
    fit,
    join,
    pick_cell,
    sum_branches,
    unread,
)
from hwnas.spaces._text import must_have, numbers_of

OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")

_ARC_FORM = (
    "input, op, input, op for each node, first those of the normal cell: 0 2 0 0 …; "
    f"ops: {', '.join(f'{i} {op}' for i, op in enumerate(OPS))}"
)

#: The arc of the authors' `cifar10_micro_final.sh`: for each node input, op, input, op.
_PUBLISHED_ARC = (
    (0, 2, 0, 0, 0, 4, 0, 1, 0, 4, 1, 1, 1, 0, 0, 1, 0, 2, 1, 1),
    (1, 0, 1, 0, 0, 3, 0, 2, 1, 1, 3, 1, 1, 0, 0, 4, 0, 3, 1, 1),
)


@SPACES.register("enas_micro")
class EnasMicro(SearchSpace):
    """ENAS micro: a normal and a reduction cell of nodes with two inputs and two ops each.

    Order of the picks for a node, as published: first input, second input, first op, second op.

    Deviations from the authors' code: weights start from N(0, 2 / fan_in) with the fan-in of one
    path (theirs takes it from the stacked tensor of all paths), and only the weights that a child
    uses move in its step (there, momentum and weight decay move all of them). The last layer has a
    bias. The auxiliary head is trained (theirs is not: its variables are not among those of the
    optimiser), its last convolution is unpadded, and its last layer has a bias.
    """

    class Config(PluginConfig):
        """Settings of `enas_micro`; the defaults are the published search (CIFAR-10)."""

        form: Literal["search", "final"] = Field(
            "search",
            description="search: halved images before reduction cells, a convolution ends a cell; "
            "final: strided ops inside them, a concatenation ends a cell",
        )
        nodes: int = Field(5, ge=1, le=12, description="nodes of a cell")
        layers: int = Field(6, ge=1, description="normal cells; two reduction cells come on top")
        channels: int = Field(20, ge=2, multiple_of=2, description="channels of the first cells")
        dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the classifier")
        stem_multiplier: int = Field(3, ge=1, description="stem channels / channels")
        auxiliary: bool = Field(False, description="a second classifier for the training")
        drop_path: float = Field(
            0.0, ge=0, lt=1, description="form final: the last cell's rate at the end"
        )

        @model_validator(mode="after")
        def _check(self) -> EnasMicro.Config:
            if self.form == "search" and self.drop_path:
                raise ValueError("drop_path: only form final drops paths")
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the network that the authors' code trains in the end."""
        found = Published(
            architecture=arc_architecture(*_PUBLISHED_ARC),
            settings={
                "form": "final",
                "layers": 15,
                "channels": 36,
                "dropout": 0.2,
                "auxiliary": True,
                "drop_path": 0.4,
            },
            input_shape=(3, 32, 32),
            classes=10,
            source="the authors' cifar10_micro_final.sh; Pham et al. 2018, table 2",
            params=Stated(4.6e6, 0.05e6),
            difference="the authors' own code prints 'Model has 3894372 params' for this arc; ours "
            "has the bias of the last layer, 10 more. What the paper's figure counts is not known",
        )
        return {"enas_micro_cifar10": found}

    def parse(self, text: str) -> Architecture:
        """Read an arc of the authors' code: input, op, input, op of each node of both cells."""
        numbers = numbers_of(text, _ARC_FORM)
        if len(numbers) % 8:
            raise UserInputError(
                f"architecture: two cells have eight numbers for each node, not {len(numbers)}",
                _ARC_FORM,
            )
        if max(numbers[1::2]) >= len(OPS):
            raise UserInputError(f"architecture: an arc has no op {max(numbers[1::2])}", _ARC_FORM)
        must_have(self.config, nodes=len(numbers) // 8)
        half = len(numbers) // 2
        return arc_architecture(tuple(numbers[:half]), tuple(numbers[half:]))

    def format(self, architecture: Architecture) -> str:
        """Return the arc as the authors' scripts have it."""
        pick = Pick(architecture.replay())
        cells = [pick_cell(pick, name, self.config.nodes, OPS) for name in ("normal", "reduction")]
        return " ".join(
            f"{state} {OPS.index(op)}"
            for cell in cells
            for node in cell
            for _, op, state in node.branches
        )

    def build(self, pick: Pick) -> Graph:
        """Stack the cells: reductions after a third and two thirds of the normal cells."""
        c = self.config
        normal = pick_cell(pick, "normal", c.nodes, OPS)
        reduction = pick_cell(pick, "reduction", c.nodes, OPS)

        g = GraphBuilder(self.input_shape)
        channels = c.channels
        stem = g.conv_bn(g.input, channels=channels * c.stem_multiplier, kernel=3, weights="stem")
        before, last = stem, stem
        third = c.layers // 3
        auxiliary = []
        for layer in range(c.layers + 2):
            is_reduction = layer in (third, 2 * third + 1)
            channels *= 2 if is_reduction else 1
            cell = reduction if is_reduction else normal
            if c.form == "final":
                added = self._final_cell(g, cell, (before, last), channels, layer, is_reduction)
            else:
                if is_reduction:
                    name = f"cell{layer}/reduce"
                    halved = g.factorized_reduction(last, channels=channels, weights=name)
                    before, last = last, halved
                added = _search_cell(g, cell, (before, last), channels, f"cell{layer}")
            before, last = last, added
            if c.auxiliary and layer == 2 * third + 2:
                name = f"auxiliary{last.shape[0]}"
                auxiliary.append(g.auxiliary_head(last, classes=self.classes, weights=name))
        head = "head" if c.form == "search" else f"head{last.shape[0]}"
        logits = g.classifier(
            last, classes=self.classes, relu=True, dropout=c.dropout, weights=head
        )
        return g.finish(logits, *auxiliary)

    def _final_cell(
        self,
        g: GraphBuilder,
        cell: Cell,
        inputs: tuple[Value, Value],
        channels: int,
        layer: int,
        is_reduction: bool,
    ) -> Value:
        """Add one cell of the final network (`_fixed_layer`, `_fixed_conv`, `_fixed_combine`).

        Ops that read an input of a reduction cell have stride two. Unread inputs of the larger
        size are reduced without a ReLU. Drop-path grows with the cell and spares identities.
        """
        name = f"cell{layer}"
        before, last = inputs
        states = [fit(g, before, last, channels, f"{name}/before")]
        last = fit(g, last, last, channels, f"{name}/last")
        states.append(g.conv_bn(last, channels=channels, relu="before", weights=f"{name}/base"))
        rate = self.config.drop_path * (layer + 1) / (self.config.layers + 2)
        for i, node in enumerate(cell):
            strides = [
                2 if is_reduction and state < 2 else 1 for state in (node.first, node.second)
            ]
            states.append(_node(g, node, states, channels, strides, rate, f"{name}/node{i}"))
        size = states[-1].shape[1:]
        loose = [
            states[i]
            if states[i].shape[1:] == size
            else g.factorized_reduction(states[i], channels=channels, weights=f"{name}/loose{i}")
            for i in unread(cell)
        ]
        return join(g, loose)


def arc_architecture(normal: tuple[int, ...], reduction: tuple[int, ...]) -> Architecture:
    """Return the architecture of an arc of the authors' code.

    Args:
        normal: Input, op, input, op of each node; ops are numbered as in `OPS`.
        reduction: Likewise.
    """
    answers: dict[str, Answer] = {}
    for name, arc in (("normal", normal), ("reduction", reduction)):
        rows = [arc[i : i + 4] for i in range(0, len(arc), 4)]
        answers |= cell_answers(name, [((OPS[b], a), (OPS[d], c)) for a, b, c, d in rows])
    return Architecture(answers)


def _search_cell(
    g: GraphBuilder, cell: Cell, inputs: tuple[Value, Value], channels: int, name: str
) -> Value:
    """Add one cell of the search; a 1×1 convolution gathers the states that no node reads."""
    states = _calibrate(g, inputs, channels, name)
    for i, node in enumerate(cell):
        states.append(_node(g, node, states, channels, [1, 1], 0.0, f"{name}/node{i}"))
    loose = unread(cell)
    sources = tuple(f"from{i}" for i in loose)
    return g.concat_conv_bn(
        *(states[i] for i in loose), channels=channels, sources=sources, weights=f"{name}/out"
    )


def _node(
    g: GraphBuilder,
    node: CellNode,
    states: list[Value],
    channels: int,
    strides: list[int],
    rate: float,
    weights: str,
) -> Value:
    branches = [
        Branch(
            Candidate(_op(op, channels, strides[place]), place, f"{slot}/{op}/from{state}"),
            is_dropped=op != "identity",
        )
        for place, ((slot, op, state), stride) in enumerate(
            zip(node.branches, strides, strict=True)
        )
    ]
    inputs = (states[node.first], states[node.second])
    return sum_branches(g, inputs, branches, rate, weights)


def _calibrate(
    g: GraphBuilder, inputs: tuple[Value, Value], channels: int, name: str
) -> list[Value]:
    """Bring both inputs of a cell to its size and channels (`_maybe_calibrate_size`)."""
    before, last = inputs
    if before.shape[1:] != last.shape[1:]:
        before = g.factorized_reduction(
            before, channels=channels, relu=True, weights=f"{name}/before"
        )
    elif before.shape[0] != channels:
        before = g.conv_bn(before, channels=channels, relu="before", weights=f"{name}/before")
    if last.shape[0] != channels:
        last = g.conv_bn(last, channels=channels, relu="before", weights=f"{name}/last")
    return [before, last]


def _op(name: str, channels: int, stride: int) -> Op | None:
    if name == "sep_conv_3x3":
        return SepConv(channels, kernel=3, stride=stride)
    if name == "sep_conv_5x5":
        return SepConv(channels, kernel=5, stride=stride)
    if name == "avg_pool_3x3":
        return AvgPool(stride=stride)
    if name == "max_pool_3x3":
        return MaxPool(stride=stride)
    return FactorizedReduction(channels) if stride > 1 else None
