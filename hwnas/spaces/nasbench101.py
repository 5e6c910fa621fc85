"""The space of NAS-Bench-101: one cell of up to seven vertices, stacked nine times.

Source: Ying et al. 2019, "NAS-Bench-101: Towards Reproducible Neural Architecture Search",
section 2, and the authors' code (`model_builder.py`, `base_ops.py`, `config.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pydantic import Field

from hwnas.errors import UserInputError
from hwnas.graph import Answer, Architecture, Graph, GraphBuilder, Pick, Shape, Value
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace, Stated
from hwnas.spaces._nasbench101_cell import INPUT, MAXPOOL3X3, OPS, OUTPUT, Cell, usable

_TRIES = 10_000
_INCEPTION = (
    [
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    [INPUT, OPS[1], OPS[0], OPS[0], OPS[0], OPS[2], OUTPUT],
)


@SPACES.register("nasbench101")
class NasBench101(SearchSpace):
    """NAS-Bench-101: the adjacency matrix of a cell, and an op for each vertex between.

    Picks of vertex v: ``vertex{v}/inputs``, the earlier vertices that it reads (a column of the
    matrix); ``vertex{v}/op`` for all but the output, which is the last vertex.

    Not every answer is a cell of the benchmark: the output may be cut off from the input, and
    after pruning there may be more than `max_edges` edges. Every answer builds a network all the
    same, because a controller cannot be kept from giving it: `cell` says which (see `usable`).
    `sample` and `neighbour` draw until the answer needs no such repair, as the published random
    search and evolution do, so that their architectures are what they say.

    Deviations from the authors' code: weights start from N(0, 2 / fan_in) (theirs: a truncated
    normal of variance 1 / fan_in), running statistics follow with momentum 0.1 (theirs 0.003), and
    an odd image side is halved rounding down (theirs: up; CIFAR-10 has none).
    """

    class Config(PluginConfig):
        """Settings of `nasbench101`; the defaults are the published ones."""

        vertices: int = Field(7, ge=2, le=8, description="vertices, input and output included")
        max_edges: int = Field(9, ge=1, description="most edges of a cell after pruning")
        channels: int = Field(128, ge=1, description="channels of the stem and the first stack")
        stacks: int = Field(3, ge=1, description="stacks; each but the first halves the image")
        cells: int = Field(3, ge=1, description="cells of a stack")

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    def build(self, pick: Pick) -> Graph:
        """Stack the cell that the picks describe."""
        c = self.config
        cell = usable(_pick_cell(pick, c.vertices), c.max_edges)
        g = GraphBuilder(self.input_shape)
        channels = c.channels
        x = g.conv_bn(g.input, channels=channels, kernel=3, relu="after", weights="stem")
        for stack in range(c.stacks):
            if stack > 0:
                x = g.max_pool(x, kernel=2, stride=2)
                channels *= 2
            for i in range(c.cells):
                x = _add_cell(g, cell, x, channels, f"stack{stack}/cell{i}")
        return g.finish(g.classifier(x, classes=self.classes, weights="head"))

    def sample(self, rng: random.Random) -> Architecture:
        """Return a valid cell: uniform answers, drawn again until they make one (section 3.1)."""
        for _ in range(_TRIES):
            architecture = super().sample(rng)
            if self.given is not None or self.is_valid(architecture):
                break
        return architecture

    def neighbour(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """Return a valid copy with one decision answered differently."""
        for _ in range(_TRIES):
            found = super().neighbour(architecture, rng)
            if self.is_valid(found):
                break
        return found

    def is_valid(self, architecture: Architecture) -> bool:
        """Tell whether an architecture is a cell of the benchmark as it stands."""
        found = self.unpruned(architecture).pruned()
        return found is not None and found.edges <= self.config.max_edges

    def unpruned(self, architecture: Architecture) -> Cell:
        """Return the cell as it was answered.

        Raises:
            UserInputError: The architecture is of another space.
        """
        return _pick_cell(Pick(architecture.replay()), self.config.vertices)

    def cell(self, architecture: Architecture) -> Cell:
        """Return the pruned cell that is built; its matrix and ops make a `ModelSpec`.

        Raises:
            UserInputError: The architecture is of another space.
        """
        return usable(self.unpruned(architecture), self.config.max_edges)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the inception-like cell of the published example."""
        return {
            "inception_like": Published(
                architecture_of(*_INCEPTION),
                settings={},
                input_shape=(3, 32, 32),
                classes=10,
                params=Stated(2_694_282),
                source="google-research/nasbench, api.py and README (inception-like module)",
            )
        }


