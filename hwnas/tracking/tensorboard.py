"""TensorBoard event files, in `<run>/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from hwnas.registry import PluginConfig
from hwnas.tracking import TRACKERS, Tracker


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Writes event files for TensorBoard; look at them with `tensorboard --logdir <run>`."""

    class Config(PluginConfig):
        """It has no settings."""

    def __init__(self, config: PluginConfig, folder: Path, first_step: int = 0) -> None:
        super().__init__(config, folder, first_step)
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step or None)

    @classmethod
    def missing(cls) -> str | None:
        """Tensorboard itself."""
        return None if find_spec("tensorboard") else "tensorboard"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point for each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
