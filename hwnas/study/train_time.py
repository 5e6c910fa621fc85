"""Predicts how long a child trains, from training steps measured on this machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hwnas.engine.seeds import derive_seed
from hwnas.graph import TRAIN, Graph
from hwnas.graph.architecture import Architecture
from hwnas.study.context import Context
from hwnas.study.journal import Journal

_KEY = "train_time"
_CHILDREN = 16
_ROUNDS = 4


def train_time_predictor(
    context: Context, journal: Journal
) -> Callable[[Sequence[Architecture]], Sequence[float]]:
    """Return a function that predicts seconds of training with the settings of `train`.

    A step is the corrected sum over its ops' times, forward and backward (see
    `hwnas.supernet.step_time`). All that was measured is kept in the run, so that a resumed search
    gives the same rewards.
    """
    from hwnas.supernet.step_time import from_json
    from hwnas.supernet.tasks import task_of

    settings = context.config.train
    task = task_of(context.dataset)
    steps = settings.epochs * max(task.steps(context.dataset, settings.batch_size), 1)
    found, _ = journal.once(_KEY, lambda: _measure(context))
    times = from_json(found)

    def predict(architectures: Sequence[Architecture]) -> list[float]:
        return [steps * times.predict(context.space.graph(each)) for each in architectures]

    return predict


def _measure(context: Context) -> dict[str, object]:
    """Time the ops of random children, and whole steps of these to correct the sums with."""
    from hwnas.supernet.step_time import StepTimes

    rng = random.Random(derive_seed(context.config.seed, _KEY))
    graphs = [context.space.graph(context.space.sample(rng)) for _ in range(_CHILDREN)]
    times = StepTimes(min(context.config.train.batch_size, len(context.dataset.train)))
    times.measure(graphs)
    times.fit(graphs, _step_seconds(context, graphs))
    return times.to_json()


def _step_seconds(context: Context, graphs: Sequence[Graph]) -> list[float]:
    """Return the least time of a step of each network, measured in turns."""
    from hwnas.supernet.step_time import least_seconds
    from hwnas.supernet.tasks import task_of
    from hwnas.supernet.train import Trainer
    from hwnas.supernet.weights import WeightStore

    settings, dataset = context.config.train, context.dataset
    task = task_of(dataset)
    (batch,) = task.plain(dataset, min(settings.batch_size, len(dataset.train)), 0, 1)
    trainers = [Trainer(WeightStore(0), settings.optimiser, 1, task) for _ in graphs]
    least = [float("inf")] * len(graphs)
    for _ in range(_ROUNDS):
        for i, (graph, trainer) in enumerate(zip(graphs, trainers, strict=True)):

            def step(trainer: Trainer = trainer, graph: Graph = graph) -> object:
                return trainer.step([graph], batch, 0.0, TRAIN)

            least[i] = min(least[i], least_seconds(step, 1))
    return least
