"""The parts that a configuration describes, built when they are first needed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from hwnas.data import DATASETS, Dataset
from hwnas.errors import UserInputError
from hwnas.spaces import SPACES, SearchSpace
from hwnas.spaces._given import given_architecture
from hwnas.strategies import STRATEGIES, Strategy
from hwnas.study.config import RunConfig
from hwnas.study.sections import Plugin

if TYPE_CHECKING:
    from hwnas.latency.device import Device


@contextmanager
def training_mode(threads: int | None) -> Iterator[None]:
    """Let torch train with a number of threads and without denormal numbers; then put it back.

    Numbers too small to matter cost a hundred times as much as others on a CPU.

    Args:
        threads: None leaves torch's own choice.
    """
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


class Context:
    """Builds data set, space, strategy and device of a configuration.

    Args:
        config: The configuration.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @cached_property
    def dataset(self) -> Dataset:
        """The data set; nothing is read before a split is asked for."""
        section = self.config.data
        return DATASETS.get(section.name)(section.settings)  # type: ignore[arg-type]

    @cached_property
    def space(self) -> SearchSpace:
        """The search space for the images of the data set."""
        space = self._space(self.config.space)
        if self.config.architecture is not None:
            space.given = given_architecture(self.config.architecture, space)
        return space

    @cached_property
    def deployed(self) -> SearchSpace:
        """The space with the settings of the final training: it asks the same picks.

        Its networks are what is trained, priced and exported; the search may run on smaller ones.

        Raises:
            UserInputError: `train.space` changes what the space asks.
        """
        if not self.config.train.space:
            return self.space
        deployed = self._space(self.config.deployed_space())
        try:
            deployed.graph(self.space.sample(random.Random(0)))
        except UserInputError as error:
            raise UserInputError(
                f"train.space changes what the space asks: {error.message}",
                "it may make the same architecture deeper or wider, not another one",
            ) from error
        deployed.given = self.space.given
        return deployed

    def _space(self, section: Plugin) -> SearchSpace:
        plugin = SPACES.get(section.name)
        return plugin(section.settings, self.dataset.input_shape, self.dataset.classes)

    @cached_property
    def device(self) -> Device:
        """This machine with the configured runtime, or the one that an imported table is of."""
        from hwnas.latency.device import Device
        from hwnas.study.tables import imported_table

        imported = imported_table(self.config.latency.table)
        if imported is not None:
            return Device.elsewhere(imported.fingerprint)

        section = self.config.latency.runtime
        return Device.here(section.name, **section.settings.model_dump())

    def new_strategy(self) -> Strategy:
        """Return a strategy that has learned nothing yet."""
        section = self.config.strategy
        plugin = STRATEGIES.get(section.name)
        return plugin(section.settings, self.space, self.config.seed)
