"""The convolutional space of the first neural architecture search, of variable depth.

Source: Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", sections 3.1, 3.3
and 4.1, by its abstract and by what two readers noted of it in public; the network of its figure 7
as a third one typed it. No code was published. What is marked *unverified* is from memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from hwnas.graph import Answer, Graph, GraphBuilder, Pick, Shape, Value
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, Published, SearchSpace
from hwnas.spaces._published_zoph_cnn import published


@SPACES.register("zoph_cnn")
class ZophCnn(SearchSpace):
    """Zoph & Le's space: of each layer its inputs, filter, strides and number of filters.

    Order of the picks of a layer: which earlier layers it reads (the anchor point), filter height,
    filter width, stride height, stride width, number of filters; strides only where there is more
    than one. (That the anchor point comes first is unverified.)

    Whatever is picked can be built, by the repairs of section 3.3: a layer without inputs reads
    the image; several inputs are concatenated, smaller ones padded with zeros; all layers that no
    other reads are concatenated before the classifier. A layer is a convolution, batch norm and
    ReLU. Where the zeros go (around the image), and that the classifier takes the mean over the
    image, is ours; so is the form of the paper's pooling layers (`pool_after`): 2×2, stride 2.

    **Depth.** It is the first pick, fixed where `min_depth` is `max_depth`. With `depth_every` it
    is not searched but raised by `depth_step` whenever so many architectures have been sampled, as
    in the paper: by 2 every 1,600, from 6 on.

    Weights have the names of everything that decides their shape and of their layer, so that
    children can share them; the paper trains every child from scratch.
    """

    class Config(PluginConfig):
        """Settings of `zoph_cnn`; the options are the published ones (CIFAR-10)."""

        min_depth: int = Field(6, ge=1, description="fewest layers")
        max_depth: int = Field(14, ge=1, description="most layers")
        depth_step: int = Field(2, ge=1, description="layers between two depths")
        depth_every: int | None = Field(
            None,
            ge=1,
            description="samples after which the depth is raised by a step, from min_depth on "
            "(published: 1600); null: the depth is searched",
        )
        heights: tuple[int, ...] = Field((1, 3, 5, 7), description="filter heights, odd")
        widths: tuple[int, ...] = Field((1, 3, 5, 7), description="filter widths, odd")
        filters: tuple[int, ...] = Field((24, 36, 48, 64), description="numbers of filters")
        strides: tuple[int, ...] = Field(
            (1,), description="strides in both directions, picked where there are several: 1, 2, 3"
        )
        pool_after: tuple[int, ...] = Field(
            (), description="layers followed by max pooling, from 0 (third experiment: 12, 23)"
        )
        extra_filters: int = Field(
            0, ge=0, description="added to each number (largest network: 40, unverified)"
        )

        @model_validator(mode="after")
        def _check(self) -> ZophCnn.Config:
            if self.min_depth > self.max_depth:
                raise ValueError(f"min_depth {self.min_depth} is above max_depth {self.max_depth}")
            for name in ("heights", "widths", "filters", "strides"):
                options = getattr(self, name)
                if not options or len(set(options)) < len(options) or min(options) < 1:
                    raise ValueError(f"{name}: {list(options)} must be different positive numbers")
            if any(size % 2 == 0 for size in (*self.heights, *self.widths)):
                raise ValueError("heights and widths must be odd")
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @classmethod
    def published(cls) -> Mapping[str, Published]:
        """Return the network of the first experiment."""
        return published()

    def build(self, pick: Pick) -> Graph:
        """Add layer after layer, repair their inputs, and join what is left unread."""
        c = self.config
        depth = c.min_depth
        if c.max_depth > c.min_depth:
            depth = pick.integer("depth", c.min_depth, c.max_depth, c.depth_step)

        g = GraphBuilder(self.input_shape)
        layers: list[Value] = []
        read: set[int] = set()
        for layer in range(depth):
            inputs = pick.predecessors(f"layer{layer}/inputs", layer)
            read |= set(inputs)
            x = join(g, [layers[i] for i in inputs]) if inputs else g.input
            layers.append(self._add_layer(g, x, pick, layer))
        leaves = [layer for i, layer in enumerate(layers) if i not in read]
        x = join(g, leaves)
        return g.finish(g.classifier(x, classes=self.classes, weights=f"head{x.shape[0]}"))

    def scheduled(self, samples: int) -> Mapping[str, Answer]:
        """Return the depth after so many samples, where it follows a schedule (section 4.1)."""
        c = self.config
        if c.depth_every is None or c.max_depth == c.min_depth:
            return {}
        steps = min(samples // c.depth_every, (c.max_depth - c.min_depth) // c.depth_step)
        return {"depth": c.min_depth + c.depth_step * steps}

    def size(self) -> int:
        """Return Σ over depths d of options^d · 2^(d (d - 1) / 2)."""
        c = self.config
        options = len(c.heights) * len(c.widths) * len(c.strides) ** 2 * len(c.filters)
        depths = range(c.min_depth, c.max_depth + 1, c.depth_step)
        return sum(int(options**d * 2 ** (d * (d - 1) // 2)) for d in depths)

    def _add_layer(self, g: GraphBuilder, x: Value, pick: Pick, layer: int) -> Value:
        c = self.config
        name = f"layer{layer}"
        height = pick.one_of(f"{name}/filter_height", c.heights)
        width = pick.one_of(f"{name}/filter_width", c.widths)
        stride = (c.strides[0], c.strides[0])
        if len(c.strides) > 1:
            stride = (
                pick.one_of(f"{name}/stride_height", c.strides),
                pick.one_of(f"{name}/stride_width", c.strides),
            )
        filters = pick.one_of(f"{name}/filters", c.filters) + c.extra_filters
        x = g.conv_bn(
            x,
            channels=filters,
            kernel=(height, width),
            stride=stride,
            relu="after",
            weights=f"{name}/{height}x{width}/{x.shape[0]}to{filters}",
        )
        if layer in c.pool_after and min(x.shape[1:]) > 1:
            x = g.max_pool(x, kernel=2, stride=2, padding="valid")
        return x


def join(g: GraphBuilder, images: Sequence[Value]) -> Value:
    """Concatenate images along the channels; smaller ones are padded with zeros."""
    size = (max(x.shape[1] for x in images), max(x.shape[2] for x in images))
    padded = [x if x.shape[1:] == size else g.pad_to(x, size=size) for x in images]
    return g.concat(*padded) if len(padded) > 1 else padded[0]
