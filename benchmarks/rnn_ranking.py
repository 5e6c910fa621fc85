"""Does the perplexity with shared weights rank recurrent cells as training them does?

    OMP_NUM_THREADS=1 python benchmarks/rnn_ranking.py

Trains random cells of the recipe `enas_rnn_shakespeare` from scratch (2 epochs of 300,000
characters), then shared weights on uniformly sampled cells, with and without the batch norm of the
average, and prints Kendall's tau between the two perplexities after a few epochs: on 24 validation
windows, and on one, which is what the controller is rewarded by.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys

import torch

from hwnas.data.shakespeare import Shakespeare
from hwnas.errors import TrialFailed
from hwnas.estimators._minibatches import Minibatches
from hwnas.estimators._training import score_child, train_child
from hwnas.graph import BATCH, TRAIN_SHARED, Architecture
from hwnas.spaces.enas_rnn import EnasRnn
from hwnas.study.load import load_config
from hwnas.supernet.train import Trainer, evaluate
from hwnas.supernet.weights import WeightStore

CONFIG = load_config("enas_rnn_shakespeare")
SEED_OF_CELLS, SEED_OF_CHILDREN = 7, 99
RATE, EPOCHS, LOOKS, WINDOWS = 8.0, 8, (3, 5, 8), 24


def tau(one: list[float], other: list[float]) -> float:
    """Return Kendall's rank correlation of values without ties."""
    pairs = list(itertools.combinations(zip(one, other, strict=True), 2))
    return sum(1 if (a - c) * (b - d) > 0 else -1 for (a, b), (c, d) in pairs) / len(pairs)


def alone(space: EnasRnn, cells: list[Architecture], dataset: Shakespeare) -> list[float]:
    """Return the validation perplexity of each cell, trained from scratch."""
    found = []
    for cell in cells:
        graph, store = space.graph(cell), WeightStore(0)
        settings = CONFIG.train.optimiser
        list(train_child(graph, store, dataset, settings, epochs=2, batch_size=32, seed=0))
        found.append(1 / score_child(graph, store, dataset, dataset.valid, 32))
        print(f"cell {len(found)} alone: {found[-1]:.3f}", flush=True)
    return found


def shared(
    space: EnasRnn, cells: list[Architecture], dataset: Shakespeare, truth: list[float]
) -> None:
    """Train shared weights and print how they rank the cells."""
    store, batches = WeightStore(0), Minibatches(dataset, 0, 32, 32)
    settings = CONFIG.search.optimiser.model_copy(update={"learning_rate": RATE})
    trainer = Trainer(store, settings, EPOCHS, batches.task)
    rng = random.Random(SEED_OF_CHILDREN)
    for epoch in range(EPOCHS):
        for step, batch in enumerate(batches.train(epoch)):
            graph, now = space.graph(space.sample(rng)), epoch + step / batches.train_count
            try:
                trainer.step([graph], batch, now, TRAIN_SHARED)
            except TrialFailed as error:
                print(f"a step is left out: {error.message}")
        if epoch + 1 not in LOOKS:
            continue
        looks = {}
        for numbers in (range(WINDOWS), range(3, 4)):
            looks[len(numbers)] = [
                1
                / evaluate(
                    space.graph(cell), store, map(batches.valid, numbers), BATCH, batches.task
                )
                for cell in cells
            ]
        taus = ", ".join(f"tau {tau(v, truth):+.2f} on {n} windows" for n, v in looks.items())
        seen = looks[WINDOWS]
        print(f"epoch {epoch + 1}: {min(seen):.2f} to {max(seen):.2f}, {taus}", flush=True)


def main() -> int:
    """Train, rank and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=300_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dataset = Shakespeare(Shakespeare.Config(train_tokens=arguments.tokens))
    settings = CONFIG.deployed_space().settings.model_dump()
    space = EnasRnn(EnasRnn.Config(**settings), dataset.input_shape, dataset.classes)
    rng = random.Random(SEED_OF_CELLS)
    cells = [space.sample(rng) for _ in range(arguments.cells)]
    truth = alone(space, cells, dataset)
    for norm in (True, False):
        print(f"shared weights, batch norm of the average: {norm}")
        config = EnasRnn.Config(**{**settings, "norm": norm})
        shared(EnasRnn(config, dataset.input_shape, dataset.classes), cells, dataset, truth)
    return 0


if __name__ == "__main__":
    sys.exit(main())
