"""The search itself: is the budget possible, the loop, and the comparison at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.engine.derive import Candidate, Derivation
from hwnas.engine.judge import Judge
from hwnas.engine.one_shot import OneShot, Track
from hwnas.engine.progress import Progress
from hwnas.engine.run_folder import RunFolder
from hwnas.engine.seeds import derive_seed
from hwnas.engine.trials import TrialsLoop
from hwnas.engine.trials_db import Trial, TrialState
from hwnas.errors import HwnasError, InfeasibleConstraint, TrialFailed
from hwnas.estimators._minibatches import Minibatches
from hwnas.graph.architecture import Architecture
from hwnas.objectives import REWARDS, Targets
from hwnas.objectives.pareto import front
from hwnas.spaces import SearchSpace
from hwnas.study.context import Context
from hwnas.study.picks import descend
from hwnas.supernet.weights import WeightStore
from hwnas.tracking import Trackers

if TYPE_CHECKING:
    from hwnas.study.config import RunConfig

Predict = Callable[[Sequence[Architecture]], Sequence[float]]

_SAMPLES = 200
_STARTS = 3
_TRIALS_TO_COMPARE = 16


@dataclass(frozen=True)
class Feasibility:
    """How fast the networks of a space are, and the budget among them.

    Attributes:
        budget_ms: What a network may take; None without a budget.
        fastest_ms: The fastest network that was looked at.
        low_ms: A tenth of random networks are at least as fast.
        median_ms: Half of them are.
        high_ms: Nine tenths of them are.
        share: Share of random networks within the budget.
    """

    budget_ms: float | None
    fastest_ms: float
    low_ms: float
    median_ms: float
    high_ms: float
    share: float

    @property
    def summary(self) -> str:
        """One line for people."""
        space = (
            f"predicted {self.fastest_ms:.3g} (fastest) to {self.high_ms:.3g} ms (slowest tenth)"
        )
        if self.budget_ms is None:
            return space
        return f"budget {self.budget_ms:.3g} ms: {self.share:.0%} of the space · {space}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def examine_train_time(
    config: RunConfig, space: SearchSpace, seconds: Predict, limit: float
) -> None:
    """Find out whether any network of the space trains within a budget of seconds.

    Raises:
        InfeasibleConstraint: None does; the message has the fastest predicted training.
    """
    rng = random.Random(derive_seed(config.seed, "feasibility"))
    samples = [space.sample(rng) for _ in range(_SAMPLES)]
    times = seconds(samples)
    start = samples[min(range(len(samples)), key=lambda i: times[i])]
    fastest = descend(space, start, seconds)[1]
    if fastest > limit:
        raise InfeasibleConstraint(
            f"no architecture in space {config.space.name!r} trains in {limit:g} s: the fastest "
            f"one is predicted to need {fastest:.3g} s",
            f"raise objective.max_train_time_s to {1.05 * fastest:.2g} or more, or lower "
            "train.epochs",
        )


def examine_budget(config: RunConfig, space: SearchSpace, predict: Predict) -> Feasibility:
    """Find out whether any network of the space can meet the budget.

    Of 200 random networks the fastest is compared with the budget; only if it does not meet it, a
    faster one is looked for by changing one decision at a time.

    Raises:
        InfeasibleConstraint: None can; the message has the fastest predicted latency.
    """
    rng = random.Random(derive_seed(config.seed, "feasibility"))
    samples = [space.sample(rng) for _ in range(_SAMPLES)]
    times = np.array(predict(samples), np.float64)
    fastest = float(times.min())
    low, median, high = (float(each) for each in np.quantile(times, [0.1, 0.5, 0.9]))
    objective = config.objective
    budget = objective.max_latency_ms
    if budget is None and objective.latency_percentile is not None:
        budget = float(np.quantile(times, objective.latency_percentile / 100))
    if budget is not None and budget < fastest:
        for index in np.argsort(times)[:_STARTS]:
            fastest = min(fastest, descend(space, samples[int(index)], predict)[1])
    if budget is not None and budget < fastest:
        raise InfeasibleConstraint(
            f"no architecture in space {config.space.name!r} meets {budget:.3g} ms: the fastest "
            f"one is predicted at {fastest:.3g} ms, half of the space at {median:.3g} ms or less",
            f"raise --max-latency-ms to {1.05 * fastest:.2g} or more, or allow smaller networks "
            "(hwnas ls spaces --json shows the settings of the space)",
        )
    share = 1.0 if budget is None else float(np.mean(times <= budget))
    return Feasibility(budget, fastest, low, median, high, share)


class Search:
    """One search in a run folder.

    Args:
        context: The parts of the run.
        folder: The run folder; what it holds is continued.
        predict: Predicts latency in ms; None where it plays no part.
        budget_ms: The latency budget.
        predict_train_time: Predicts training time in s, where it has a budget.
        progress: Told how far the search is.
    """

    def __init__(
        self,
        context: Context,
        folder: RunFolder,
        predict: Predict | None,
        budget_ms: float | None,
        predict_train_time: Predict | None,
        progress: Progress,
    ) -> None:
        self.context = context
        self.settings = context.config.search
        self.folder = folder
        self.progress = progress
        self.dataset = context.dataset.without_test()
        self.judge = self._new_judge(predict, budget_ms, predict_train_time)

    def run(self) -> list[Candidate]:
        """Search to the end and compare the best; returns candidates, best reward first.

        Where the configuration gives an architecture, that is the only candidate, and nothing is
        known of its accuracy.

        Raises:
            Interrupted: Ctrl-C; the run folder holds all that is needed to go on.
            TrialFailed: Training diverged.
            InfeasibleConstraint: No candidate keeps to the budgets.
        """
        given = self.context.space.given
        if given is not None:
            (price,) = self.judge.price([given])
            unknown = float("nan")
            return [Candidate(given, unknown, price.latency_ms, unknown, price.train_time_s)]
        steps = self.folder.checkpoints.steps()
        first = steps[-1] + 1 if steps else 1
        if self.settings.loop == "trials":
            first = 1 + len(self.folder.trials.all(TrialState.COMPLETE, TrialState.FAILED))
        with (
            self.folder.running(),
            Trackers(self.context.config.trackers, self.folder.path, first) as trackers,
        ):
            if self.settings.loop == "trials":
                return self._run_trials(trackers.log)
            return self._run_one_shot(trackers.log)

    def _run_one_shot(self, track: Track) -> list[Candidate]:
        strategy = self.context.new_strategy()
        store = WeightStore(derive_seed(self.folder.seed, "weights"))
        OneShot(
            settings=self.settings,
            folder=self.folder,
            space=self.context.space,
            strategy=strategy,
            dataset=self.dataset,
            judge=self.judge,
            store=store,
            progress=self.progress,
            track=track,
        ).run()
        derivation = Derivation(
            settings=self.settings,
            space=self.context.space,
            strategy=strategy,
            store=store,
            batches=Minibatches(
                self.dataset,
                self.folder.seed,
                self.settings.batch_size,
                self.settings.valid_batch_size,
            ),
            judge=self.judge,
            progress=self.progress,
        )
        return derivation.run(also=self._best_trials())

    def _run_trials(self, track: Track) -> list[Candidate]:
        from hwnas.engine.executors import EXECUTORS
        from hwnas.estimators import ESTIMATORS

        config = self.context.config
        estimator = ESTIMATORS.get(config.estimator.name)(
            config.estimator.settings,
            space=self.context.space,
            dataset=self.dataset,
            seed=config.seed,
        )
        executor = EXECUTORS.get(config.executor.name)
        with executor(config.executor.settings, estimator.evaluate) as workers:
            TrialsLoop(
                settings=self.settings,
                folder=self.folder,
                strategy=self.context.new_strategy(),
                judge=self.judge,
                executor=workers,
                progress=self.progress,
                track=track,
            ).run()
        return self._trials_as_candidates()

    def _trials_as_candidates(self) -> list[Candidate]:
        best: dict[Architecture, Candidate] = {}
        for trial in self._complete():
            assert trial.metrics is not None
            assert trial.reward is not None
            if not self.judge.is_feasible(trial.metrics):
                continue
            known = best.get(trial.architecture)
            if known is None or trial.reward > known.reward:
                best[trial.architecture] = Candidate(
                    trial.architecture,
                    trial.metrics.accuracy,
                    trial.metrics.latency_ms,
                    trial.reward,
                    trial.metrics.train_time_s,
                )
        failed = self.folder.trials.all(TrialState.FAILED)
        if not best and len(failed) == self.folder.trials.count():
            raise TrialFailed(
                f"all {len(failed)} trials failed, the last with: {failed[-1].error}",
                "remove the cause, then start in a new folder",
            )
        if not best:
            raise InfeasibleConstraint(
                f"none of {self.folder.trials.count()} trials keeps to the budgets",
                "raise the budget, try more, or use a reward that punishes excess more",
            )
        return sorted(best.values(), key=lambda each: (-each.reward, each.latency_ms or 0.0))

    def _best_trials(self) -> list[Architecture]:
        """Return the trials worth a second look: the front of those within the budgets.

        A trial's accuracy is that of one validation batch, so only the order counts.
        """
        trials = [
            trial
            for trial in self._complete()
            if trial.metrics is not None and self.judge.is_feasible(trial.metrics)
        ]
        points = [(t.metrics.accuracy, t.metrics.latency_ms or 1.0) for t in trials if t.metrics]
        on_front = [trials[int(i)] for i in front(points)]
        by_reward = sorted(trials, key=lambda t: -(t.reward or 0.0))
        found = dict.fromkeys(t.architecture for t in (*on_front, *by_reward))
        return list(found)[:_TRIALS_TO_COMPARE]

    def _complete(self) -> list[Trial]:
        return self.folder.trials.all(TrialState.COMPLETE)

    def _new_judge(
        self, predict: Predict | None, budget_ms: float | None, predict_train_time: Predict | None
    ) -> Judge:
        objective = self.context.config.objective
        if objective.max_train_time_s is not None and predict_train_time is None:
            raise HwnasError("a budget for the training time needs a prediction of it")
        targets = Targets(budget_ms, objective.max_train_time_s)
        reward = REWARDS.get(objective.reward.name)(objective.reward.settings, targets)  # type: ignore[arg-type]
        return Judge(
            reward=reward.reward,
            predict_latency=predict,
            predict_train_time=predict_train_time,
            max_latency_ms=budget_ms,
            max_train_time_s=objective.max_train_time_s,
        )
