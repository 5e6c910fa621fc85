from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from hwnas.engine import Interrupted, Silent
from hwnas.engine.config import SearchConfig
from hwnas.engine.executors import EXECUTORS, Executor
from hwnas.engine.judge import Judge
from hwnas.engine.run_folder import RunFolder
from hwnas.engine.trials import TrialsLoop
from hwnas.engine.trials_db import Trial, TrialState
from hwnas.errors import HwnasError, RunFolderError, TrialFailed
from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics
from hwnas.registry import PluginConfig
from hwnas.strategies import Strategy

Make = Callable[..., RunFolder]


class Killed(BaseException):
    """Stands for a kill: nothing in the engine handles it."""


def accuracy_of(architecture: Architecture) -> float:
    """A made-up accuracy: 3x3 kernels and depth are good."""
    kernels = [value for name, value in architecture.items() if name.endswith("kernel")]
    return sum(kernel == 3 for kernel in kernels) / 10 + 0.1


def evaluate(architecture: Architecture, trial_id: int) -> Metrics:
    return Metrics(accuracy=accuracy_of(architecture), latency_ms=None, train_time_s=None)


class Shuffled(Executor):
    """Four calls at once, finished in any order."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(PluginConfig(), self._late)
        self._function = function
        self._rng = random.Random(1)
        self._threads = ThreadPoolExecutor(4)

    @property
    def workers(self) -> int:
        return 4

    def submit(self, *arguments: Any) -> Future[Any]:
        return self._threads.submit(self.function, *arguments)

    def close(self) -> None:
        self._threads.shutdown()

    def _late(self, *arguments: Any) -> Any:
        time.sleep(self._rng.uniform(0.0, 0.02))
        return self._function(*arguments)


@pytest.fixture
def loop(small: ModuleType, folder: Make) -> Callable[..., TrialsLoop]:
    """Makes a loop in the run folder, with new objects as a new process would make them."""

    def make(
        function: Callable[..., Metrics] = evaluate,
        *,
        executor: Executor | None = None,
        judge: Judge | None = None,
        progress: Any = None,
        strategy: str = "enas",
        **settings: Any,
    ) -> TrialsLoop:
        run = folder()
        kind = EXECUTORS.get("serial")
        search = small.build(run, strategy)
        return TrialsLoop(
            settings=SearchConfig(loop="trials", **{"trials": 25, **settings}),
            folder=run,
            strategy=search.strategy,
            judge=judge or Judge(reward=lambda metrics: metrics.accuracy),
            executor=executor or kind(kind.Config(), function),
            progress=progress,
        )

    return make


def rows(run: RunFolder) -> list[Trial]:
    return [replace(trial, started=None, finished=None) for trial in run.trials.all()]


def learned(strategy: Strategy) -> Any:
    state = strategy.state_dict()
    return {name: value.tobytes() for name, value in state["tensors"].items()}, state["json"]


def test_every_trial_is_evaluated_told_and_stored(loop: Callable[..., TrialsLoop]) -> None:
    search = loop()
    search.run()
    trials = search.folder.trials.all()
    assert [trial.id for trial in trials] == list(range(25))
    for trial in trials:
        assert trial.state is TrialState.COMPLETE
        assert trial.reward == accuracy_of(trial.architecture)
        assert trial.started is not None
        assert trial.finished is not None
        assert trial.started <= trial.finished
    assert learned(search.strategy)[1]["learned"] == 20  # groups of ten
    assert search.folder.state == "finished"
    events = [event for event in search.folder.events.read() if event["kind"] == "trial"]
    assert [event["step"] for event in events] == list(range(1, 26))
    assert events[-1]["reward_max"] == max(event["reward"] for event in events)


def test_predictions_win_over_measurements(loop: Callable[..., TrialsLoop]) -> None:
    judge = Judge(
        reward=lambda m: m.accuracy - (m.latency_ms or 0) - (m.train_time_s or 0),
        predict_latency=lambda some: [0.25] * len(some),
    )

    def measured(architecture: Architecture, trial_id: int) -> Metrics:
        return Metrics(accuracy=0.5, latency_ms=9.0, train_time_s=2.0)

    search = loop(measured, judge=judge, trials=1)
    search.run()
    [trial] = search.folder.trials.all()
    assert trial.metrics == Metrics(accuracy=0.5, latency_ms=0.25, train_time_s=2.0)
    assert trial.reward == 0.5 - 0.25 - 2.0


@pytest.mark.parametrize("moment", [1, 2, 11, 25])
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(
    loop: Callable[..., TrialsLoop], small: ModuleType, folder: Make, moment: int
) -> None:
    def bomb(architecture: Architecture, trial_id: int) -> Metrics:
        if trial_id == moment - 1:
            raise Killed
        return evaluate(architecture, trial_id)

    with pytest.raises(Killed):
        loop(bomb).run()
    pending = folder().trials.all(TrialState.PENDING)
    assert [trial.id for trial in pending] == [moment - 1]
    resumed = loop()
    resumed.run()
    result = rows(resumed.folder), learned(resumed.strategy)

    run = folder("whole")
    whole = TrialsLoop(
        settings=resumed.settings,
        folder=run,
        strategy=small.build(run, "enas").strategy,
        judge=resumed.judge,
        executor=resumed.executor,
    )
    whole.run()
    assert result == (rows(run), learned(whole.strategy))


def test_what_is_learned_does_not_depend_on_the_order_of_results(
    loop: Callable[..., TrialsLoop],
) -> None:
    search = loop(executor=Shuffled(evaluate), strategy="random", trials=22)
    search.run()
    trials = search.folder.trials.all()
    assert [trial.id for trial in trials] == list(range(22))
    assert all(trial.reward == accuracy_of(trial.architecture) for trial in trials)


def test_pending_trials_of_a_killed_parallel_run_are_evaluated_under_their_id(
    loop: Callable[..., TrialsLoop], folder: Make
) -> None:
    class Stop(Silent):
        left = 7

        def advance(self, task: str, steps: int = 1) -> None:
            self.left -= 1
            if not self.left:
                raise Killed

    with pytest.raises(Killed):
        loop(executor=Shuffled(evaluate), progress=Stop()).run()
    before = folder().trials.all()
    pending = [trial for trial in before if trial.state is TrialState.PENDING]
    assert pending
    search = loop()
    search.run()
    after = search.folder.trials.all()
    assert [t.architecture for t in after[: len(before)]] == [t.architecture for t in before]
    assert all(trial.state is TrialState.COMPLETE for trial in after)
    assert len(after) == 25


def test_one_failed_trial_is_recorded_and_the_search_goes_on(
    loop: Callable[..., TrialsLoop],
) -> None:
    def sometimes(architecture: Architecture, trial_id: int) -> Metrics:
        if trial_id == 3:
            raise TrialFailed("diverged")
        if trial_id == 4:
            raise MemoryError
        return evaluate(architecture, trial_id)

    search = loop(sometimes)
    search.run()
    failed = search.folder.trials.all(TrialState.FAILED)
    assert [(t.id, t.reward, t.error) for t in failed] == [
        (3, None, "diverged"),
        (4, None, "MemoryError()"),
    ]
    assert learned(search.strategy)[1]["learned"] == 20


def test_a_search_in_which_everything_fails_gives_up_with_the_reason(
    loop: Callable[..., TrialsLoop],
) -> None:
    def never(architecture: Architecture, trial_id: int) -> Metrics:
        raise TrialFailed("no disk to read from")

    search = loop(never, max_failures=4)
    with pytest.raises(
        HwnasError, match="4 trials in a row failed, the last with: no disk"
    ) as caught:
        search.run()
    assert "--resume" in str(caught.value.hint)
    assert search.folder.trials.count() == 4
    loop().run()


def test_ctrl_c_keeps_what_is_finished(loop: Callable[..., TrialsLoop]) -> None:
    def press(architecture: Architecture, trial_id: int) -> Metrics:
        if trial_id == 5:
            raise KeyboardInterrupt
        return evaluate(architecture, trial_id)

    search = loop(press)
    with pytest.raises(Interrupted, match="the run is saved"):
        search.run()
    assert len(search.folder.trials.all(TrialState.COMPLETE)) == 5
    assert search.folder.info["state"] == "interrupted"


def test_the_time_budget_ends_the_search_after_a_trial(loop: Callable[..., TrialsLoop]) -> None:
    search = loop(time_budget_s=1e-9)
    search.run()
    assert search.folder.trials.count() == 1
    loop(time_budget_s=1e-9).run()
    assert search.folder.trials.count() == 1


def test_missing_trials_are_noticed(loop: Callable[..., TrialsLoop], folder: Make) -> None:
    loop().run()
    run = folder()
    keep = run.trials.all()
    run.trials.delete_after(-1)
    run.trials.put(keep[:3] + keep[4:])
    with pytest.raises(RunFolderError, match="some trials are missing"):
        loop().run()
