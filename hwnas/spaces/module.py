"""A space that is any `torch.nn.Module` which marks its choices (docs/guides/your-own-model.md)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.errors import ShapeError, UserInputError
from hwnas.graph import Answer, Architecture, Decision, Graph, Pick, Shape
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, SearchSpace
from hwnas.spaces.torch_modules import loading
from hwnas.spaces.torch_modules.choices import answering, chosen

if TYPE_CHECKING:
    from torch import nn


#: More conditional architectures than these are not counted one by one, but estimated from some.
_COUNTED = 1000
_PROBED = 300
_GRAPHS_KEPT = 64


@SPACES.register("module")
class ModuleSpace(SearchSpace):
    """Your own model: a torch.nn.Module that marks its choices with hwnas.choice and integer.

    The module is made anew for every architecture, traced with `torch.fx`, and converted to ops.
    Weights are named after the module's path, the labels of its choices and their shapes; they
    start as the ops' weights do, not as the module's own (its learned tensors keep zeros and ones).
    """

    class Config(PluginConfig):
        """Settings of `module`."""

        model: str = Field(
            pattern=r"^.+\.py:[^\W\d]\w*$",
            description="the class: path/to/file.py:Class; the file is run",
        )
        settings: dict[str, Any] = Field(
            default_factory=dict, description="arguments of the class's constructor"
        )

    config: Config
    task = None

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)
        # Who samples an architecture builds its graph, and often wants it right afterwards.
        self._graphs: dict[Architecture, Graph] = {}

    @cached_property
    def model(self) -> type[nn.Module]:
        """The user's class; its file is run when this is first asked for."""
        return loading.load_class(self.config.model)

    def build(self, pick: Pick) -> Graph:
        """Make the module with the picks, trace it and convert it.

        Raises:
            UserInputError: The file, the class or a call in it cannot be used.
            ShapeError: It does not return one logit for each class.
        """
        from hwnas.spaces.torch_modules.convert import convert

        module = self._make(pick)
        known = self._graphs.get(pick.architecture)
        if known is not None:
            return known
        dtype = "float32" if len(self.input_shape) > 1 else "int64"
        graph = convert(module, self.input_shape, dtype).graph
        shape = graph.nodes[graph.outputs[0]].shape
        expected: list[Shape] = [(self.classes,)]
        if dtype == "int64":  # a language model answers for each token
            expected.append((*self.input_shape, self.classes))
        if shape not in expected:
            raise ShapeError(
                f"{self.config.model} returns [N, {', '.join(map(str, shape))}], the data has "
                f"{self.classes} classes",
                "return [N, classes]; a constructor that has an argument `classes` is told",
            )
        if len(self._graphs) == _GRAPHS_KEPT:
            del self._graphs[next(iter(self._graphs))]
        self._graphs[pick.architecture] = graph
        return graph

    def module(self, architecture: Architecture | Mapping[str, Answer]) -> nn.Module:
        """Return the user's module with the choices of an architecture, freshly initialised."""
        with chosen(architecture):
            return loading.make(self.model, self.config.settings, self._given)

    def decisions_of(self, answer: Callable[[Decision], Answer]) -> tuple[Decision, ...]:
        """Return the decisions that come up; the module is made, but not traced."""
        pick = Pick(answer)
        self._make(pick)
        return pick.decisions

    def size(self) -> int:
        """Return the number of architectures.

        Where later choices depend on earlier ones, they are counted one by one; beyond
        `_COUNTED`, estimated: the product of the numbers of options along a random architecture
        is right on average (Knuth 1975, "Estimating the efficiency of backtrack programs"). The
        mean of `_PROBED` of them is returned, rounded to two digits.
        """
        try:
            return super().size()
        except UserInputError:
            found = self._count()
        if found is not None:
            return found
        rng = random.Random(0)
        decisions = [self.decisions_of(_uniformly(rng)) for _ in range(_PROBED)]
        mean = sum(math.prod(each.count for each in seen) for seen in decisions) // _PROBED
        return int(float(f"{mean:.1e}")) if mean < 10**300 else mean

    def _count(self) -> int | None:
        """Count the architectures by going through them; None if they are too many."""
        count = 0
        pending: list[tuple[int, ...]] = [()]
        while pending:
            prefix = pending.pop()
            if count == _COUNTED:
                return None
            count += 1
            decisions = self.decisions_of(_beginning_with(prefix))
            for place in range(len(prefix), len(decisions)):
                zeros = (0,) * (place - len(prefix))
                pending += [(*prefix, *zeros, i) for i in range(1, decisions[place].count)]
        return count

    @property
    def _given(self) -> dict[str, Any]:
        return {"input_shape": self.input_shape, "classes": self.classes}

    def _make(self, pick: Pick) -> nn.Module:
        with answering(pick):
            return loading.make(self.model, self.config.settings, self._given)


def _uniformly(rng: random.Random) -> Callable[[Decision], Answer]:
    return lambda decision: decision.decode(rng.randrange(decision.count))


def _beginning_with(prefix: tuple[int, ...]) -> Callable[[Decision], Answer]:
    """Answer as given, then with each first option."""
    rest = iter(prefix)
    return lambda decision: decision.decode(next(rest, 0))


def space_of(model: type[nn.Module], **settings: Any) -> dict[str, Any]:
    """Configure a space of a class: ``Study({"space": hwnas.space_of(MyNet, depth=3)})``.

    Args:
        model: A class at the top level of a file.
        settings: Arguments of its constructor.

    Raises:
        UserInputError: The class is not at the top level of a file.
    """
    return {"name": "module", "model": loading.reference(model), "settings": settings}
