"""Keeps what a search saw: one JSON file and one SVG picture of its curves, from a run folder.

    python benchmarks/curves.py runs/2026-11-23-digits-a1b2 docs/results/digits

`curves.json` holds the configuration, the seed and every value of every epoch; nothing is smoothed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

#: What is drawn, one panel each: title, and the values that share it.
PANELS = (
    ("loss of the shared weights", ("loss",)),
    ("accuracy, inherited", ("accuracy_mean", "accuracy_max")),
    ("reward", ("reward_mean", "reward_max", "strategy/baseline")),
    ("entropy of the strategy", ("strategy/entropy",)),
    ("share over the budget", ("infeasible_share",)),
    ("predicted latency, ms", ("latency_mean_ms",)),
)


def read(run: Path) -> dict[str, Any]:
    """Return the configuration, the epochs and the results of a run folder."""
    from hwnas.study.yaml_file import parse

    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [each for each in map(json.loads, lines) if each["kind"] == "epoch"]
    if not epochs:
        sys.exit(f"{run} has no finished epoch")
    config = parse((run / "config.yaml").read_text(encoding="utf-8")).value
    return {
        "config": config,
        "epochs": [{k: v for k, v in each.items() if k != "kind"} for each in epochs],
        "headline": _headline(run),
    }


def _headline(run: Path) -> list[dict[str, Any]]:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = results.get("headline", [])
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def draw(epochs: list[dict[str, Any]], path: Path) -> None:
    """Draw the panels that have values."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "hwnas"  # the same file for the same curves
    from matplotlib import pyplot as plt

    found = [(t, [n for n in names if n in epochs[0]]) for t, names in PANELS]
    shown = [(title, names) for title, names in found if names]
    figure, axes = plt.subplots(2, -(-len(shown) // 2), figsize=(10, 5), layout="constrained")
    for axis, (title, names) in zip(axes.flat, shown, strict=False):
        for name in names:
            values = [each.get(name) for each in epochs]
            axis.plot([each["step"] for each in epochs], values, marker=".", label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=7)
    for axis in list(axes.flat)[len(shown) :]:
        axis.axis("off")
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("out", type=Path, help="where curves.json and curves.svg go")
    arguments = parser.parse_args()
    found = read(arguments.run)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (arguments.out / "curves.json").write_text(text, encoding="utf-8")
    draw(found["epochs"], arguments.out / "curves.svg")
    print(arguments.out / "curves.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
