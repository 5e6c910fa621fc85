"""Batch norm in shared weights: which statistics should a child be scored with?

Trains shared weights of `conv_chain` on the handwritten digits twice, once without and once with
running statistics that all children share, and scores the same children in three ways. The numbers
of docs/decisions/0002-batch-statistics-in-shared-weights.md come from this program:

    python examples/shared_batch_norm.py --epochs 15
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator

import torch

from hwnas.data import DATASETS, Split
from hwnas.data import batches as batches_of
from hwnas.graph import BATCH, EVAL, TRAIN, TRAIN_SHARED, Graph, RunMode
from hwnas.spaces import SPACES
from hwnas.supernet.train import Batch, OptimiserConfig, Trainer, evaluate, recalibrate
from hwnas.supernet.weights import WeightStore

CHILDREN = 30


def main() -> None:
    """Train, score and print one line for each way of scoring."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--epochs", type=int, default=1)
    epochs = arguments.parse_args().epochs

    digits = DATASETS.get("digits")
    data = digits(digits.Config()).without_test()
    conv_chain = SPACES.get("conv_chain")
    space = conv_chain(conv_chain.Config(), data.input_shape, data.classes)

    def batches(split: Split, size: int, epoch: int) -> Iterator[Batch]:
        return batches_of(
            split, size, seed=epoch, normalise=data.normalisation, shuffle=True, drop_last=True
        )

    def trained(mode: RunMode) -> WeightStore:
        store, rng = WeightStore(seed=0), random.Random(0)
        trainer = Trainer(store, OptimiserConfig(learning_rate=0.1), epochs)
        for epoch in range(epochs):
            for batch in batches(data.train, 64, epoch):
                trainer.step([space.graph(space.sample(rng))], batch, epoch, mode)
        return store

    rng = random.Random(1)
    children = [space.graph(space.sample(rng)) for _ in range(CHILDREN)]

    def show(how: str, score: Callable[[Graph], float]) -> None:
        scores = sorted(score(child) for child in children)
        print(f"{how:<44} median {statistics.median(scores):6.1%}   worst {scores[0]:6.1%}")

    def valid() -> Iterator[Batch]:
        return batches(data.valid, 90, 0)

    shared = trained(TRAIN_SHARED)
    show("each batch's own statistics", lambda child: evaluate(child, shared, valid(), BATCH))

    def recalibrated(child: Graph) -> float:
        own = recalibrate(child, shared, list(batches(data.train, 64, 0))[:8])
        return evaluate(child, own, valid(), EVAL)

    show("running statistics, measured for the child", recalibrated)
    followed = trained(TRAIN)
    show("running statistics, shared by all children", lambda c: evaluate(c, followed, valid()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
