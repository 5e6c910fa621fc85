"""Chains of inverted bottlenecks: the space of ProxylessNAS, and MnasNet's by settings.

Sources: Cai et al. 2019 (ProxylessNAS), section 4.2, and the authors' code
(`search/models/super_nets/super_proxyless.py`); Tan et al. 2019 (MnasNet), section 4.1; Sandler et
al. 2018 (MobileNetV2), table 2. Numbers of sections and tables are unverified; the rules are those
of the public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from hwnas.graph import Graph, GraphBuilder, Pick, Shape, Value
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace

#: A number, or (lowest, highest, step) of the numbers to pick from.
Integers: TypeAlias = int | tuple[int, int, int]

ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What a block may be.

    Attributes:
        kernel: Of the depthwise convolution.
        expansion: Expanded / input channels.
        squeeze: Squeezed features / input channels; 0 for none.
    """

    kernel: int
    expansion: int
    squeeze: float

    @property
    def name(self) -> str:
        """The answer that stands for it, such as ``k5_e3`` or ``k5_e3_se0.25``."""
        squeeze = f"_se{self.squeeze}" if self.squeeze else ""
        return f"k{self.kernel}_e{self.expansion}{squeeze}"


class Stage(PluginConfig):
    """Blocks of one image size and one number of channels."""

    channels: Integers = Field(description="output channels, or [lowest, highest, step]")
    blocks: Integers = Field(1, description="blocks, or [lowest, highest, step]")
    stride: int = Field(1, ge=1, le=2, description="step of the first block")
    kernels: tuple[int, ...] | None = Field(None, description="kernels of this stage only")
    expansions: tuple[int, ...] | None = Field(None, description="expansions of this stage only")
    squeezes: tuple[float, ...] | None = Field(None, description="squeezes of this stage only")
    zero: bool | None = Field(None, description="whether blocks of this stage may be left out")

    @field_validator("channels", "blocks")
    @classmethod
    def _check_range(cls, value: Integers) -> Integers:
        return _checked(value)

    @model_validator(mode="after")
    def _check(self) -> Stage:
        _check_options(self.kernels, self.expansions, self.squeezes)
        return self


def _checked(value: Integers) -> Integers:
    low, high, step = _range(value)
    if low < 1 or high < low or step < 1:
        raise ValueError(f"{value} is no positive number and no [lowest, highest, step]")
    return value


def _check_options(
    kernels: tuple[int, ...] | None,
    expansions: tuple[int, ...] | None,
    squeezes: tuple[float, ...] | None,
) -> None:
    found = {"kernels": kernels, "expansions": expansions, "squeezes": squeezes}
    for name, options in found.items():
        if options is not None and (not options or len(set(options)) < len(options)):
            raise ValueError(f"{name}: {list(options)} is empty or names an option twice")
    if any(kernel % 2 == 0 or kernel < 1 for kernel in kernels or ()):
        raise ValueError(f"kernels: {list(kernels or ())} must be odd and positive")
    if any(expansion < 1 for expansion in expansions or ()):
        raise ValueError(f"expansions: {list(expansions or ())} must be positive")
    if any(not 0 <= squeeze <= 1 for squeeze in squeezes or ()):
        raise ValueError(f"squeezes: {list(squeezes or ())} must be from 0 to 1")


def _range(value: Integers) -> tuple[int, int, int]:
    return (value, value, 1) if isinstance(value, int) else value


#: Table of the published search (`imagenet_arch_search.py`): 21 blocks behind a fixed one.
_SEARCHED = (
    Stage(channels=16, kernels=(3,), expansions=(1,), squeezes=(0.0,), zero=False),
    Stage(channels=24, blocks=4, stride=2),
    Stage(channels=40, blocks=4, stride=2),
    Stage(channels=80, blocks=4, stride=2),
    Stage(channels=96, blocks=4),
    Stage(channels=192, blocks=4, stride=2),
    Stage(channels=320),
)


