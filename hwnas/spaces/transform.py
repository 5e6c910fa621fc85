"""Transformations of a network that exists: scale a layer, insert one, remove one.

Sources: Zhou et al. 2018 (Resource-Efficient Neural Architect, arXiv 1806.07912), abstract: a
policy network reads an existing network and proposes changes of it, under limits of resources.
That it has the three actions scale, insert and remove, and all details of them here, is unverified:
only the abstract was at hand. Chen et al. 2016 (Net2Net), for what a change keeps of the weights
(`hwnas.supernet.inherit`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, model_validator

from hwnas.errors import UserInputError
from hwnas.graph import Architecture, Graph, Pick, Shape
from hwnas.graph.transform import Transformed
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, SearchSpace
from hwnas.spaces._given import PUBLISHED, given_architecture

if TYPE_CHECKING:
    import numpy as np

    from hwnas.graph.from_onnx import Imported

Action = Literal["scale", "insert", "remove"]
STOP = "stop"
#: A depthwise convolution of one channel could not be told from a full one.
_FEWEST_CHANNELS = 2
#: Networks that are built to count a space exactly, 0.5 to 4 ms each.
_COUNTED = 1500
_PROBED = 100

_DEFAULT_PICKS = {
    "width": 16,
    "depth": 2,
    "layer0/op": "conv",
    "layer0/kernel": 3,
    "layer1/op": "sep_conv",
    "layer1/kernel": 3,
}


class Base(PluginConfig):
    """The network that is changed: an architecture of another space, or an ONNX file."""

    space: str = Field("conv_chain", description="name of its space")
    settings: dict[str, Any] | None = Field(
        None, description="settings of its space; without them those of the published network"
    )
    architecture: dict[str, Any] | str = Field(
        _DEFAULT_PICKS, description="its picks, a JSON file with them, or published:NAME"
    )
    onnx: str | None = Field(None, description="an ONNX file instead, for the same images")

    @model_validator(mode="after")
    def _check(self) -> Base:
        if self.onnx is not None:
            for name in ("space", "settings", "architecture"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} and onnx are two networks: give one")
        try:
            self.config()
        except UserInputError as error:
            raise ValueError(f"space: {error.message}. {error.hint}") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(each) for each in ("settings", *first["loc"]))
            raise ValueError(f"{place}: {first['msg']}") from None
        return self

    def config(self) -> PluginConfig:
        """Return the settings of the network's space."""
        plugin = SPACES.get(self.space)
        settings = self.settings
        if settings is None and isinstance(self.architecture, str):
            name = self.architecture.removeprefix(PUBLISHED).strip()
            found = plugin.published().get(name)
            settings = None if found is None else dict(found.settings)
        return plugin.Config.model_validate(settings or {})

    def imported(self) -> Imported | None:
        """Read the ONNX file, if there is one.

        Raises:
            UserInputError: It cannot be read, or has unsupported operators.
        """
        if self.onnx is None:
            return None
        from hwnas.graph.from_onnx import from_onnx

        return from_onnx(self.onnx)

    def graph(self, input_shape: Shape, classes: int) -> Graph:
        """Build the network.

        Raises:
            UserInputError: The architecture is not of the space, or cannot be read.
        """
        space = SPACES.get(self.space)(self.config(), input_shape, classes)
        architecture = given_architecture(self.architecture, space)
        return space.graph(Architecture(architecture))


