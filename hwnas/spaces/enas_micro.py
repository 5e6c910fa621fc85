"""The micro space of ENAS: two cells of nodes that each combine two earlier ones.

Source: Pham et al. 2018, section 2.4, and the authors' code (`micro_child.py`,
`micro_controller.py`), in the form in which it is searched. The form of the final training
(strided ops inside the reduction cell, drop-path) is another one.
"""

from __future__ import annotations

from pydantic import Field

from hwnas.graph import Graph, GraphBuilder, Op, Pick, Shape, Value
from hwnas.graph.ops.mixed_op import Candidate
from hwnas.graph.ops.pool import AvgPool, MaxPool
from hwnas.graph.ops.sep_conv import SepConv
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, SearchSpace

OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")

#: One cell: for each node (first input, second input, first op, second op).
Cell = tuple[tuple[int, int, str, str], ...]


@SPACES.register("enas_micro")
class EnasMicro(SearchSpace):
    """ENAS micro: a normal and a reduction cell of nodes with two inputs and two ops each.

    Order of the picks for a node, as published: first input, second input, first op, second op.

    Deviations from the authors' code: weights start from N(0, 2 / fan_in) with the fan-in of one
    path (theirs takes it from the stacked tensor of all paths), and only the weights that a child
    uses move in its step (there, momentum and weight decay move all of them). There is no
    auxiliary head (theirs, of weight 0.4, is never trained itself: its variables are not among
    those of the optimiser), and the last layer has a bias.
    """

    class Config(PluginConfig):
        """Settings of `enas_micro`; the defaults are the published search (CIFAR-10)."""

        nodes: int = Field(5, ge=1, le=12, description="nodes of a cell")
        layers: int = Field(6, ge=1, description="normal cells; two reduction cells come on top")
        channels: int = Field(20, ge=2, description="channels of the first cells, even")
        dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the classifier")
        stem_multiplier: int = Field(3, ge=1, description="stem channels / channels")

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    def build(self, pick: Pick) -> Graph:
        """Stack the cells: reductions after a third and two thirds of the normal cells."""
        c = self.config
        normal = self._pick_cell(pick, "normal")
        reduction = self._pick_cell(pick, "reduction")

        g = GraphBuilder(self.input_shape)
        channels = c.channels
        stem = g.conv_bn(g.input, channels=channels * c.stem_multiplier, kernel=3, weights="stem")
        before, last = stem, stem
        third = c.layers // 3
        for layer in range(c.layers + 2):
            name = f"cell{layer}"
            if layer in (third, 2 * third + 1):
                channels *= 2
                reduced = g.factorized_reduction(last, channels=channels, weights=f"{name}/reduce")
                before, last = last, reduced
                cell = reduction
            else:
                cell = normal
            before, last = last, self._add_cell(g, cell, (before, last), channels, name)
        logits = g.classifier(
            last, classes=self.classes, relu=True, dropout=c.dropout, weights="head"
        )
        return g.finish(logits)

    def _pick_cell(self, pick: Pick, name: str) -> Cell:
        cell = []
        for i in range(self.config.nodes):
            node = f"{name}/node{i}"
            first = pick.predecessor(f"{node}/input1", i + 2)
            second = pick.predecessor(f"{node}/input2", i + 2)
            cell.append(
                (first, second, pick.one_of(f"{node}/op1", OPS), pick.one_of(f"{node}/op2", OPS))
            )
        return tuple(cell)

    def _add_cell(
        self, g: GraphBuilder, cell: Cell, inputs: tuple[Value, Value], channels: int, name: str
    ) -> Value:
        """Add one cell; all nodes that no other reads are its output, unread inputs included."""
        states = _calibrate(g, inputs, channels, name)
        read: set[int] = set()
        for i, (first, second, op1, op2) in enumerate(cell):
            node = f"{name}/node{i}"
            branches = (
                Candidate(_op(op1, channels), 0, f"a/{op1}/from{first}"),
                Candidate(_op(op2, channels), 1, f"b/{op2}/from{second}"),
            )
            states.append(
                g.mixed_op(states[first], states[second], branches=branches, weights=node)
            )
            read |= {first, second}
        loose = [i for i in range(len(states)) if i not in read]
        sources = tuple(f"from{i}" for i in loose)
        return g.concat_conv_bn(
            *(states[i] for i in loose), channels=channels, sources=sources, weights=f"{name}/out"
        )


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


def _op(name: str, channels: int) -> Op | None:
    if name == "sep_conv_3x3":
        return SepConv(channels, kernel=3)
    if name == "sep_conv_5x5":
        return SepConv(channels, kernel=5)
    if name == "avg_pool_3x3":
        return AvgPool()
    if name == "max_pool_3x3":
        return MaxPool()
    return None
