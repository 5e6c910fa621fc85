"""Searches a recurrent cell on tiny Shakespeare and compares it with an LSTM and random cells.

    OMP_NUM_THREADS=1 python benchmarks/rnn_search.py docs/results/rnn_shakespeare

Runs the recipe `enas_rnn_shakespeare`, then trains the cell that it derived, four random cells of
the space and an LSTM with the nearest number of parameters, all with the recipe's settings of
`train` and the same seed. Perplexities are of characters, each text read in ten columns. Writes
`result.json` (with every epoch of the search and of the trainings) and `curves.svg`. At the end the
time of a training step is measured against the reference ops, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from hwnas import kernels
from hwnas.data import Dataset
from hwnas.data.shakespeare import Shakespeare
from hwnas.estimators._training import score_child, train_child
from hwnas.graph import TRAIN, Architecture, Graph
from hwnas.graph.counts import params
from hwnas.spaces.enas_rnn import EnasRnn
from hwnas.spaces.lstm import LstmStack
from hwnas.study.load import load_config
from hwnas.supernet.tasks import task_of
from hwnas.supernet.train import Trainer
from hwnas.supernet.weights import WeightStore

RECIPE = "enas_rnn_shakespeare"
ROUNDS, STEPS = 9, 6


def search(folder: Path, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
    """Run the recipe's search; returns its best candidate, its epochs and its seconds."""
    start = time.monotonic()
    program = str(Path(sys.executable).with_name("hwnas"))
    command = [program, "search", RECIPE, "--out", str(folder)]
    subprocess.run([*command, "--set", f"seed={seed}"], check=True)
    seconds = time.monotonic() - start
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [each for each in map(json.loads, lines) if each["kind"] == "epoch"]
    for each in epochs:
        if "accuracy_mean" in each:  # the strategy learns in this epoch
            each["perplexity"] = 1 / each["accuracy_mean"]
    best = next(row for row in results["headline"] if row["role"] == "best")
    return best, epochs, seconds


def lstm_like(count: int, dataset: Dataset) -> Graph:
    """Return the LSTM of one layer whose number of parameters is nearest to `count`."""

    def graph(hidden: int) -> Graph:
        config = LstmStack.Config(hidden=hidden, bound=None)
        space = LstmStack(config, dataset.input_shape, dataset.classes)
        return space.graph(Architecture({"layers": 1}))

    return min((graph(hidden) for hidden in range(16, 400)), key=lambda g: abs(params(g) - count))


def train(name: str, graph: Graph, dataset: Dataset, settings: Any, seed: int) -> dict[str, Any]:
    """Train from scratch; returns the curve and the perplexities at the end."""
    store, epochs, start = WeightStore(seed), [], time.monotonic()
    for each in train_child(
        graph,
        store,
        dataset,
        settings.optimiser,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
    ):
        seconds = time.monotonic() - start
        epochs.append({"epoch": each.epoch, "loss": each.loss, "seconds": seconds})
        print(f"{name}: epoch {each.epoch}, loss {each.loss:.3f}, {seconds:.0f} s", flush=True)
    found = {
        f"perplexity_{part}": 1 / score_child(graph, store, dataset, split, settings.batch_size)
        for part, split in (("valid", dataset.valid), ("test", dataset.test))
    }
    print(f"{name}: {found}", flush=True)
    return {"name": name, "params": params(graph), "epochs": epochs, **found}