def architecture_of(
    matrix: Sequence[Sequence[int]], ops: Sequence[str], vertices: int = 7
) -> Architecture:
    """Return a cell as picks of `nasbench101`.

    Vertices that the cell lacks are put before its output, without edges; they are pruned again.

    Args:
        matrix: Upper triangular, `[V, V]`: row x, column y for an edge from x to y.
        ops: Label of each vertex, ``input`` and ``output`` included.
        vertices: The space's setting.

    Raises:
        UserInputError: The cell has more vertices than that, or an op that the space lacks.
    """
    count = len(ops)
    if not 2 <= count <= vertices or len(matrix) != count:
        raise UserInputError(f"a cell of {count} vertices does not fit a space of {vertices}")
    for op in ops[1:-1]:
        if op not in OPS:
            raise UserInputError(f"no op {op!r} in a cell", f"the ops are {', '.join(OPS)}")
    cell = Cell.from_matrix(matrix, ops)
    answers: dict[str, Answer] = {}
    for v in range(1, vertices):
        if v == vertices - 1:
            answers[f"vertex{v}/inputs"] = cell.predecessors[-1]
        elif v < count - 1:
            answers[f"vertex{v}/inputs"] = cell.predecessors[v]
            answers[f"vertex{v}/op"] = ops[v]
        else:
            answers[f"vertex{v}/inputs"] = ()
            answers[f"vertex{v}/op"] = OPS[0]
    return Architecture(answers)


def _pick_cell(pick: Pick, vertices: int) -> Cell:
    inputs: list[tuple[int, ...]] = [()]
    ops = [INPUT]
    for v in range(1, vertices):
        inputs.append(pick.predecessors(f"vertex{v}/inputs", v))
        ops.append(pick.one_of(f"vertex{v}/op", OPS) if v < vertices - 1 else OUTPUT)
    return Cell(tuple(inputs), tuple(ops))


def _add_cell(g: GraphBuilder, cell: Cell, x: Value, channels: int, name: str) -> Value:
    """Add one pruned cell (`build_module`): sums inside, a concatenation at the output."""
    widths = cell.channels(channels)
    last = len(cell.ops) - 1
    values = [x]
    for v in range(1, last):
        place = f"{name}/vertex{v}"
        width = widths[v]
        parts = [_truncate(g, values[u], width) for u in cell.predecessors[v] if u > 0]
        if 0 in cell.predecessors[v]:
            parts.append(_project(g, x, width, place))
        values.append(_op(g, cell.ops[v], _sum(g, parts), width, place))
    ends = [values[u] for u in cell.predecessors[last] if u > 0]
    parts = [g.concat(*ends) if len(ends) > 1 else ends[0]] if ends else []
    if 0 in cell.predecessors[last]:
        parts.append(_project(g, x, channels, f"{name}/output"))
    return _sum(g, parts)


def _op(g: GraphBuilder, op: str, x: Value, width: int, place: str) -> Value:
    if op == MAXPOOL3X3:
        return g.max_pool(x, kernel=3)
    kernel = 3 if op == OPS[0] else 1
    name = f"{place}/conv{kernel}x{kernel}/{width}"
    return g.conv_bn(x, channels=width, kernel=kernel, relu="after", weights=name)


def _project(g: GraphBuilder, x: Value, width: int, place: str) -> Value:
    """1×1 convolution, batch norm, ReLU: whoever reads the cell's input reads it so."""
    return g.conv_bn(x, channels=width, relu="after", weights=f"{place}/projection/{width}")


def _truncate(g: GraphBuilder, x: Value, width: int) -> Value:
    """Leave out channels at the end; there is never more than one too many."""
    return x if x.shape[0] == width else g.slice(x, axis=0, start=0, stop=width)


def _sum(g: GraphBuilder, parts: Sequence[Value]) -> Value:
    total = parts[0]
    for each in parts[1:]:
        total = g.sum(total, each)
    return total