@SPACES.register("transform")
class Transform(SearchSpace):
    """A given network and what a few changes make of it: scale, insert, remove layers.

    Picks: ``step0/action``, with ``stop`` for no further change; then ``step0/layer``, the layer by
    the name of its weights; then ``step0/factor`` of its channels or ``step0/kind`` of the layer
    that is inserted at it; then ``step1/action`` …. What is offered depends on the network that the
    earlier steps made.

    Layers whose channels must be equal, as those before a sum, are scaled together; where a
    change is possible is said in `hwnas.graph.transform`. Children share the weights of layers
    that have the same name, channels and kind of input: those that no change touched.
    """

    class Config(PluginConfig):
        """Settings of `transform`."""

        base: Base = Field(Base(), description="the network that is changed")
        steps: int = Field(3, ge=1, description="most changes")
        actions: tuple[Action, ...] = Field(
            ("scale", "insert", "remove"), min_length=1, description="which changes there are"
        )
        factors: tuple[float, ...] = Field(
            (0.5, 0.75, 1.25, 1.5, 2.0), description="by which channels are scaled"
        )
        divisor: int = Field(1, ge=1, description="scaled channels are multiples of this")

        @model_validator(mode="after")
        def _check(self) -> Transform.Config:
            for name in ("actions", "factors"):
                options = getattr(self, name)
                if len(set(options)) < len(options):
                    raise ValueError(f"{name}: {list(options)} names an option twice")
            if any(factor <= 0 for factor in self.factors):
                raise ValueError(f"factors: {list(self.factors)} must be positive")
            return self

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    @cached_property
    def base(self) -> Transformed:
        """The network that is changed."""
        if self._imported is None:
            return Transformed.base(self.config.base.graph(self.input_shape, self.classes))
        graph = self._imported.graph
        wanted = (self.input_shape, (self.classes,))
        found = (graph.input_shape, graph.nodes[graph.outputs[0]].shape)
        if found != wanted:
            raise UserInputError(
                f"base: {self.config.base.onnx} maps {found[0]} to {found[1]}, the data is "
                f"{wanted[0]} to {wanted[1]}"
            )
        return Transformed.base(graph)

    @property
    def base_weights(self) -> Mapping[str, np.ndarray[Any, Any]] | None:
        """The base's weights by name, if it was read from a file that has them."""
        return None if self._imported is None else self._imported.weights

    @cached_property
    def _imported(self) -> Imported | None:
        return self.config.base.imported()

    def build(self, pick: Pick) -> Graph:
        """Build the network after the picked changes."""
        network = self.base
        for step in range(self.config.steps):
            options = self._options(network)
            action = pick.one_of(f"step{step}/action", (STOP, *options))
            if action == STOP:
                break
            layers = options[action]
            layer = pick.one_of(f"step{step}/layer", tuple(layers))
            how: Any = None
            if layers[layer]:
                name = "factor" if action == "scale" else "kind"
                how = pick.one_of(f"step{step}/{name}", layers[layer])
            network = self._changed(network, action, layer, how, step)
        return network.graph

    def size(self) -> int:
        """Return the number of sequences of changes.

        They are counted by walking through the networks that they lead to; where these are more
        than `_COUNTED`, estimated: the product of the numbers of options along a random sequence is
        right on average (Knuth 1975, "Estimating the efficiency of backtrack programs"). The mean
        of `_PROBED` of them is returned, rounded to two digits.
        """
        left = _COUNTED
        last = self.config.steps - 1

        def count(network: Transformed, step: int) -> int:
            nonlocal left
            left -= 1
            total = 1
            for change in self._changes(network):
                if left < 0:
                    break
                total += (
                    1 if step == last else count(self._changed(network, *change, step), step + 1)
                )
            return total

        found = count(self.base, 0)
        return found if left >= 0 else self._estimated_size()

    def _estimated_size(self) -> int:
        rng = random.Random(0)
        total = 0
        for _ in range(_PROBED):
            network, product = self.base, 1
            for step in range(self.config.steps):
                options = [None, *self._changes(network)]
                product *= len(options)
                change = rng.choice(options)
                if change is None:
                    break
                network = self._changed(network, *change, step)
            total += product
        return int(float(f"{total / _PROBED:.1e}"))

    def _changes(self, network: Transformed) -> Iterator[tuple[str, str, Any]]:
        """Yield action, layer and factor or kind of all that can be done to a network."""
        for action, layers in self._options(network).items():
            for layer, ways in layers.items():
                for how in ways or (None,):
                    yield action, layer, how

    def _options(self, network: Transformed) -> dict[str, dict[str, tuple[Any, ...]]]:
        """Return by action and layer the factors or kinds; what has none is not offered."""
        found: dict[str, dict[str, tuple[Any, ...]]] = {
            "scale": {
                layer: factors
                for layer, channels in network.scalable().items()
                if (factors := tuple(self._channels(channels)))
            },
            "insert": dict(network.insertable()),
            "remove": dict.fromkeys(network.removable(), ()),
        }
        return {each: found[each] for each in self.config.actions if found[each]}

    def _channels(self, channels: int) -> dict[float, int]:
        """Return the scaled channels by factor, each number once and without the present one."""
        divisor, found = self.config.divisor, dict[float, int]()
        for factor in self.config.factors:
            scaled = max(1, round(channels * factor / divisor)) * divisor
            if scaled >= _FEWEST_CHANNELS and scaled not in (channels, *found.values()):
                found[factor] = scaled
        return found

    def _changed(
        self, network: Transformed, action: str, layer: str, how: Any, step: int
    ) -> Transformed:
        if action == "scale":
            return network.scaled(layer, self._channels(network.scalable()[layer])[how])
        if action == "insert":
            return network.inserted(layer, how, step)
        return network.removed(layer)
