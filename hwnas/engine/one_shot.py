"""The one-shot loop: train shared weights on sampled children, then teach the strategy."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from hwnas.data import Dataset
from hwnas.engine.config import SearchConfig
from hwnas.engine.judge import Judge, measured_accuracy
from hwnas.engine.progress import Progress, Silent
from hwnas.engine.run_folder import RunFolder
from hwnas.engine.seeds import derive_seed
from hwnas.engine.snapshot import pack, unpack
from hwnas.engine.trials_db import Trial, TrialState
from hwnas.errors import RunFolderError, TrialFailed
from hwnas.estimators._minibatches import Minibatches
from hwnas.graph import BATCH, TRAIN_SHARED
from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics
from hwnas.spaces import SearchSpace
from hwnas.strategies import UNTOLD_IDS, Scored, Strategy
from hwnas.supernet.tasks import Task
from hwnas.supernet.train import StepResult, Trainer, evaluate, learning_rate
from hwnas.supernet.weights import WeightStore

Track = Callable[[int, Mapping[str, float]], None]
"""Receives the number of finished epochs (or trials) and named numbers."""

_ASK_AHEAD = 64
#: Beyond the steps of any search: an attempt's children have ids of their own.
_STEPS_OF_ALL_EPOCHS = 2**30


class OneShot:
    """Alternates between training shared weights and teaching the strategy (ENAS, Pham 2018).

    An epoch is one pass over the training images, each step on newly sampled children, followed by
    `controller_steps` in which sampled children are scored with the shared weights on one
    validation batch each step, the same for all children of the step. Then a checkpoint is
    written.

    Every random choice is derived from the run's seed and the number of the epoch or step, and a
    checkpoint holds everything else, so a run that was killed at any moment ends, after `run` was
    called again, with the same bits as one that was not (on the same machine, with the same
    number of threads, and without a time budget).

    Args:
        settings: The search's settings.
        folder: Where the run is kept; it may hold earlier epochs.
        space: The search space.
        strategy: New; what it learned before is restored from the folder.
        dataset: The data; the test split is not touched.
        judge: Prices and rewards children.
        store: New; the shared weights.
        progress: Told how far the search is.
        track: Called after each epoch.

    Attributes:
        batches: The batches of the search, for the comparison at its end.
        trainer: Moves the shared weights.
    """

    def __init__(
        self,
        *,
        settings: SearchConfig,
        folder: RunFolder,
        space: SearchSpace,
        strategy: Strategy,
        dataset: Dataset,
        judge: Judge,
        store: WeightStore,
        progress: Progress | None = None,
        track: Track | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.space = space
        self.strategy = strategy
        self.judge = judge
        self.store = store
        self.batches = Minibatches(
            dataset.without_test(), folder.seed, settings.batch_size, settings.valid_batch_size
        )
        task = self.batches.task
        self.trainer = Trainer(store, settings.optimiser, settings.epochs, task)
        self._progress = progress or Silent()
        self._track = track
        self._elapsed_s = 0.0

    def run(self) -> None:
        """Search to the end, from where the folder stands.

        Raises:
            Interrupted: Ctrl-C was pressed; the hint is the command that continues the run.
            TrialFailed: The training diverged.
            RunFolderError: The folder cannot be written, or is damaged.
        """
        with self.folder.running():
            done = self.restore()
            self._progress.start("search", self.settings.epochs)
            self._progress.advance("search", done)
            if done:
                self.folder.events.append("resumed", after=done)
            for epoch in range(done, self.settings.epochs):
                if self._is_out_of_time():
                    self._progress.note(f"the time budget ended the search after {epoch} epochs")
                    break
                self._run_epoch_or_recover(epoch)
                self._progress.advance("search")

    def restore(self) -> int:
        """Go back to the last intact checkpoint and forget what the folder holds beyond it.

        Returns:
            Number of finished epochs; 0 if there is no checkpoint.

        Raises:
            RunFolderError: No checkpoint is intact, or trials are missing.
        """
        checkpoint = self.folder.checkpoints.load_latest(on_damaged=self._report_damage)
        done = 0 if checkpoint is None else checkpoint.step
        trials = self._taught(done) * self._trials_per_epoch
        self.folder.events.roll_back(done)
        self.folder.trials.delete_after(trials - 1)
        if checkpoint is None:
            return 0
        if self.folder.trials.count() != trials:
            raise RunFolderError(
                f"{self.folder.trials.path} holds {self.folder.trials.count()} trials, the "
                f"checkpoint {done} needs {trials}",
                "restore it from a copy, or start in a new folder",
            )
        unpack(checkpoint, self.store, self.strategy, self.trainer)
        self._elapsed_s = checkpoint.state["elapsed_s"]
        return done

    def _taught(self, epochs: int) -> int:
        """Return in how many of the first epochs the strategy learns."""
        return max(0, epochs - self.settings.teach_from)

    @property
    def _trials_per_epoch(self) -> int:
        return self.settings.controller_steps * self.settings.controller_samples

    def _run_epoch_or_recover(self, epoch: int) -> None:
        """Run an epoch; where training diverges, roll back and begin it with other children.

        google-research's enas_lm rolls back to the last checkpoint when the loss is not finite.
        """
        for attempt in range(self.settings.recoveries + 1):
            try:
                self._run_epoch(epoch, attempt)
            except TrialFailed as error:
                if attempt == self.settings.recoveries:
                    raise
                if not self.restore():  # there is no checkpoint yet
                    self.store.load({})
                    self.trainer.optimiser.load({})
                text = f"{error.message}; epoch {epoch + 1} begins anew with other children"
                self.folder.events.append("warning", text=text, attempt=attempt + 1)
                self._progress.note(f"warning: {text}")
            else:
                return

    def _run_epoch(self, epoch: int, attempt: int = 0) -> None:
        start = time.monotonic()
        trained = self._train(epoch, attempt)
        middle = time.monotonic()
        taught = self._teach(epoch)
        end = time.monotonic()
        self._elapsed_s += end - start
        values: dict[str, float] = {
            **trained,
            **taught,
            **{f"strategy/{name}": value for name, value in self.strategy.diagnostics().items()},
            "learning_rate": learning_rate(self.settings.optimiser, epoch, self.settings.epochs),
            "seconds_train": middle - start,
            "seconds_teach": end - middle,
            "elapsed_s": self._elapsed_s,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        self._save(epoch + 1, values)
        if self._track is not None:
            self._track(epoch + 1, values)
        self._progress.note(_summary(self.batches.task, epoch + 1, self.settings.epochs, values))

    def _save(self, step: int, values: Mapping[str, Any]) -> None:
        # Trials and events reach the disk before the checkpoint that refers to them.
        self.folder.events.append("epoch", step=step, **values)
        self.folder.events.sync()
        self.folder.trials.sync()
        tensors, state = pack(self.store, self.trainer, self.strategy)
        state["elapsed_s"] = self._elapsed_s
        self.folder.checkpoints.save(step, tensors, state)

    def _train(self, epoch: int, attempt: int) -> dict[str, float]:
        """Train the shared weights for one epoch; returns means over its steps."""
        again: list[str | int] = ["again", attempt] if attempt else []
        torch.manual_seed(derive_seed(self.folder.seed, "train", epoch, *again))
        count = self.batches.train_count
        self._progress.start("shared weights", count)
        results: list[StepResult] = []
        children = self._children(attempt * _STEPS_OF_ALL_EPOCHS + epoch * count, count)
        for step, batch in enumerate(self.batches.train(epoch)):
            graphs = [self.space.graph(architecture) for architecture in next(children)]
            results.append(self.trainer.step(graphs, batch, epoch + step / count, TRAIN_SHARED))
            self._progress.advance("shared weights")
        return {
            "loss": statistics.fmean(each.loss for each in results),
            "train_accuracy": statistics.fmean(each.accuracy for each in results),
            "gradient_norm": statistics.fmean(each.gradient_norm for each in results),
        }

    def _children(self, first: int, count: int) -> Iterator[list[Architecture]]:
        """Yield the children of `count` training steps, asked for many at a time."""
        each = self.settings.children_per_step
        for start in range(first, first + count, _ASK_AHEAD):
            stop = min(start + _ASK_AHEAD, first + count)
            ids = range(UNTOLD_IDS + start * each, UNTOLD_IDS + stop * each)
            asked = self.strategy.ask(ids)
            for i in range(0, len(asked), each):
                yield asked[i : i + each]

    def _teach(self, epoch: int) -> dict[str, float]:
        """Score children and tell the strategy; returns a summary of all trials of the epoch."""
        if not self._taught(epoch + 1):
            return {}
        torch.manual_seed(derive_seed(self.folder.seed, "teach", epoch))
        steps = self.settings.controller_steps
        self._progress.start("strategy", steps)
        trials: list[Trial] = []
        first = self._taught(epoch) * steps
        for step in range(first, first + steps):
            scored = self._score(step, epoch)
            self.folder.trials.put(scored)
            self.strategy.tell([Scored(t.id, t.architecture, t.reward) for t in scored])
            trials += scored
            self._progress.advance("strategy")
        return self._summarise(trials)

    def _score(self, step: int, epoch: int) -> list[Trial]:
        """Evaluate the children of one step on one validation batch."""
        started = time.time()
        first = step * self.settings.controller_samples
        ids = range(first, first + self.settings.controller_samples)
        architectures = self.strategy.ask(ids)
        priced = dict(zip(architectures, self.judge.price(architectures), strict=True))
        batch = self.batches.valid(step)
        metrics: dict[Architecture, Metrics] = {}
        for architecture, price in priced.items():  # each once, however often it was sampled
            graph, task = self.space.graph(architecture), self.batches.task
            accuracy = evaluate(graph, self.store, [batch], BATCH, task)
            metrics[architecture] = self.judge.complete(price, measured_accuracy(accuracy))
        finished = time.time()
        return [
            self._trial(id, architecture, metrics[architecture], epoch, started, finished)
            for id, architecture in zip(ids, architectures, strict=True)
        ]

    def _trial(
        self,
        id: int,
        architecture: Architecture,
        metrics: Metrics,
        epoch: int,
        started: float,
        finished: float,
    ) -> Trial:
        reward = self.judge.score(metrics)
        return Trial(
            id,
            TrialState.FAILED if reward is None else TrialState.COMPLETE,
            architecture,
            metrics,
            reward,
            epoch,
            started,
            finished,
            "the reward is not a finite number" if reward is None else None,
        )

    def _summarise(self, trials: list[Trial]) -> dict[str, float]:
        known = [trial for trial in trials if trial.reward is not None]
        if not known:
            return {"failed_trials": len(trials)}
        metrics = [trial.metrics for trial in known if trial.metrics is not None]
        rewards = [trial.reward for trial in known if trial.reward is not None]
        latencies = [each.latency_ms for each in metrics if each.latency_ms is not None]
        values = {
            "failed_trials": len(trials) - len(known),
            "accuracy_mean": statistics.fmean(each.accuracy for each in metrics),
            "accuracy_max": max(each.accuracy for each in metrics),
            "reward_mean": statistics.fmean(rewards),
            "reward_max": max(rewards),
            "infeasible_share": sum(not self.judge.is_feasible(m) for m in metrics) / len(metrics),
            "distinct_children": len({trial.architecture for trial in trials}),
        }
        if latencies:
            values["latency_mean_ms"] = statistics.fmean(latencies)
        return values

    def _is_out_of_time(self) -> bool:
        budget = self.settings.time_budget_s
        return budget is not None and self._elapsed_s >= budget

    def _report_damage(self, step: int, error: RunFolderError) -> None:
        self.folder.events.append("warning", text=error.message, checkpoint=step)
        self._progress.note(f"warning: {error.message}; the one before it is used")


def _summary(task: Task, epoch: int, epochs: int, values: Mapping[str, float]) -> str:
    text = f"epoch {epoch}/{epochs}: loss {values['loss']:.3f}"
    if "accuracy_mean" in values:
        text += f", {task.quality} {task.text(values['accuracy_mean'])}"
    for name, label, form in (
        ("reward_mean", "reward", ".3f"),
        ("strategy/entropy", "entropy", ".2f"),
        ("infeasible_share", "over budget", ".0%"),
    ):
        if name in values:
            text += f", {label} {format(values[name], form)}"
    return text
