"""The trials loop: ask, evaluate each child on its own, tell."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace

from hwnas.engine.config import SearchConfig
from hwnas.engine.executors import Executor
from hwnas.engine.judge import Judge
from hwnas.engine.progress import Progress, Silent
from hwnas.engine.run_folder import RunFolder
from hwnas.engine.trials_db import Trial, TrialState
from hwnas.errors import HwnasError, RunFolderError
from hwnas.objectives.metrics import Metrics
from hwnas.strategies import Scored, Strategy

Track = Callable[[int, Mapping[str, float]], None]


class TrialsLoop:
    """Evaluates children independently, as many at once as the executor has workers.

    The trials in the folder are all that is needed to go on after a kill: results are told to the
    strategy again, and trials that were under way are evaluated again under their id. With one
    worker a run that was killed ends like one that was not; with several, which results a proposal
    could build on depends on who finished first.

    Args:
        settings: The search's settings.
        folder: Where the run is kept; it may hold earlier trials.
        strategy: New; what it learned before is replayed from the folder.
        judge: Prices and rewards children.
        executor: Runs `Estimator.evaluate`.
        progress: Told how far the search is.
        track: Called after each trial with the number of finished ones.
    """

    def __init__(
        self,
        *,
        settings: SearchConfig,
        folder: RunFolder,
        strategy: Strategy,
        judge: Judge,
        executor: Executor,
        progress: Progress | None = None,
        track: Track | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.strategy = strategy
        self.judge = judge
        self.executor = executor
        self._progress = progress or Silent()
        self._track = track
        self._pending: deque[Trial] = deque()
        self._known = 0  # trials that have an id
        self._finished = 0
        self._failures = 0  # in a row
        self._busy_s = 0.0
        self._best: float | None = None

    def run(self) -> None:
        """Search to the end, from where the folder stands.

        Raises:
            Interrupted: Ctrl-C was pressed; the hint is the command that continues the run.
            HwnasError: Too many trials in a row failed.
            RunFolderError: The folder cannot be written, or is damaged.
        """
        with self.folder.running():
            self.restore()
            self._progress.start("search", self.settings.trials)
            self._progress.advance("search", self._finished)
            if self._known:
                self.folder.events.append("resumed", after=self._finished)
            running: dict[Future[Metrics], Trial] = {}
            while True:
                while len(running) < self.executor.workers and self._has_next():
                    trial = self._next()
                    future = self.executor.submit(trial.architecture, trial.id)
                    running[future] = trial
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda each: running[each].id):
                    self._finish(running.pop(future), future)

    def restore(self) -> int:
        """Tell a new strategy all stored results.

        Returns:
            Number of finished trials.

        Raises:
            RunFolderError: Trials are missing from the folder.
        """
        trials = self.folder.trials.all()
        if [trial.id for trial in trials] != list(range(len(trials))):
            raise RunFolderError(
                f"{self.folder.trials.path}: some trials are missing",
                "restore it from a copy, or start in a new folder",
            )
        finished = [trial for trial in trials if trial.state is not TrialState.PENDING]
        self.strategy.tell([Scored(t.id, t.architecture, t.reward) for t in finished])
        self._pending = deque(t for t in trials if t.state is TrialState.PENDING)
        self._known = len(trials)
        self._finished = len(finished)
        self._busy_s = sum(_duration(trial) for trial in finished)
        self._best = max((t.reward for t in finished if t.reward is not None), default=None)
        return self._finished

    def _has_next(self) -> bool:
        if self._pending:
            return True
        budget = self.settings.time_budget_s
        is_over = budget is not None and self._busy_s / self.executor.workers >= budget
        return self._known < self.settings.trials and not is_over

    def _next(self) -> Trial:
        """Return the next trial to evaluate, stored as pending."""
        if self._pending:
            trial = replace(self._pending.popleft(), started=time.time())
        else:
            [architecture] = self.strategy.ask([self._known])
            trial = Trial(self._known, TrialState.PENDING, architecture, started=time.time())
            self._known += 1
        self.folder.trials.put([trial])
        return trial

    def _finish(self, trial: Trial, future: Future[Metrics]) -> None:
        """Store, tell and report one result."""
        trial = self._result(replace(trial, finished=time.time()), future)
        self.folder.trials.put([trial])
        self.strategy.tell([Scored(trial.id, trial.architecture, trial.reward)])
        self._finished += 1
        self._busy_s += _duration(trial)
        values = self._values(trial)
        self.folder.events.append(
            "trial", step=self._finished, trial=trial.id, error=trial.error, **values
        )
        if self._track is not None:
            self._track(self._finished, values)
        self._progress.advance("search")
        self._check_failures(trial)

    def _result(self, trial: Trial, future: Future[Metrics]) -> Trial:
        try:
            measured = future.result()
            [priced] = self.judge.price([trial.architecture])
            metrics = self.judge.complete(priced, measured)
            reward = self.judge.score(metrics)
        except HwnasError as error:
            return replace(trial, state=TrialState.FAILED, error=error.message)
        except Exception as error:  # one bad child must not end the search
            return replace(trial, state=TrialState.FAILED, error=repr(error))
        if reward is None:
            why = "the reward is not a finite number"
            return replace(trial, state=TrialState.FAILED, metrics=metrics, error=why)
        return replace(trial, state=TrialState.COMPLETE, metrics=metrics, reward=reward)

    def _values(self, trial: Trial) -> dict[str, float]:
        values = {f"strategy/{k}": v for k, v in self.strategy.diagnostics().items()}
        values["seconds"] = _duration(trial)
        if trial.reward is None or trial.metrics is None:
            return values
        self._best = trial.reward if self._best is None else max(self._best, trial.reward)
        values |= {
            "accuracy": trial.metrics.accuracy,
            "reward": trial.reward,
            "reward_max": self._best,
        }
        if trial.metrics.latency_ms is not None:
            values["latency_ms"] = trial.metrics.latency_ms
        if trial.metrics.train_time_s is not None:
            values["train_time_s"] = trial.metrics.train_time_s
        return values

    def _check_failures(self, trial: Trial) -> None:
        """Give up when failure looks like the rule.

        Raises:
            HwnasError: `max_failures` trials in a row failed.
        """
        if trial.state is not TrialState.FAILED:
            self._failures = 0
            return
        self._failures += 1
        self._progress.note(f"trial {trial.id} failed: {trial.error}")
        if self._failures >= self.settings.max_failures:
            raise HwnasError(
                f"{self._failures} trials in a row failed, the last with: {trial.error}",
                f"remove the cause, then continue with: {self.folder.resume_command}",
            )


def _duration(trial: Trial) -> float:
    if trial.started is None or trial.finished is None:
        return 0.0
    return max(trial.finished - trial.started, 0.0)
