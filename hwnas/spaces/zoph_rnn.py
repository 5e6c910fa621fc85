"""The recurrent space of the first neural architecture search: a tree with an injected memory.

Source: Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", sections 3.4 and
4.2, by a detailed public reading of it, and the cell that they found, as TensorFlow publishes it
(`NASCell`).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from hwnas.graph import Architecture, Graph, GraphBuilder, Pick, Shape, Value
from hwnas.graph.ops.tree_cell import ACTIVATIONS, COMBINATIONS, NAS_CELL, TreeCell
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace, Stated


@SPACES.register("zoph_rnn")
class ZophRnn(SearchSpace):
    """Zoph & Le's recurrent cell in a language model: embedding, layers of the cell, decoder.

    A full binary tree with `base` leaves; each leaf reads x_t and h_{t-1}, each other node two
    nodes, by a picked combination and activation. Then the memory's injection, and two nodes: the
    one that c_{t-1} is injected into, and the one that becomes c_t before its activation. The
    equations are those of the op `tree_cell`.

    Order of the picks, as in the paper's figure 5: combination and activation of each node, those
    of the injection, and the "cell indices": the node that becomes c_t, and the one that c_{t-1} is
    injected into. Both may be any of the 2 · base - 1 nodes: with base 8 these are
    (2 · 4)^16 · 15² = 6.3 · 10^16 cells, the paper's "about 6 · 10^16".

    The graph has the logits first, then the state of each layer after the last token, `[2 H]`;
    `carried` ops of the names ``state0``, ``state1``, … take them up. Two layers are the paper's;
    it drops embeddings and recurrent connections, and plain dropout before each layer is ours.

    All cells share the weights of the leaves; the paper trains every child from scratch.
    """

    class Config(PluginConfig):
        """Settings of `zoph_rnn`."""

        base: int = Field(8, ge=2, le=64, description="leaves of the tree, a power of two")
        hidden: int = Field(200, ge=1, description="size of h and of c")
        embedding: int | None = Field(
            None, ge=1, description="size of the tokens' vectors; none: as hidden"
        )
        layers: int = Field(2, ge=1, description="cells, one above the other")
        dropout: float = Field(0.5, ge=0, lt=1, description="before each cell and the decoder")
        tied: bool = Field(False, description="the decoder's matrix is that of the embedding")

        @model_validator(mode="after")
        def _check(self) -> ZophRnn.Config:
            if self.base & (self.base - 1):
                raise ValueError(f"base: {self.base} is no power of two")
            if self.tied and self.embedding not in (None, self.hidden):
                raise ValueError("tied: the embedding must be of the size of hidden")
            return self

    config: Config
    task = "language_model"

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    def build(self, pick: Pick) -> Graph:
        """Pick one cell, and stack it with weights of their own."""
        c = self.config
        cell = self._pick_cell(pick)

        g = GraphBuilder(self.input_shape, dtype="int64")
        decoder = "embedding" if c.tied else "decoder"
        size = c.embedding or c.hidden
        x = g.embedding(g.input, vocabulary=self.classes, width=size, weights="embedding")
        states: list[Value] = []
        for layer in range(c.layers):
            before = g.carried(g.input, name=f"state{layer}", size=(2 * c.hidden,))
            both = g.add(cell, [self._drop(g, x), before], f"layer{layer}")
            x = g.slice(both, axis=1, start=0, stop=c.hidden)
            last = g.slice(both, axis=0, start=both.shape[0] - 1, stop=both.shape[0])
            states.append(g.reshape(last, size=(2 * c.hidden,)))
        logits = g.linear(self._drop(g, x), features=self.classes, weights=decoder)
        return g.finish(logits, *states)

    def size(self) -> int:
        """Return (2 · 4)^(2 base) · (2 base - 1)²: all nodes, the injection, and two indices."""
        nodes = 2 * self.config.base - 1
        return int((len(COMBINATIONS) * len(ACTIVATIONS)) ** (nodes + 1) * nodes**2)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the cell that was found, as large as the children of the search."""
        return {
            "nas_cell": Published(
                architecture=nas_cell(),
                settings={"hidden": 537},
                input_shape=(35,),
                classes=10_000,
                source="cell: NASCell of TensorFlow; size: two layers with the 20 million "
                "parameters of the medium LSTM (Zoph & Le 2017, section 4.2, from memory: "
                "unverified); the sizes of the paper's final networks are not known",
                params=Stated(20e6, 0.5e6),
            )
        }

    def _pick_cell(self, pick: Pick) -> TreeCell:
        nodes = 2 * self.config.base - 1
        chosen = [
            (
                pick.one_of(f"node{i}/combine", COMBINATIONS),
                pick.one_of(f"node{i}/activation", ACTIVATIONS),
            )
            for i in range(nodes)
        ]
        return TreeCell(
            hidden=self.config.hidden,
            combine=tuple(each for each, _ in chosen),
            activations=tuple(each for _, each in chosen),
            inject_combine=pick.one_of("inject/combine", COMBINATIONS),
            inject_activation=pick.one_of("inject/activation", ACTIVATIONS),
            cell_at=pick.integer("cell/node", 0, nodes - 1),
            inject_at=pick.integer("inject/node", 0, nodes - 1),
        )

    def _drop(self, g: GraphBuilder, x: Value) -> Value:
        return g.dropout(x, rate=self.config.dropout) if self.config.dropout else x


def nas_cell() -> Architecture:
    """Return the picks of the cell that Zoph & Le found (base 8)."""
    answers: dict[str, str] = {}
    pairs = zip(NAS_CELL["combine"], NAS_CELL["activations"], strict=True)
    for node, (combine, activation) in enumerate(pairs):
        answers |= {f"node{node}/combine": combine, f"node{node}/activation": activation}
    return Architecture(
        {
            **answers,
            "inject/combine": NAS_CELL["inject_combine"],
            "inject/activation": NAS_CELL["inject_activation"],
            "cell/node": NAS_CELL["cell_at"],
            "inject/node": NAS_CELL["inject_at"],
        }
    )
