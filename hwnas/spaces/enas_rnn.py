"""The recurrent space of ENAS: a cell of nodes that each read one earlier node.

Source: Pham et al. 2018, section 2.1 and 3.1; the authors' code (`src/ptb`), Google's corrected
code (google-research, `enas_lm`) and the PyTorch port (carpedm20/ENAS-pytorch). The equations of a
cell are in `hwnas.kernels.rnn_cell`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from hwnas.errors import UserInputError
from hwnas.graph import Architecture, Graph, GraphBuilder, Pick, Shape
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace, Stated
from hwnas.spaces._language import LanguageConfig, check_tied, embed, predict
from hwnas.spaces._text import must_have, numbers_of

#: In the order of the kernels' numbers.
ACTIVATIONS = ("tanh", "ReLU", "identity", "sigmoid")
#: In the order of enas_lm's numbers.
_OF_ENAS_LM = ("tanh", "ReLU", "sigmoid", "identity")
_NUMBERS = (
    "first_node searched: the activation of node 0, then (previous, activation) of each other "
    "node, 0 tanh, 1 ReLU, 2 identity, 3 sigmoid; tanh (enas_lm): those pairs of every node, "
    "0 tanh, 1 ReLU, 2 sigmoid, 3 identity"
)


@SPACES.register("enas_rnn")
class EnasRnn(SearchSpace):
    """ENAS RNN: a recurrent cell of N nodes, each with one earlier node and an activation.

    ``first_node: searched`` (the paper's text, its authors' code, the PyTorch port): node 0 reads
    the input and the state, and only its activation is picked; node i has i possible inputs. That
    makes 4^N · (N − 1)! cells. The paper states 4^N · N!, "approximately 10^15" for N = 12, but
    4^12 · 12! is 8.0·10^15 and 4^12 · 11! is 6.7·10^14: its factorial counts one choice too many.
    ``first_node: tanh`` (enas_lm): a fixed node 0 precedes the N that are searched, so node i of
    1 … N has i possible inputs and there are exactly 4^N · N! cells.

    Deviations: the authors' code also normalises inside every node during the search; here, as in
    the paper and the port, only the average (`norm`) is. The decision of the first edge, which has
    one answer, is asked all the same, as the published controllers do.
    """

    class Config(LanguageConfig):
        """Settings of `enas_rnn`."""

        nodes: int = Field(12, ge=1, le=32, description="N: searched nodes of the cell")
        first_node: Literal["searched", "tanh"] = Field(
            "searched", description="searched: node 0 is one of the N; tanh: it is fixed (enas_lm)"
        )
        output: Literal["leaves", "later"] = Field(
            "leaves",
            description="average of the nodes that none reads, or of all nodes but the first "
            "(later: enas_lm)",
        )
        norm: bool = Field(
            False, description="batch norm of the average (the paper's, in the search only)"
        )
        carry: Literal["output", "last"] = Field(
            "output", description="the state: the average before the norm, or the last node (port)"
        )
        weights_per: Literal["edge", "function"] = Field(
            "edge", description="function: each activation of an edge has its own matrix (enas_lm)"
        )
        node_dropout: float = Field(
            0.0, ge=0, lt=1, description="variational dropout of what nodes read (enas_lm: drop_l)"
        )
        clip_hidden: float | None = Field(
            25.0, gt=0, description="largest norm of the state (port: 25); null: any"
        )
        onnx: Literal["unrolled", "scan"] = Field(
            "unrolled", description="the exported cell: once for each step, or in one Scan"
        )

    config: Config
    task = "language_model"

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        check_tied(config)
        super().__init__(config, input_shape, classes)

    def build(self, pick: Pick) -> Graph:
        """Put the picked cell between the embedding and the last layer."""
        c = self.config
        previous, activations = self._pick_cell(pick)
        g = GraphBuilder(self.input_shape, dtype="int64")
        x = embed(g, c, self.classes)
        state = g.carried(g.input, name="state", size=(1, c.hidden))
        both = g.rnn_cell(
            x,
            state,
            hidden=c.hidden,
            previous=previous,
            activations=activations,
            carry_last=c.carry == "last",
            output=c.output,
            weights_per=c.weights_per,
            weight_dropout=c.weight_dropout,
            node_dropout=c.node_dropout,
            clip=c.clip_hidden,
            with_state=True,
            bound=c.bound,
            onnx=c.onnx,
            weights="cell",
        )
        steps = self.input_shape[0]
        output = g.slice(both, axis=0, start=0, stop=steps)
        if c.norm:
            output = g.step_norm(output, weights="norm")
        return predict(
            g, c, self.classes, output, g.slice(both, axis=0, start=steps, stop=steps + 1)
        )

    def parse(self, text: str) -> Architecture:
        """Read the numbers of the authors' code, or those of enas_lm for ``first_node: tanh``."""
        numbers = numbers_of(text, _NUMBERS)
        is_searched = self.config.first_node == "searched"
        if len(numbers) % 2 != int(is_searched):
            raise UserInputError(
                f"architecture: {len(numbers)} numbers are no cell with first_node: "
                f"{self.config.first_node}",
                _NUMBERS,
            )
        must_have(self.config, nodes=(len(numbers) + 1) // 2)
        return _read(numbers, ACTIVATIONS if is_searched else _OF_ENAS_LM)

    def format(self, architecture: Architecture) -> str:
        """Return the numbers of the cell, as `parse` reads them."""
        pick = Pick(architecture.replay())
        self._pick_cell(pick)
        is_searched = self.config.first_node == "searched"
        functions = ACTIVATIONS if is_searched else _OF_ENAS_LM
        return " ".join(
            str(answer if isinstance(answer, int) else functions.index(str(answer)))
            for answer in pick.architecture.values()
        )

    def _pick_cell(self, pick: Pick) -> tuple[tuple[int, ...], tuple[int, ...]]:
        nodes = range(self.config.nodes)
        activations: list[str] = [ACTIVATIONS[0]]
        if self.config.first_node == "searched":
            activations = [pick.one_of("node0/activation", ACTIVATIONS)]
            nodes = range(1, self.config.nodes)
        else:
            nodes = range(1, self.config.nodes + 1)
        previous = []
        for node in nodes:
            previous.append(pick.predecessor(f"node{node}/previous", node))
            activations.append(pick.one_of(f"node{node}/activation", ACTIVATIONS))
        return tuple(previous), tuple(ACTIVATIONS.index(each) for each in activations)

    @classmethod
    def cell_outputs(cls, config: PluginConfig) -> Mapping[str, tuple[int, ...]]:
        """Return the nodes that are averaged, where these are not the leaves."""
        assert isinstance(config, cls.Config)
        behind = config.nodes if config.first_node == "tanh" else config.nodes - 1
        return {"": tuple(range(1, behind + 1))} if config.output == "later" and behind else {}

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the paper's cell (figure 6), and those of enas_lm, for their final training."""
        return {
            **{name: _of_enas_lm(numbers) for name, numbers in _ENAS_LM.items()},
            "enas_ptb": Published(
                architecture=from_numbers("0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"),
                settings={"nodes": 12, "hidden": 748, "decoder_bias": False, "clip_hidden": None},
                input_shape=(35,),
                classes=10_000,
                source="cell and sizes: scripts/ptb_final.sh of melodyguan/enas; 24 million: Pham "
                "et al. 2018, table 1, from memory (unverified)",
                params=Stated(24e6, 0.5e6),
                difference="the script's sizes give 22,027,104: 7.48 M for 10,000 words of 748, "
                "which are the last layer too, and 14.55 M for the cell; 24 M would be a width of "
                "785",
            ),
        }


#: README.md of google-research/enas_lm: its own cell, and the one that DARTS found.
_ENAS_LM = {
    "enas_lm": "0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2",
    "darts_ptb": "0 2 1 1 1 1 1 3 2 0 5 2 3 0 5 1",
}


def _of_enas_lm(text: str) -> Published:
    """Return a cell as enas_lm trains it; 0 tanh, 1 ReLU, 2 sigmoid, 3 identity."""
    architecture = _read([int(each) for each in text.split()], _OF_ENAS_LM)
    return Published(
        architecture=architecture,
        settings={
            "nodes": len(architecture) // 2,
            "first_node": "tanh",
            "output": "later",
            "hidden": 800,
            "decoder_bias": False,
            "clip_hidden": None,
        },
        input_shape=(35,),
        classes=10_000,
        source="cell: README.md of google-research/enas_lm; parameters: the variables of its "
        "src/fixed_lib.py, 10,000 · 800 + 1,600 · 1,600 + 8 · 800 · 1,600",
        params=Stated(20_800_000),
    )


def from_numbers(text: str) -> Architecture:
    """Read a cell as the authors' code prints it: activation 0, then (previous, activation) pairs.

    0 tanh, 1 ReLU, 2 identity, 3 sigmoid.
    """
    return _read([int(each) for each in text.split()], ACTIVATIONS)


def _read(numbers: Sequence[int], functions: Sequence[str]) -> Architecture:
    """Return the picks of (previous, activation) pairs, behind node 0's activation if it has one.

    Raises:
        UserInputError: A number stands for no activation.
    """
    answers: dict[str, int | str] = {}
    rest = list(numbers)
    if len(rest) % 2:
        answers["node0/activation"] = _function(rest.pop(0), functions)
    for node, (source, number) in enumerate(zip(rest[::2], rest[1::2], strict=True), start=1):
        answers[f"node{node}/previous"] = source
        answers[f"node{node}/activation"] = _function(number, functions)
    return Architecture(answers)


def _function(number: int, functions: Sequence[str]) -> str:
    if number >= len(functions):
        raise UserInputError(f"architecture: a cell has no activation {number}", _NUMBERS)
    return functions[number]
