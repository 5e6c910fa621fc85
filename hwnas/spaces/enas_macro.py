"""The macro space of ENAS: a whole network, layer by layer.

Source: Pham et al. 2018, section 2.3, and the authors' code (`general_child.py`,
`general_controller.py`, `scripts/cifar10_macro_search.sh` and `cifar10_macro_final.sh`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from hwnas.graph import Architecture, Graph, GraphBuilder, Pick, Shape, Value
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace
from hwnas.spaces._enas_macro_arc import ARC_FORM, OPS, read_arc, write_arc
from hwnas.spaces._published_enas_macro import published
from hwnas.spaces._text import numbers_of

__all__ = ["OPS", "EnasMacro"]

#: What a layer computes before its skips: an op, or by channels (first, count) of each op.
Choice = str | Mapping[str, tuple[int, int]]


@SPACES.register("enas_macro")
class EnasMacro(SearchSpace):
    """ENAS macro: each layer picks an op and which earlier outputs are added to its own.

    The op reads the layer before it. Bit `i` of a layer's `skips` is output `i` of those before
    that one: 0 is the stem, `i` is layer `i - 1`; so layer `k` has `k` bits, and none stands for
    the output that its op reads, as in the code.

    Order of the picks of a layer, as published: its op, then its skips. By channels
    (`whole_channels: false`) there is no op: all branches run, and for each the first channel and
    their number are picked; the filters of a branch are that range of larger ones.

    The `search` form: 1×1 convolution → batch norm → ReLU → op (a convolution is followed by batch
    norm and ReLU, a pooling by nothing); the layer is the batch norm of op + Σ skipped. The
    `final` form doubles the channels at each reduction and joins the skips by ReLU →
    concatenation → 1×1 convolution → batch norm. In both, every output so far passes a
    factorised reduction of its own after layers L/3 - 1 and 2L/3 - 1.

    Deviations from the authors' code, where it does not do what the paper says:

    - The sampled op is run. (Theirs closes over one variable, so every branch is the last one.)
    - The final form knows separable convolutions and poolings. (Theirs trains plain convolutions
      for the ids 0 to 3, and fails for 4 and 5; by channels, a call lacks an argument.) They
      follow the search form, after a ReLU; by channels, the number of a range is what is trained,
      and its first channel means nothing.
    - Weights start from N(0, 2 / fan_in); only weights that a child uses move in its step; the
      last layer has a bias. Outputs that nothing reads are not computed, and not counted.
    - By channels, the number's options depend on the first channel, so the controller has a
      vocabulary for each such list (theirs masks one softmax).
    """

    class Config(PluginConfig):
        """Settings of `enas_macro`; the defaults are the published search (CIFAR-10)."""

        layers: int = Field(12, ge=3, description="layers after the stem")
        channels: int = Field(36, ge=2, description="channels; final: before the first reduction")
        ops: tuple[str, ...] = Field(
            OPS, min_length=1, description="ops of a layer; one only: connections are searched"
        )
        whole_channels: bool = Field(
            True, description="a layer picks one op; false: a range of channels for each op"
        )
        form: Literal["search", "final"] = Field(
            "search", description="how skips are joined: sums, or projections and doubled width"
        )
        channel_scale: int = Field(
            1, ge=1, description="multiplies all channels, picked ones included (final training)"
        )
        dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the classifier")

        @model_validator(mode="after")
        def _check(self) -> EnasMacro.Config:
            unknown = sorted(set(self.ops) - set(OPS))
            if unknown:
                raise ValueError(f"ops: {unknown} unknown; known: {', '.join(OPS)}")
            if len(set(self.ops)) < len(self.ops):
                raise ValueError(f"ops: {list(self.ops)} names an op twice")
            if self.channels * self.channel_scale % 2:
                raise ValueError(f"channels: {self.channels} must be even to be halved")
            if self.channel_scale > 1 and self.form == "search":
                raise ValueError("channel_scale: only the final form can be scaled")
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the network of the authors' script, as named and as their code trains it."""
        return published()

    def build(self, pick: Pick) -> Graph:
        """Stack the layers, and reduce all outputs so far after a third and two thirds of them."""
        c = self.config
        channels = c.channels * c.channel_scale
        third = c.layers // 3

        g = GraphBuilder(self.input_shape)
        outputs = [g.conv_bn(g.input, channels=channels, kernel=3, weights="stem")]
        for layer in range(c.layers):
            choice = self._pick_layer(pick, layer)
            skips = pick.predecessors(f"layer{layer}/skips", layer)
            x = self._add_op(g, outputs[-1], choice, channels, f"layer{layer}")
            outputs.append(self._join(g, x, outputs, skips, f"layer{layer}/skip"))
            if layer in (third - 1, 2 * third - 1):
                channels *= 2 if c.form == "final" else 1
                outputs = [
                    g.factorized_reduction(x, channels=channels, weights=f"reduce{layer}/from{i}")
                    for i, x in enumerate(outputs)
                ]
        logits = g.classifier(outputs[-1], classes=self.classes, dropout=c.dropout, weights="head")
        return g.finish(logits)

    def parse(self, text: str) -> Architecture:
        """Read an arc of the authors' code: op and skip bits of each layer.

        By channels, the first channel and the number of channels of each op stand for the op.
        """
        return read_arc(numbers_of(text, ARC_FORM), *self._arc_form())

    def format(self, architecture: Architecture) -> str:
        """Return the arc as the authors' scripts have it."""
        return write_arc(architecture, *self._arc_form())

    def _arc_form(self) -> tuple[int, tuple[str, ...] | None]:
        """Return the layers, and the ops where each has a range of channels."""
        c = self.config
        return c.layers, None if c.whole_channels else c.ops

    def size(self) -> int:
        """Return choices^L · 2^(L (L - 1) / 2): 6^L of ops, or the ranges of each op."""
        c = self.config
        choices = len(c.ops)
        if not c.whole_channels:
            ranges = sum(_most(c.channels, first) for first in range(c.channels))
            choices = int(ranges ** len(c.ops))
        return int(choices**c.layers * 2 ** (c.layers * (c.layers - 1) // 2))

    def _pick_layer(self, pick: Pick, layer: int) -> Choice:
        """Pick the op; by channels, the first one and their number (at most all but one).

        The number's name contains the first channel, because its options depend on that.
        """
        c = self.config
        if c.whole_channels:
            return pick.one_of(f"layer{layer}/op", c.ops)
        ranges = {}
        for op in c.ops:
            first = pick.integer(f"layer{layer}/first_{op}", 0, c.channels - 1)
            count = pick.integer(
                f"layer{layer}/count_{op}_from{first}", 1, _most(c.channels, first)
            )
            ranges[op] = (first, count)
        return ranges

    def _add_op(self, g: GraphBuilder, x: Value, choice: Choice, channels: int, name: str) -> Value:
        is_final = self.config.form == "final"
        if isinstance(choice, str):
            path = f"{name}/{choice}"
            x = g.relu(x) if is_final else x
            x = g.conv_bn(x, channels=channels, relu="after", weights=f"{path}/reduce")
            return _whole_op(g, x, choice, channels, path, relu=not is_final)
        if not is_final:
            return _ranges(g, x, choice, channels, name)
        branches = []
        for op, (_, count) in choice.items():
            path = f"{name}/{op}"
            count *= self.config.channel_scale
            y = g.conv_bn(
                x,
                channels=count if "pool" in op else channels,
                relu="after",
                weights=f"{path}/reduce",
            )
            branches.append(_whole_op(g, y, op, count, path, relu=False))
        joined = g.relu(g.concat(*branches) if len(branches) > 1 else branches[0])
        return g.conv_bn(joined, channels=channels, weights=f"{name}/join")

    def _join(
        self, g: GraphBuilder, x: Value, outputs: Sequence[Value], skips: Sequence[int], name: str
    ) -> Value:
        """Add the skips to a layer; the first layer has none and no norm of its own."""
        if len(outputs) == 1:
            return x
        if self.config.form == "search":
            for i in skips:
                x = g.sum(x, outputs[i])
            return g.batch_norm(x, weights=f"{name}/bn")
        return g.concat_conv_bn(
            *(outputs[i] for i in skips),
            x,
            channels=x.shape[0],
            sources=(*(f"from{i}" for i in skips), "op"),
            weights=name,
        )


def _most(channels: int, first: int) -> int:
    """Return how many channels a range may have; the code's softmax leaves out all of them."""
    return max(1, min(channels - 1, channels - first))


def _kernel(op: str) -> int:
    return int(op[-1])


def _whole_op(g: GraphBuilder, x: Value, op: str, channels: int, name: str, *, relu: bool) -> Value:
    """Add an op to its 1×1 convolution."""
    if op.startswith("conv"):
        where = "after" if relu else "none"
        return g.conv_bn(x, channels=channels, kernel=_kernel(op), relu=where, weights=name)
    if op.startswith("sep_conv"):
        # Its own ReLU comes first, and changes nothing here.
        x = g.sep_conv(x, channels=channels, kernel=_kernel(op), stages=1, weights=name)
        return g.relu(x) if relu else x
    return g.avg_pool(x) if op.startswith("avg") else g.max_pool(x)


def _ranges(
    g: GraphBuilder, x: Value, ranges: Mapping[str, tuple[int, int]], channels: int, name: str
) -> Value:
    """Run every op on its range of channels, and put the ranges together (`final_conv`)."""
    branches = []
    for op, part in ranges.items():
        path = f"{name}/{op}"
        if "pool" in op:
            # A pooling keeps channels apart: those that are cut off afterwards are not computed.
            y = _ranged_conv(g, x, channels, part, 1, f"{path}/reduce")
            branches.append(g.avg_pool(y) if op.startswith("avg") else g.max_pool(y))
            continue
        y = g.conv_bn(x, channels=channels, relu="after", weights=f"{path}/reduce")
        kernel = _kernel(op)
        if op.startswith("sep_conv"):
            y = g.conv(
                y, channels=channels, kernel=kernel, groups=channels, weights=f"{path}/depthwise"
            )
            kernel = 1
        branches.append(_ranged_conv(g, y, channels, part, kernel, path))
    rows = tuple((i * channels + first, n) for i, (first, n) in enumerate(ranges.values()))
    x = g.ranged_conv(
        g.concat(*branches) if len(branches) > 1 else branches[0],
        channels=channels,
        outputs=(0, channels),
        in_channels=len(ranges) * channels,
        inputs=rows,
        weights=f"{name}/join",
    )
    return g.relu(g.batch_norm(x, weights=f"{name}/join/bn"))


def _ranged_conv(
    g: GraphBuilder, x: Value, channels: int, part: tuple[int, int], kernel: int, name: str
) -> Value:
    x = g.ranged_conv(x, channels=channels, outputs=part, kernel=kernel, weights=f"{name}/conv")
    return g.relu(g.ranged_batch_norm(x, channels=channels, first=part[0], weights=f"{name}/bn"))
