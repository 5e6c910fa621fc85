from __future__ import annotations

import pickle
import random
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.data import DATASETS, Dataset
from hwnas.engine.checkpoints import Checkpoints
from hwnas.engine.executors import EXECUTORS
from hwnas.errors import HwnasError, TrialFailed, UserInputError
from hwnas.estimators import ESTIMATORS, Estimator
from hwnas.estimators._training import train_child
from hwnas.graph import TRAIN_SHARED
from hwnas.graph.architecture import Architecture
from hwnas.spaces import SPACES, SearchSpace
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    kind = DATASETS.get("digits")
    return kind(kind.Config())


@pytest.fixture(scope="module")
def space(dataset: Dataset) -> SearchSpace:
    kind = SPACES.get("conv_chain")
    config = kind.Config(max_depth=2, min_width=8, max_width=8, halve_after=(0,), kernels=(3,))
    return kind(config, dataset.input_shape, dataset.classes)


@pytest.fixture
def architecture(space: SearchSpace) -> Architecture:
    return space.sample(random.Random(0))


def build(name: str, space: SearchSpace, dataset: Dataset, **settings: Any) -> Estimator:
    kind = ESTIMATORS.get(name)
    return kind(kind.Config(**settings), space=space, dataset=dataset, seed=1)


def test_training_from_scratch_learns_and_repeats_exactly(
    space: SearchSpace, dataset: Dataset, architecture: Architecture
) -> None:
    estimator = build("from_scratch", space, dataset, epochs=10, batch_size=32)
    first = estimator.evaluate(architecture, 5)
    assert first.accuracy > 0.8
    assert first.train_time_s is not None
    assert first.train_time_s > 0
    assert first.latency_ms is None
    assert estimator.evaluate(architecture, 5).accuracy == first.accuracy


def test_the_test_split_is_locked(space: SearchSpace, dataset: Dataset) -> None:
    estimator = build("from_scratch", space, dataset)
    with pytest.raises(HwnasError, match="locked"):
        _ = estimator.dataset.test
    assert len(dataset.test) > 0


def test_training_that_diverges_fails_the_trial(
    space: SearchSpace, dataset: Dataset, architecture: Architecture
) -> None:
    wild = {"learning_rate": 1e30, "clip_norm": 1e30}
    estimator = build("from_scratch", space, dataset, epochs=2, optimiser=wild)
    with pytest.raises(TrialFailed, match="diverged"):
        estimator.evaluate(architecture, 0)


def test_an_estimator_works_after_pickling_and_takes_no_images_along(
    space: SearchSpace, dataset: Dataset, architecture: Architecture
) -> None:
    estimator = build("from_scratch", space, dataset, epochs=1, batch_size=256)
    accuracy = estimator.evaluate(architecture, 0).accuracy
    data = pickle.dumps(estimator)
    assert len(data) < 20_000
    assert pickle.loads(data).evaluate(architecture, 0).accuracy == accuracy


def test_worker_processes_give_the_same_accuracies_as_this_one(
    space: SearchSpace, dataset: Dataset, architecture: Architecture
) -> None:
    estimator = build("from_scratch", space, dataset, epochs=1, batch_size=256)
    kind = EXECUTORS.get("process")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = [estimator.evaluate(architecture, id).accuracy for id in (0, 1)]
    finally:
        torch.set_num_threads(before)
    with kind(kind.Config(workers=1), estimator.evaluate) as executor:
        futures = [executor.submit(architecture, id) for id in (0, 1)]
        wait(futures)
        assert [future.result().accuracy for future in futures] == expected


def test_a_child_s_training_can_go_on_from_any_epoch(
    space: SearchSpace, dataset: Dataset, architecture: Architecture
) -> None:
    config, graph = OptimiserConfig(), space.graph(architecture)
    common: dict[str, Any] = {"epochs": 3, "batch_size": 256, "seed": 9}
    whole, part = WeightStore(9), WeightStore(9)
    losses = [each.loss for each in train_child(graph, whole, dataset, config, **common)]
    trainer = Trainer(part, config, 3)
    run = train_child(graph, part, dataset, config, **common, trainer=trainer)
    assert next(run).loss == losses[0]
    rest = train_child(graph, part, dataset, config, **common, first_epoch=1, trainer=trainer)
    assert [each.loss for each in rest] == losses[1:]
    assert all(part[name].equal(whole[name]) for name in whole)


@pytest.fixture(scope="module")
def trained(space: SearchSpace, dataset: Dataset) -> WeightStore:
    """Shared weights of all children, trained a little."""
    from hwnas.estimators._minibatches import Minibatches

    store = WeightStore(1)
    trainer = Trainer(store, OptimiserConfig(), 4)
    rng = random.Random(2)
    for epoch in range(4):
        for batch in Minibatches(dataset, 1, 64, 64).train(epoch):
            trainer.step([space.graph(space.sample(rng))], batch, epoch, TRAIN_SHARED)
    return store


def test_shared_weights_come_from_a_run_folder_or_a_file(
    space: SearchSpace,
    dataset: Dataset,
    architecture: Architecture,
    trained: WeightStore,
    tmp_path: Path,
) -> None:
    tensors = {f"weights/{name}": value for name, value in trained.state().items()}
    tensors["optimiser/momentum/x"] = torch.zeros(3)
    Checkpoints(tmp_path / "checkpoints").save(4, tensors, {})
    of_run = build("shared_weights", space, dataset, weights=str(tmp_path))
    file = tmp_path / "checkpoints" / "000004" / "tensors.safetensors"
    of_file = build("shared_weights", space, dataset, weights=str(file))
    metrics = of_run.evaluate(architecture, 0)
    assert metrics.accuracy > 0.3  # chance: 0.1
    assert of_file.evaluate(architecture, 7) == metrics
    assert pickle.loads(pickle.dumps(of_run)).evaluate(architecture, 0) == metrics


def test_missing_or_damaged_shared_weights_are_said_plainly(
    space: SearchSpace, dataset: Dataset, architecture: Architecture, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match="needs the weights") as caught:
        build("shared_weights", space, dataset)
    assert "estimator.weights" in str(caught.value.hint)
    with pytest.raises(UserInputError, match="neither a file nor a run folder"):
        build("shared_weights", space, dataset, weights=str(tmp_path))
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(UserInputError, match="cannot be read"):
        build("shared_weights", space, dataset, weights=str(path)).evaluate(architecture, 0)
