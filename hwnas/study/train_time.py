"""Predicts how long a child trains, from a few training steps measured on this machine."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hwnas.engine.seeds import derive_seed
from hwnas.graph import TRAIN, Graph
from hwnas.graph.architecture import Architecture
from hwnas.graph.counts import activation_bytes, macs
from hwnas.study.context import Context
from hwnas.study.journal import Journal

_KEY = "train_time"
_CHILDREN = 12
_STEPS = 3


def train_time_predictor(
    context: Context, journal: Journal
) -> Callable[[Sequence[Architecture]], Sequence[float]]:
    """Return a function that predicts seconds of training with the settings of `train`.

    A step costs ``a + b · MACs + c · activation bytes``, none negative, fitted to the fastest of
    three steps of twelve random children. The fit is kept in the run, so that a resumed search
    gives the same rewards.
    """
    from hwnas.supernet.tasks import task_of

    settings = context.config.train
    task = task_of(context.dataset)
    steps = settings.epochs * max(task.steps(context.dataset, settings.batch_size), 1)
    found, _ = journal.once(_KEY, lambda: _fit(context))
    coefficients = np.array(found, np.float64)

    def predict(architectures: Sequence[Architecture]) -> list[float]:
        graphs = [context.space.graph(each) for each in architectures]
        return [float(steps * (coefficients @ _features(graph))) for graph in graphs]

    return predict


def _fit(context: Context) -> list[float]:
    linear = importlib.import_module("sklearn.linear_model")
    rng = random.Random(derive_seed(context.config.seed, _KEY))
    graphs = [context.space.graph(context.space.sample(rng)) for _ in range(_CHILDREN)]
    features = np.array([_features(graph) for graph in graphs])
    seconds = np.array([_step_seconds(context, graph) for graph in graphs])
    # Relative errors count: a small child matters as much as a large one.
    fit = linear.LinearRegression(positive=True, fit_intercept=False)
    fit.fit(features / seconds[:, None], np.ones(len(graphs)))
    return [float(each) for each in fit.coef_]


def _features(graph: Graph) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([1.0, macs(graph) / 1e9, activation_bytes(graph) / 1e9])


def _step_seconds(context: Context, graph: Graph) -> float:
    from hwnas.supernet.tasks import task_of
    from hwnas.supernet.train import Trainer
    from hwnas.supernet.weights import WeightStore

    settings, dataset = context.config.train, context.dataset
    task = task_of(dataset)
    (batch,) = task.plain(dataset, min(settings.batch_size, len(dataset.train)), 0, 1)
    trainer = Trainer(WeightStore(0), settings.optimiser, 1, task)
    taken = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        trainer.step([graph], batch, 0.0, TRAIN)
        taken.append(time.perf_counter() - start)
    return min(taken)
