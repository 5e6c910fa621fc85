"""`Study`: the Python twin of the command line."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hwnas.engine.progress import Progress
from hwnas.engine.run_folder import RunFolder, RunRecord
from hwnas.errors import UserInputError
from hwnas.graph.architecture import Architecture
from hwnas.report.results import HeadlineRow
from hwnas.study import results, summaries
from hwnas.study.context import training_mode
from hwnas.study.journal import Journal
from hwnas.study.outcome import OnStage, SearchResult
from hwnas.study.picks import chosen, filled
from hwnas.study.stage_runner import StageRunner

if TYPE_CHECKING:
    from hwnas.latency.remote.bundle import Bundle
    from hwnas.study.bench import Bench, Predicted
    from hwnas.study.check import Check
    from hwnas.study.exporting import Exported
    from hwnas.study.pricing import Pricing
    from hwnas.study.remote import Imported
    from hwnas.study.searching import Feasibility
    from hwnas.study.tables import Profiled


class Study(StageRunner):
    """Profile, search, train, export, report: each step once, in one run folder.

    A stage that is finished is never repeated: calling it again returns what it found.

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

    @classmethod
    def open(
        cls,
        run: Path | str,
        *,
        progress: Progress | None = None,
        on_stage: OnStage | None = None,
    ) -> Self:
        """Return the study of an existing run folder.

        Raises:
            RunFolderError: It is not a run, or is damaged.
        """
        record = RunRecord(run)
        study = cls(record.config, progress=progress, on_stage=on_stage)
        study.folder = record.path
        study.command = record.info.get("command", "")
        return study

    def title(self) -> str:
        """Return one line: the device, and what is searched on what."""
        config = self.config
        what = f"{config.data.name} · {config.space.name} · {config.strategy.name}"
        return f"{self.context.device.id}   {what}"

    def check(self) -> Check:
        """Return what the configuration means: size of the space, shapes, where latency is from."""
        from hwnas.study.check import check

        return check(self.config)

    def profile(self, out: Path | None = None, *, compare: Path | None = None) -> Profiled:
        """Measure a latency table of this machine for the space.

        Args:
            out: The file to write; by default the user's table of this device.
            compare: A table to compare the new one with.

        Raises:
            DeviceError: The runtime refuses a network.
            UserInputError: The file cannot be written.
        """
        from hwnas.study.tables import profile_to

        return profile_to(self.context, out, compare, self._progress)

    def bundle(self, path: Path) -> Bundle:
        """Write what a device without hwnas needs to measure itself: `run.py` and models.

        Args:
            path: The zip file.
        """
        from hwnas.study.remote import bundle_to

        return bundle_to(self.context, path, self._progress)

    def profile_over_ssh(self, target: str, out: Path | None = None) -> Imported:
        """Measure another machine, ``user@host:port``, over SSH; return its table.

        Args:
            target: The machine.
            out: The table's file.
        """
        from hwnas.study.remote import profile_over_ssh

        return profile_over_ssh(self.context, target, out, self._progress)

    def feasibility(self) -> Feasibility | None:
        """Find out how fast the networks of the space are, and whether any meets the budget.

        Returns:
            What was found; None where latency plays no part.

        Raises:
            InfeasibleConstraint: None does; the message has the fastest predicted latency.
        """
        from hwnas.study.searching import examine_budget

        if self.config.latency.skip:
            return None
        return examine_budget(self.config, self.context.space, self.pricing().ms)

    def search(
        self, out: Path | None = None, *, on_folder: Callable[[Path], None] | None = None
    ) -> SearchResult:
        """Search; a study that was opened from a run folder goes on where it stopped.

        Args:
            out: The run folder to make; by default a new one below ``runs/``.
            on_folder: Told the run folder before anything long begins.

        Raises:
            InfeasibleConstraint: No architecture of the space meets the budget.
            Interrupted: Ctrl-C; the hint is the command that continues.
            RunFolderError: The folder cannot be used.
        """
        from hwnas.study.stages import search_stage

        # Missing data or picks of another space must not come out after minutes of profiling.
        self.context.deployed, self.context.dataset.train  # noqa: B018
        with training_mode(self.config.threads), self._new_or_own(out, on_folder) as folder:
            journal = Journal(folder.path)
            pricing = self._profile_stage(journal)
            budget = self._stage(journal, "budget", self._budget, None)
            self._check_train_time(journal, pricing)
            search = self._stage(
                journal,
                "search",
                lambda: search_stage(
                    self.context, folder, journal, pricing, budget["budget_ms"], self._progress
                ),
                lambda found: summaries.search(self.config, found),
            )
            self._write_results(folder, journal)
        return SearchResult(folder.path, budget["budget_ms"], results.candidates(search))

    def train(
        self,
        picks: Sequence[str] | None = None,
        *,
        epochs: int | None = None,
        again: bool = False,
    ) -> list[HeadlineRow]:
        """Train picks of the search from scratch; each is evaluated once on the test split.

        Args:
            picks: Roles or ids of architectures; by default `train.picks`.
            epochs: Instead of `train.epochs`.
            again: Train anew what has been trained.

        Returns:
            The rows of the headline table.

        Raises:
            UserInputError: The run has not been searched yet, or there is no such pick.
            TrialFailed: A training diverged.
        """
        from hwnas.study.stages import train_stage

        settings = self.config.train
        if epochs is not None:
            settings = settings.model_copy(update={"epochs": epochs})
        with training_mode(self.config.threads), self._own() as folder:
            journal = Journal(folder.path)
            start, done = time.monotonic(), []
            architectures = chosen(journal, picks or filled(journal, settings.picks))
            if again:  # all at once: a training that is interrupted goes on with those left
                for architecture in architectures:
                    journal.forget(f"train/{architecture.id}")
                    journal.forget(f"export/{architecture.id}")
            for architecture in architectures:
                key = f"train/{architecture.id}"
                known = journal.get(key)
                if epochs is not None and known is not None and known["epochs"] != epochs:
                    raise UserInputError(
                        f"{architecture.id} was trained for {known['epochs']} epochs already",
                        "add --again to train it anew",
                    )
                work = functools.partial(
                    train_stage, self.context, folder.path, architecture, settings, self._progress
                )
                done.append(journal.once(key, work)[0])
            self._say(
                "retrain",
                summaries.train(self.context.dataset.task, done),
                time.monotonic() - start,
            )
            self._write_results(folder, journal)
            return results.headline(journal)

    def export(
        self, pick: str = "best", out: Path | None = None, *, verify: bool = True
    ) -> Exported:
        """Write a trained pick as ONNX, compare it with PyTorch and measure it on the device.

        Args:
            pick: A role, or an architecture's id.
            out: The file; by default ``<pick>.onnx`` in the run folder.
            verify: Compare and measure.

        Raises:
            UserInputError: The pick has not been trained.
            DeviceError: The file computes something else than PyTorch.
        """
        start = time.monotonic()
        with self._own() as folder:
            journal = Journal(folder.path)
            exported = self._export(folder, journal, pick, out, verify=verify)
            self._write_results(folder, journal)
        self._say("export", summaries.export(exported), time.monotonic() - start)
        return exported

    def export_all(self) -> dict[str, Exported]:
        """Export every pick that was trained; a network with two roles is named after `best`.

        Raises:
            UserInputError: No pick has been trained.
            DeviceError: A file computes something else than PyTorch.
        """
        start = time.monotonic()
        with self._own() as folder:
            journal = Journal(folder.path)
            trained = [
                row.role for row in results.headline(journal) if row.train_time_s is not None
            ]
            if not trained:
                raise UserInputError(
                    f"{folder.path} has no trained network", f"hwnas train {folder.path}"
                )
            exports = {
                role: self._export(folder, journal, role, None) for role in reversed(trained)
            }
            self._write_results(folder, journal)
        self._say("export", summaries.export(exports[trained[-1]]), time.monotonic() - start)
        return exports

    def rows(self) -> list[HeadlineRow]:
        """Return the rows of the headline table: what is known of each pick."""
        return results.headline(Journal(self._need_folder()))

    def verify_predictions(self) -> None:
        """Measure networks that took no part in the search, to judge the predictions.

        How many is `latency.check_samples`; 0 measures none.
        """
        from hwnas.study.stages import check_stage

        with self._own() as folder:
            journal = Journal(folder.path)
            pricing = self._profile_stage(journal)
            self._stage(journal, "checks", lambda: check_stage(self.context, pricing), None)
            self._write_results(folder, journal)

    def report(self, out: Path | None = None) -> Path:
        """Write the HTML report; returns the file."""
        from hwnas.study.reporting import write_report

        start = time.monotonic()
        path = write_report([self._need_folder()], out)
        self._say("report", path.name, time.monotonic() - start)
        return path

    def bench(self, model: Path | str, *against: Path | str, rounds: int = 8) -> list[Bench]:
        """Measure ONNX files in turns, and compare with what the table predicts."""
        from hwnas.study.bench import bench

        section = self.config.latency
        files = [Path(each) for each in (model, *against)]
        return bench(
            files,
            runtime=self.context.device,
            rounds=rounds,
            table=section.table,
            progress=self._progress,
        )

    def predict(self, *models: Path | str | Architecture) -> list[Predicted]:
        """Predict the latency of ONNX files, or of architectures of the space."""
        from hwnas.study.bench import predict, predict_architectures

        section = self.config.latency
        files = [Path(each) for each in models if not isinstance(each, Architecture)]
        architectures = [each for each in models if isinstance(each, Architecture)]
        found: list[Predicted] = []
        if files:
            found += predict(files, runtime=self.context.device, table=section.table)
        if architectures:
            found += predict_architectures(self.context.space, self.pricing(), architectures)
        return found

    def _export(
        self,
        folder: RunFolder,
        journal: Journal,
        pick: str,
        out: Path | None,
        *,
        verify: bool = True,
    ) -> Exported:
        from hwnas.study.exporting import Exported
        from hwnas.study.stages import export_stage

        (architecture,) = chosen(journal, [pick])
        key = f"export/{architecture.id}"
        known = journal.get(key)
        is_there = (
            known is not None
            and not Path(known["onnx"]).is_absolute()
            and (folder.path / known["onnx"]).is_file()
        )
        is_unmeasured = known is not None and verify and known["measured_ms"] is None
        if out is not None or not is_there or is_unmeasured:
            journal.forget(key)
        pricing = self._profile_stage(journal)
        work = functools.partial(
            export_stage,
            self.context,
            folder.path,
            journal,
            architecture,
            pricing,
            pick,
            out,
            verify=verify,
        )
        return Exported.from_json(journal.once(key, work)[0])

    def _budget(self) -> dict[str, Any]:
        found = self.feasibility()
        return {"budget_ms": None} if found is None else found.to_json()

    def _check_train_time(self, journal: Journal, pricing: Pricing) -> None:
        """Refuse a budget of training time that nothing can meet, before the search."""
        from hwnas.study.searching import examine_train_time

        limit, seconds = (
            self.config.objective.max_train_time_s,
            pricing.train_time_predictor(journal),
        )
        if limit is not None and seconds is not None:
            examine_train_time(self.config, self.context.space, seconds, limit)
