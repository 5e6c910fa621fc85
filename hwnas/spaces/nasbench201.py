"""The space of NAS-Bench-201: a cell of four nodes and six edges, each edge with one of five ops.

Source: Dong & Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search", section 2, and the authors' code (AutoDL-Projects, `TinyNetwork`, `InferCell`,
`ResNetBasicblock`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from pydantic import Field

from hwnas.errors import UserInputError, nearest
from hwnas.graph import Architecture, Graph, GraphBuilder, Pick, Shape, Value
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace, Stated
from hwnas.spaces._text import must_have

NONE = "none"
SKIP = "skip_connect"
CONV1X1 = "nor_conv_1x1"
CONV3X3 = "nor_conv_3x3"
AVG_POOL = "avg_pool_3x3"
#: In the order of the authors' code.
OPS = (NONE, SKIP, CONV1X1, CONV3X3, AVG_POOL)

_BIASES = "the authors' counter adds the classifier's 10 biases to the multiply-accumulates"
#: Architecture, parameters, MACs for a 32×32 image, source; CIFAR-10.
_PUBLISHED = {
    "arch_0": (
        (
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
            "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
        ),
        None,
        Stated(15.64737e6, 5),
        "D-X-Y/NATS-Bench, issue 24 (the API's figures)",
    ),
    "arch_1": (
        (
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|"
            "+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
        ),
        Stated(0.802e6, 500),
        Stated(113.95e6, 5000),
        "D-X-Y/NATS-Bench, issue 18 (the API's figures)",
    ),
    "with_none": (
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        Stated(802_426),
        Stated(113.95137e6, 5),
        "D-X-Y/NATS-Bench, issue 36 (the API's figures)",
    ),
}


@SPACES.register("nasbench201")
class NasBench201(SearchSpace):
    """NAS-Bench-201: pick ``edge{u}to{v}`` is the op from node u to node v of every cell.

    Each node is the sum of what its edges bring; node 0 is the cell's input, the last its output.
    Between the stages stands a residual block that halves the image and doubles the channels.

    Deviations from the authors' code: an op whose node nothing reads is not part of the network
    and its weights do not count (theirs creates and counts them), and weights start from
    N(0, 2 / fan_in) (theirs from PyTorch's uniform default).
    """

    class Config(PluginConfig):
        """Settings of `nasbench201`; the defaults are the published ones."""

        nodes: int = Field(4, ge=2, description="nodes of a cell, input and output included")
        channels: int = Field(16, ge=1, description="channels of the stem and the first stage")
        stages: int = Field(3, ge=1, description="stages, with a residual reduction between two")
        cells: int = Field(5, ge=1, description="cells of a stage")

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    def parse(self, text: str) -> Architecture:
        """Read the benchmark's own notation: ``|op~0|+|op~0|op~1|+…``."""
        architecture = from_arch_str(text)
        must_have(self.config, nodes=text.count("+") + 2)
        return architecture

    def format(self, architecture: Architecture) -> str:
        """Return the benchmark's own notation."""
        return to_arch_str(architecture)

    def build(self, pick: Pick) -> Graph:
        """Stack the cell that the picks describe."""
        c = self.config
        ops = {
            (u, v): pick.one_of(_pick_name(u, v), OPS) for v in range(1, c.nodes) for u in range(v)
        }
        g = GraphBuilder(self.input_shape)
        channels = c.channels
        x = g.conv_bn(g.input, channels=channels, kernel=3, weights="stem")
        for stage in range(c.stages):
            if stage > 0:
                channels *= 2
                x = _reduce(g, x, channels, f"stage{stage}/reduction")
            for i in range(c.cells):
                x = _add_cell(g, ops, x, c.nodes, f"stage{stage}/cell{i}")
        x = g.batch_norm(x, weights="last")
        return g.finish(g.classifier(x, classes=self.classes, relu=True, weights="head"))

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return architectures whose figures the authors' API was seen to print."""
        return {
            name: Published(
                from_arch_str(text),
                settings={},
                input_shape=(3, 32, 32),
                classes=10,
                params=params,
                macs=macs,
                source=source,
                difference=_BIASES if macs.within < 10 else "",
            )
            for name, (text, params, macs, source) in _PUBLISHED.items()
        }


def to_arch_str(architecture: Architecture) -> str:
    """Return the notation of NAS-Bench-201: ``|op~0|+|op~0|op~1|+…``, one group a node.

    Raises:
        UserInputError: The architecture is not of this space.
    """
    groups = []
    for v in itertools.count(1):
        names = [_pick_name(u, v) for u in range(v)]
        if any(name not in architecture for name in names):
            break
        groups.append("".join(f"|{architecture[name]}~{u}" for u, name in enumerate(names)) + "|")
    if sum(range(1, len(groups) + 1)) != len(architecture) or not groups:
        raise UserInputError(f"architecture {architecture.id} is not of the space nasbench201")
    return "+".join(groups)


def from_arch_str(text: str) -> Architecture:
    """Read the notation of NAS-Bench-201.

    Raises:
        UserInputError: It is not that notation; the message says where.
    """
    answers = {}
    for v, group in enumerate(text.strip().split("+"), start=1):
        found = re.fullmatch(r"\|((?:[^|~]+~\d+\|)+)", group)
        edges = found.group(1).rstrip("|").split("|") if found else []
        if len(edges) != v:
            raise UserInputError(
                f"{text!r}: node {v} should read {v} nodes, as in |op~0|op~1|, not {group!r}"
            )
        for u, edge in enumerate(edges):
            op, _, source = edge.partition("~")
            if int(source) != u:
                raise UserInputError(f"{text!r}: edge {u} of node {v} starts at {source}, not {u}")
            if op not in OPS:
                raise UserInputError(f"{text!r}: no op {op!r}", nearest(op, OPS))
            answers[_pick_name(u, v)] = op
    return Architecture(answers)


def _pick_name(u: int, v: int) -> str:
    return f"edge{u}to{v}"


def _add_cell(
    g: GraphBuilder, ops: Mapping[tuple[int, int], str], x: Value, nodes: int, name: str
) -> Value:
    """Add one cell; a node into which nothing leads is zero."""
    values = [x]
    for v in range(1, nodes):
        parts = [
            _op(g, ops[u, v], values[u], f"{name}/{u}to{v}") for u in range(v) if ops[u, v] != NONE
        ]
        total = parts[0] if parts else g.zero(x)
        for each in parts[1:]:
            total = g.sum(total, each)
        values.append(total)
    return values[-1]


def _op(g: GraphBuilder, op: str, x: Value, name: str) -> Value:
    if op == SKIP:
        return x
    if op == AVG_POOL:
        return g.avg_pool(x)
    kernel = 3 if op == CONV3X3 else 1
    weights = f"{name}/conv{kernel}x{kernel}"
    return g.conv_bn(x, channels=x.shape[0], kernel=kernel, relu="before", weights=weights)


def _reduce(g: GraphBuilder, x: Value, channels: int, name: str) -> Value:
    """Two convolutions beside an average and a 1×1 convolution (`ResNetBasicblock`)."""
    y = g.conv_bn(x, channels=channels, kernel=3, stride=2, relu="before", weights=f"{name}/conv_a")
    y = g.conv_bn(y, channels=channels, kernel=3, relu="before", weights=f"{name}/conv_b")
    short = g.avg_pool(x, kernel=2, stride=2)
    return g.sum(g.conv(short, channels=channels, kernel=1, weights=f"{name}/short"), y)
