"""Tasks: what differs between kinds of data. One file a task.

A task knows in which batches the data comes, what the loss of a child is, and what its score is.
Every score is one number in [0, 1], larger is better, so that strategies, rewards and reports need
not know which task they serve.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from hwnas.registry import Registry

if TYPE_CHECKING:
    import torch

    from hwnas.data import AnySplit, Dataset
    from hwnas.graph import Graph, RunMode
    from hwnas.supernet.config import OptimiserConfig
    from hwnas.supernet.weights import WeightStore


class Window(NamedTuple):
    """A part of a text, for a few columns of it at once.

    Attributes:
        tokens: `[N, T]` int64.
        targets: `[N, T]` int64, the token that follows each; -100 where there is none.
        follows: Whether it goes on where the window before ended, so that states are carried over.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    follows: bool


Batch: TypeAlias = "tuple[torch.Tensor, torch.Tensor] | Window"


@dataclass(frozen=True)
class Outcome:
    """What running a child on one batch gave.

    Attributes:
        loss: What training lowers, with all that is added to the cross-entropy.
        mean: Mean cross-entropy alone.
        total: Sum from which the score is made: right answers, or log-likelihoods.
        count: Number of answers in `total`.
        carried: States for the window that follows.
    """

    loss: torch.Tensor
    mean: float
    total: float
    count: int
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Task(ABC):
    """What is learned from a data set; it has no state.

    Attributes:
        quality: What the score says, in a word for people.
        unit: Of `drawn`, with a space before it; empty for none.
        better: Whether ``more`` or ``less`` of the quality is better.
    """

    quality: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[str]

    @abstractmethod
    def run(
        self,
        graph: Graph,
        store: WeightStore,
        batch: Batch,
        mode: RunMode,
        config: OptimiserConfig,
        carried: Mapping[str, torch.Tensor],
    ) -> Outcome:
        """Run a child on a batch.

        Args:
            graph: The child.
            store: The weights.
            batch: One of this task's batches.
            mode: How batch norm and dropout behave.
            config: What is added to the loss.
            carried: States of the batch before, by name.
        """

    @abstractmethod
    def score(self, total: float, count: int) -> float:
        """Return the score in [0, 1] of summed outcomes."""

    @abstractmethod
    def drawn(self, score: float) -> float:
        """Return the quality as a number with `unit`, for axes of figures."""

    @abstractmethod
    def text(self, score: float, decimals: int = 1) -> str:
        """Return a score for people in terms of `quality`, such as ``93.1 %``."""

    @abstractmethod
    def steps(self, dataset: Dataset, size: int) -> int:
        """Return the number of training batches of an epoch."""

    @abstractmethod
    def epoch(self, dataset: Dataset, size: int, seed: int) -> Iterator[Batch]:
        """Yield the training batches of an epoch, a function of the seed alone.

        Raises:
            UserInputError: A batch is larger than the data.
        """

    @abstractmethod
    def plain(self, dataset: Dataset, size: int, seed: int, count: int) -> list[Batch]:
        """Return up to `count` training batches as the data has them, for statistics."""

    @abstractmethod
    def valid_steps(self, dataset: Dataset, size: int) -> int:
        """Return the number of full validation batches."""

    @abstractmethod
    def valid(self, dataset: Dataset, size: int, seed: int, number: int) -> Batch:
        """Return one validation batch; `number` is below `valid_steps`."""

    @abstractmethod
    def whole(self, dataset: Dataset, split: AnySplit, size: int) -> Iterator[Batch]:
        """Yield all of a split, for a final figure."""

    @abstractmethod
    def inputs(self, dataset: Dataset, count: int) -> torch.Tensor:
        """Return up to `count` validation inputs as the network takes them."""

    @abstractmethod
    def card(self, dataset: Dataset) -> dict[str, Any]:
        """Return what whoever uses the exported network must know of its input."""


TASKS: Registry[Task] = Registry("task", "hwnas.supernet.tasks")


def task_of(dataset: Dataset) -> Task:
    """Return the task of a data set."""
    return TASKS.get(dataset.task)()