def step_times(graph: Graph, dataset: Dataset, settings: Any) -> dict[str, Any]:
    """Measure a training step with the fused kernels and with the reference, in turns."""
    task = task_of(dataset)
    batch = next(task.epoch(dataset, settings.batch_size, 0))
    trainer = Trainer(WeightStore(0), settings.optimiser, 1, task)
    taken: dict[str, list[float]] = {"fused": [], "reference": []}
    for turn in range(ROUNDS + 1):
        for name, found in taken.items():
            with kernels.use("cpu" if name == "fused" else "reference"):
                start = time.process_time()
                for _ in range(STEPS):
                    trainer.step([graph], batch, 0.0, TRAIN)
                if turn:  # the first turn is to warm up
                    found.append(1e3 * (time.process_time() - start) / STEPS)
    ratios = [b / a for a, b in zip(taken["fused"], taken["reference"], strict=True)]
    cuts = {n: statistics.quantiles(v, n=5) for n, v in {**taken, "ratio": ratios}.items()}
    return {
        "unit": "ms of CPU time a step, quantiles 20/50/80 %",
        **{
            n: [q[0], statistics.median(v), q[3]]
            for (n, q), v in zip(cuts.items(), [*taken.values(), ratios], strict=True)
        },
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the curves of the search and of the trainings, by hand: no library is needed."""
    searched = [e["perplexity"] for e in found["search"]["epochs"] if "perplexity" in e]
    panels = {
        "search: perplexity with shared weights, by epoch taught": {
            "mean of the sampled cells": searched
        },
        "training from scratch: loss in nats, by epoch": {
            f"{each['name']} (test perplexity {each['perplexity_test']:.2f})": [
                epoch["loss"] for epoch in each["epochs"]
            ]
            for each in found["trained"]
        },
    }
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 330" font-size="12">',
        '<rect width="900" height="330" fill="white"/>',
    ]
    for place, (title, curves) in enumerate(panels.items()):
        parts += _panel(50 + 450 * place, title, curves)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(left: int, title: str, curves: dict[str, list[float]]) -> list[str]:
    colours = ("#1f77b4", "#d62728", "#ff9f40", "#2ca02c", "#9467bd", "#8c564b")
    every = [value for curve in curves.values() for value in curve]
    low, high = min(every), max(every)
    parts = [
        f'<text x="{left}" y="20" font-weight="bold">{title}</text>',
        f'<path d="M{left},40V290H{left + 380}" fill="none" stroke="#888"/>',
        f'<text x="{left - 5}" y="45" text-anchor="end">{high:.2f}</text>',
        f'<text x="{left - 5}" y="290" text-anchor="end">{low:.2f}</text>',
    ]
    for row, (name, curve) in enumerate(curves.items()):
        step = 370 / max(1, len(curve) - 1)
        points = " ".join(
            f"{left + 5 + i * step:.1f},{285 - 240 * (value - low) / (high - low or 1):.1f}"
            for i, value in enumerate(curve)
        )
        colour = colours[row % len(colours)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        y = 55 + 16 * row
        parts.append(
            f'<text x="{left + 375}" y="{y}" text-anchor="end" fill="{colour}">{name}</text>'
        )
    return parts


def main() -> int:
    """Search, train, measure, and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="where result.json and curves.svg go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random-cells", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    config = load_config(RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        best, epochs, seconds = search(Path(folder) / "run", arguments.seed)
    dataset = Shakespeare(Shakespeare.Config())
    space = EnasRnn(config.deployed_space().settings, dataset.input_shape, dataset.classes)  # type: ignore[arg-type]
    rng = random.Random(arguments.seed)
    graphs = {"searched cell": space.graph(Architecture(best["architecture"]["answers"]))}
    graphs["LSTM"] = lstm_like(params(graphs["searched cell"]), dataset)
    for number in range(arguments.random_cells):
        graphs[f"random cell {number}"] = space.graph(space.sample(rng))
    trained = [
        train(name, graph, dataset, config.train, arguments.seed) for name, graph in graphs.items()
    ]
    tests = [e["perplexity_test"] for e in trained if e["name"].startswith("random")]
    found = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/rnn_search.py {arguments.out} "
        f"--seed {arguments.seed} --random-cells {arguments.random_cells}",
        "seed": arguments.seed,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "load_average": os.getloadavg(),
        },
        "search": {"seconds": seconds, "best": best["architecture"], "epochs": epochs},
        "trained": trained,
        "random_test": {"mean": statistics.fmean(tests), "deviation": statistics.stdev(tests)}
        if len(tests) > 1
        else None,
        "step": step_times(graphs["searched cell"], dataset, config.train),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (arguments.out / "result.json").write_text(text, encoding="utf-8")
    draw(found, arguments.out / "curves.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
