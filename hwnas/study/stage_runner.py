"""The run behind a study: its folder, its stages, and what prices its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.engine.progress import Progress, Silent
from hwnas.engine.run_folder import RunFolder
from hwnas.errors import UserInputError
from hwnas.study import results
from hwnas.study.config import RunConfig
from hwnas.study.context import Context
from hwnas.study.journal import Journal
from hwnas.study.load import load_config
from hwnas.study.outcome import OnStage, new_run_path

if TYPE_CHECKING:
    from hwnas.study.pricing import Pricing


class StageRunner:
    """Does stages once, in one run folder, and says what they found.

    Args:
        config: A configuration, a file of one, the name of a recipe, or a mapping as the file
            would give it; None for the defaults.
        overrides: ``a.b=value`` each, as after ``--set``.
        progress: Told how far long tasks are.
        on_stage: Told of each finished stage.

    Raises:
        ConfigError: The configuration has mistakes; all are listed.
        UserInputError: There is no such file or recipe.
    """

    def __init__(
        self,
        config: RunConfig | str | Path | Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        *,
        progress: Progress | None = None,
        on_stage: OnStage | None = None,
    ) -> None:
        if isinstance(config, RunConfig):
            config = config.to_mapping()
        self.config = load_config(config, overrides)
        self.context = Context(self.config)
        self.folder: Path | None = None
        self.command = ""
        self._progress: Progress = progress or Silent()
        self._on_stage = on_stage
        self._said: set[str] = set()
        self._pricing: Pricing | None = None

    def pricing(self) -> Pricing:
        """Return what predicts the latency of the space's networks, measuring first if needed."""
        if self._pricing is None:
            from hwnas.study.pricing import Pricing, Unpriced
            from hwnas.study.tables import blocks_of, obtain

            if self.config.latency.skip:
                self._pricing = Unpriced(self.context)
                return self._pricing
            blocks = blocks_of(self.config.latency.table)
            if blocks is not None:
                from hwnas.study.block_pricing import BlockPricing

                self._pricing = BlockPricing(self.context, blocks)
                return self._pricing
            self._pricing = Pricing(self.context, obtain(self.context, self.folder, self._progress))
        return self._pricing

    def _profile_stage(self, journal: Journal) -> Pricing:
        def work() -> dict[str, Any]:
            return self.pricing().save(journal.path.parent)

        self._stage(journal, "profile", work, lambda value: str(value["summary"]))
        return self.pricing()

    def _stage(
        self,
        journal: Journal,
        key: str,
        work: Callable[[], Any],
        summary: Callable[[Any], str] | None,
    ) -> Any:
        """Do a stage unless it is finished; say what it found."""
        value, seconds = journal.once(key, work)
        if summary is not None:
            self._say(key, summary(value), seconds)
        return value

    def _say(self, stage: str, summary: str, seconds: float) -> None:
        if self._on_stage is not None and stage not in self._said:
            self._said.add(stage)
            self._on_stage(stage, summary, seconds)

    def _new_or_own(self, out: Path | None, on_folder: Callable[[Path], None] | None) -> RunFolder:
        """Return the study's run folder, locked; a new one where it has none."""
        if self.folder is not None:
            folder = self._own()
        else:
            path = out or new_run_path(self.config.name)
            config = self.config.to_mapping()
            folder = RunFolder.create(path, config, seed=self.config.seed, command=self.command)
            self.folder = folder.path
            self._pricing = None  # its table may be in memory only: the run needs one of its own
        if on_folder is not None:
            on_folder(folder.path)
        return folder

    def _own(self) -> RunFolder:
        """Return the study's run folder, locked."""
        return RunFolder.open(self._need_folder(), self.config.to_mapping())

    def _need_folder(self) -> Path:
        if self.folder is None:
            raise UserInputError("this study has no run yet", "call search() first")
        return self.folder

    def _write_results(self, folder: RunFolder, journal: Journal) -> None:
        found = results.collect(folder, journal, self.context.device.fingerprint.to_json())
        found.write(folder.path / "results.json")
