"""A search on the digits that takes seconds; as a script, it runs one in a folder.

Usage: python small_search.py FOLDER STRATEGY [EPOCHS]

The folder is created or resumed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hwnas.data import DATASETS
from hwnas.engine.config import SearchConfig
from hwnas.engine.judge import Judge
from hwnas.engine.one_shot import OneShot
from hwnas.engine.progress import Progress, Silent
from hwnas.engine.run_folder import RunFolder
from hwnas.graph.counts import macs
from hwnas.spaces import SPACES
from hwnas.strategies import STRATEGIES
from hwnas.supernet.weights import WeightStore

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 256,
    "children_per_step": 2,
    "controller_steps": 3,
    "controller_samples": 5,
    "valid_batch_size": 64,
    "derive_samples": 4,
    "derive_batches": 2,
}
BUDGET_MS = 0.05


class Script(Silent):
    """Prints each epoch's end, so that who watches knows that the search is under way."""

    def note(self, text: str) -> None:
        print(text, flush=True)


def build(
    folder: RunFolder, strategy: str, progress: Progress | None = None, **settings: Any
) -> OneShot:
    """Return a search with new objects throughout, as a new process would make them."""
    dataset_kind, space_kind = DATASETS.get("digits"), SPACES.get("conv_chain")
    strategy_kind = STRATEGIES.get(strategy)
    dataset = dataset_kind(dataset_kind.Config())
    small = space_kind.Config(max_depth=3, min_width=4, max_width=8, width_step=4, halve_after=(0,))
    space = space_kind(small, dataset.input_shape, dataset.classes)
    judge = Judge(
        reward=lambda metrics: metrics.accuracy - 0.1 * (metrics.latency_ms or 0.0),
        predict_latency=lambda some: [macs(space.graph(each)) / 1e6 for each in some],
        max_latency_ms=BUDGET_MS,
    )
    return OneShot(
        settings=SearchConfig(**{**SETTINGS, **settings}),
        folder=folder,
        space=space,
        strategy=strategy_kind(strategy_kind.Config(), space, folder.seed),
        dataset=dataset,
        judge=judge,
        store=WeightStore(folder.seed),
        progress=progress,
    )


def outcome(search: OneShot) -> dict[str, Any]:
    """Return everything that must not depend on interruptions, in a form that compares exactly."""
    learned = search.strategy.state_dict()
    return {
        "weights": {name: _bits(value) for name, value in sorted(search.store.state().items())},
        "momentum": {
            name: _bits(value) for name, value in sorted(search.trainer.optimiser.state().items())
        },
        "strategy": {name: value.tobytes() for name, value in learned["tensors"].items()},
        "strategy_json": learned["json"],
        "trials": [
            replace(trial, started=None, finished=None) for trial in search.folder.trials.all()
        ],
        "events": [
            {k: v for k, v in event.items() if k not in _TIMES}
            for event in search.folder.events.read()
            if event["kind"] == "epoch"
        ],
    }


_TIMES = {"time", "seconds_train", "seconds_teach", "elapsed_s", "peak_memory_mb"}


def _bits(value: torch.Tensor) -> tuple[tuple[int, ...], bytes]:
    return tuple(value.shape), value.numpy().tobytes()


def main() -> None:
    path, strategy = Path(sys.argv[1]), sys.argv[2]
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else SETTINGS["epochs"]
    if (path / "run.json").exists():
        folder = RunFolder.open(path)
    else:
        folder = RunFolder.create(path, {"strategy": strategy}, seed=3)
    with folder:
        print("ready", flush=True)
        build(folder, strategy, Script(), epochs=epochs).run()


if __name__ == "__main__":
    main()