@SPACES.register("mobile")
class Mobile(SearchSpace):
    """A stem, stages of inverted bottlenecks, a 1×1 convolution, a linear layer.

    A block is one choice among kernel × expansion × squeeze, and "zero" where the shape stays:
    the block is left out, its input is its output. A block that keeps the shape has a shortcut.
    Where `channels`, `blocks` or `width` are ranges, they are picked too; what has one option is
    not asked. Picks: ``width``, then of each stage ``stage1/channels``, ``stage1/blocks`` and
    ``stage1/block0/op`` … (or ``stage1/op`` for all its blocks, as MnasNet does).

    The resolution is that of the data: nothing in the network depends on it, so the same
    architecture runs on 224×224 and on 32×32 (with a stem and stages of stride 1 where an image
    has too few pixels) with the same weights at another price.

    Deviations: batch norm has ε = 1e-5 (ProxylessNAS and MnasNet: 1e-3); filters start from
    N(0, 2 / fan_in) (there: 2 / fan_out); windows are padded alike on both sides (MnasNet's
    TensorFlow code pads more below and right where the stride is 2). Of MnasNet's operations there
    are the inverted bottleneck and, with expansion 1, the separable convolution; neither its plain
    convolution nor its pooling instead of a shortcut.
    """

    class Config(PluginConfig):
        """Settings of `mobile`; the defaults are the published search of ProxylessNAS."""

        stages: tuple[Stage, ...] = Field(
            _SEARCHED, min_length=1, description="channels, blocks, stride of each stage"
        )
        kernels: tuple[int, ...] = Field((3, 5, 7), description="depthwise kernels, odd")
        expansions: tuple[int, ...] = Field((3, 6), description="expanded / input channels")
        squeezes: tuple[float, ...] = Field(
            (0.0,), description="squeezed features / input channels of a block; 0 for none"
        )
        zero: bool = Field(True, description="whether a block that keeps the shape may be left out")
        per: Literal["block", "stage"] = Field(
            "block", description="stage: all blocks of a stage are alike, and none is left out"
        )
        width: Integers = Field(
            100, description="% of all channels, or [lowest, highest, step] to pick from"
        )
        divisor: int = Field(8, ge=1, description="scaled channels are multiples of this")
        stem: int = Field(32, ge=1, description="channels of the first convolution")
        stem_stride: int = Field(2, ge=1, le=2, description="step of the first convolution")
        features: int = Field(1280, ge=1, description="channels of the last convolution")
        activation: Literal["relu", "relu6", "swish", "hard_swish"] = Field(
            "relu6", description="activation of all convolutions but the linear ones"
        )
        dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the classifier")

        @field_validator("width")
        @classmethod
        def _check_range(cls, value: Integers) -> Integers:
            return _checked(value)

        @model_validator(mode="after")
        def _check(self) -> Mobile.Config:
            _check_options(self.kernels, self.expansions, self.squeezes)
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return MobileNetV2, the networks of ProxylessNAS, and MnasNet-A1."""
        from hwnas.spaces._published_mobile import PUBLISHED

        return PUBLISHED

    def build(self, pick: Pick) -> Graph:
        """Build the chain; blocks of the same place, op and channels share their weights."""
        c = self.config
        width = _pick_integer(pick, "width", c.width)
        g = GraphBuilder(self.input_shape)
        stem = self._scaled(c.stem, width)
        x = g.conv_bn(g.input, channels=stem, kernel=3, stride=c.stem_stride, weights=f"stem{stem}")
        x = getattr(g, c.activation)(x)
        for i, stage in enumerate(c.stages):
            name = f"stage{i}"
            channels = self._scaled(_pick_integer(pick, f"{name}/channels", stage.channels), width)
            blocks = _pick_integer(pick, f"{name}/blocks", stage.blocks)
            alike = c.per == "stage"
            op = self._pick_op(pick, name, stage, can_be_zero=False) if alike else None
            for j in range(blocks):
                block = f"{name}/block{j}"
                stride = stage.stride if j == 0 else 1
                if not alike:
                    can_be_zero = _keeps_shape(x, channels, stride)
                    op = self._pick_op(pick, block, stage, can_be_zero)
                if op is not None:
                    x = self._add_block(g, x, op, channels, stride, block)
        features = self._scaled(c.features, max(100, width))
        name = f"features/{x.shape[0]}to{features}"
        x = getattr(g, c.activation)(g.conv_bn(x, channels=features, weights=name))
        logits = g.classifier(x, classes=self.classes, dropout=c.dropout, weights=f"head{features}")
        return g.finish(logits)

    def size(self) -> int:
        """Return the number of architectures, stage by stage.

        A stage of n blocks has a · b^(n-1), where a and b are the options of its first and its
        other blocks: b counts "zero", a does if the stage's first block keeps the shape. With one
        op for a stage, that is one choice.
        """
        c = self.config
        alike = c.per == "stage"

        @cache
        def count(i: int, in_channels: int, width: int) -> int:
            if i == len(c.stages):
                return 1
            stage, total = c.stages[i], 0
            for each in _values(stage.channels):
                channels = self._scaled(each, width)
                keeps_shape = stage.stride == 1 and channels == in_channels
                first = len(self._ops(stage, can_be_zero=keeps_shape and not alike))
                other = 1 if alike else len(self._ops(stage, can_be_zero=True))
                ways = sum(first * other ** (blocks - 1) for blocks in _values(stage.blocks))
                total += ways * count(i + 1, channels, width)
            return total

        return sum(count(0, self._scaled(c.stem, width), width) for width in _values(c.width))

    def _ops(self, stage: Stage, can_be_zero: bool) -> tuple[Bottleneck | None, ...]:
        """Return what a block may be; None leaves it out."""
        c = self.config
        found = [
            Bottleneck(kernel, expansion, squeeze)
            for kernel in stage.kernels or c.kernels
            for expansion in stage.expansions or c.expansions
            for squeeze in stage.squeezes or c.squeezes
        ]
        zero = c.zero if stage.zero is None else stage.zero
        return (*found, None) if zero and can_be_zero else tuple(found)

    def _pick_op(self, pick: Pick, name: str, stage: Stage, can_be_zero: bool) -> Bottleneck | None:
        ops = {op.name if op else ZERO: op for op in self._ops(stage, can_be_zero)}
        names = tuple(ops)
        return ops[names[0] if len(names) == 1 else pick.one_of(f"{name}/op", names)]

    def _add_block(
        self, g: GraphBuilder, x: Value, op: Bottleneck, channels: int, stride: int, name: str
    ) -> Value:
        """Add an inverted bottleneck, with a shortcut if it is one that keeps the shape."""
        y = g.inverted_bottleneck(
            x,
            channels=channels,
            kernel=op.kernel,
            stride=stride,
            expansion=op.expansion,
            activation=self.config.activation,
            squeeze=op.squeeze,
            weights=f"{name}/{op.name}/{x.shape[0]}to{channels}",
        )
        # Not by the shape: one pixel stays one at any stride, and the weights shall not mean
        # something else at another resolution.
        return g.sum(x, y) if _keeps_shape(x, channels, stride) else y

    def _scaled(self, channels: int, width: int) -> int:
        """Return `width` % of some channels, rounded as the published code does.

        The nearest multiple of `divisor`, or the next above it where that takes away more than a
        tenth (`make_divisible`, from the code of MobileNet). At 100 % the channels are as given.
        """
        if width == 100:
            return channels
        wanted, divisor = channels * width / 100, self.config.divisor
        found = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
        return found + divisor if found < 0.9 * wanted else found


def _keeps_shape(x: Value, channels: int, stride: int) -> bool:
    return stride == 1 and x.shape[0] == channels


def _values(value: Integers) -> range:
    low, high, step = _range(value)
    return range(low, high + 1, step)


def _pick_integer(pick: Pick, name: str, value: Integers) -> int:
    low, high, step = _range(value)
    return low if len(_values(value)) == 1 else pick.integer(name, low, high, step)
