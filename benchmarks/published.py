"""Do rebuilt networks have the published numbers? Parameters, MACs, sizes, hashes: exact figures.

Every network that a space lists as published is built from its published string and counted; so
are the sizes of the spaces, NAS-Bench-101's unique cells and hash, and, where the table is at hand,
the parameters of all of EC-NAS' cells. Nothing here is timed.

    python benchmarks/published.py            # a table for people
    python benchmarks/published.py --json     # one JSON object
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwnas.benchmarks.nasbench101.cells import unique_cells
from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
from hwnas.graph import Graph
from hwnas.graph.counts import macs, params
from hwnas.latency.device import Device
from hwnas.spaces import SPACES, Published, SearchSpace, Stated
from hwnas.spaces._nasbench101_cell import CONV1X1, CONV3X3, INPUT, MAXPOOL3X3, OUTPUT
from hwnas.spaces._nasbench101_cell import OPS as CELL_OPS
from hwnas.spaces.nasbench101 import NasBench101, architecture_of

#: Beside the checkout; without it, EC-NAS has no row.
ECNAS = Path(__file__).parents[2] / "shared/data/nasbench/ecnas_4v5v_4epochs.parquet"
_LABELS = {-1: INPUT, -2: OUTPUT, 0: CONV3X3, 1: CONV1X1, 2: MAXPOOL3X3}


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: Space, network and what is counted.
        value: What we count.
        unit: What `value` counts.
        goal: The published figure.
        met: Whether `value` rounds to `goal`.
        against: Where the figure is from; why ours differs, where it does.
    """

    name: str
    value: float
    unit: str
    goal: float
    met: bool
    against: str


_COUNTS: dict[str, tuple[Callable[[Graph], int], Callable[[Published], Stated | None]]] = {
    "parameters": (params, lambda found: found.params),
    "MACs": (macs, lambda found: found.macs),
}


def published_rows() -> Iterator[Row]:
    """Yield a row for each figure of each published network of each space."""
    for space in SPACES.names():
        plugin = SPACES.get(space)
        for name, found in plugin.published().items():
            config = plugin.Config.model_validate(dict(found.settings))
            made: SearchSpace = plugin(config, found.input_shape, found.classes)
            graph = made.graph(found.architecture)
            for unit, (count, figure) in _COUNTS.items():
                stated = figure(found)
                if stated is not None:
                    yield _row(f"{space}: {name}", unit, count(graph), stated, found)


def _row(name: str, unit: str, value: int, stated: Stated, found: Published) -> Row:
    is_met = stated.holds(value)
    rounding = f" ± {stated.within:g}" if stated.within else ""
    why = "" if is_met or not found.difference else f"; differs: {found.difference}"
    against = f"{stated.value:g}{rounding}: {found.source}{why}"
    return Row(f"{name}, {unit}", value, unit, stated.value, is_met, against)


def _exact(name: str, value: int, unit: str, goal: int, source: str) -> Row:
    return Row(name, value, unit, goal, value == goal, source)


def size_rows() -> Iterator[Row]:
    """Yield the sizes of spaces against the formulas of their papers."""
    for space, settings, shape, size, formula in _SIZES:
        plugin = SPACES.get(space)
        made = plugin(plugin.Config.model_validate(settings), shape, 10)
        named = f"{space} {settings or ''}".strip()
        yield _exact(f"{named}, size", made.size(), "architectures", size, formula)


_IMAGE = (3, 32, 32)
_SIZES: tuple[tuple[str, dict[str, Any], tuple[int, ...], int, str], ...] = (
    ("enas_macro", {}, _IMAGE, 6**12 * 2**66, "Pham et al. 2018: 6^L · 2^(L(L-1)/2), L = 12"),
    ("enas_macro", {"layers": 5}, _IMAGE, 6**5 * 2**10, "the same, L = 5"),
    (
        "enas_micro",
        {},
        _IMAGE,
        math.factorial(6) ** 4 * 5**20,
        "each of 2 · 5 nodes picks 2 inputs and 2 ops: (6!)^4 · 5^20",
    ),
    (
        "enas_rnn",
        {"first_node": "tanh"},
        (35,),
        4**12 * math.factorial(12),
        "Pham et al. 2018, section 2.1: 4^N · N!, N = 12; N nodes behind a fixed first one",
    ),
    (
        "enas_rnn",
        {},
        (35,),
        4**12 * math.factorial(11),
        "the same cell with node 0 among the N: 4^N · (N-1)!, 'approximately 10^15'",
    ),
    ("nasbench101", {}, _IMAGE, 2**21 * 3**5, "Ying et al. 2019, section 2.2: about 510 M"),
    ("nasbench201", {}, _IMAGE, 5**6, "Dong & Yang 2020: 15,625"),
)


def nasbench101_rows() -> Iterator[Row]:
    """Yield the unique cells and the hash of NAS-Bench-101, and EC-NAS' parameters."""
    source = "Ying et al. 2019, section 2.1; google-research/nasbench"
    for vertices, count in ((3, 7), (4, 91), (5, 2_532), (7, 423_624)):
        found = len(unique_cells(vertices))
        name = f"nasbench101: unique cells of up to {vertices} vertices"
        yield _exact(name, found, "cells", count, source)
    inception = SPACES.get("nasbench101").published()["inception_like"].architecture
    plugin = SPACES.get("nasbench101")
    space = plugin(plugin.Config(), _IMAGE, 10)
    assert isinstance(space, NasBench101)
    golden = ModelSpec.from_architecture(space, inception)
    same = golden.hash_spec(CELL_OPS) == "28cfc7874f6d200472e1a9dcd8650aa0"
    yield _exact("nasbench101: hash of the inception-like cell", int(same), "equal", 1, source)
    if not ECNAS.is_file():
        return
    from pyarrow import parquet

    table = parquet.read_table(ECNAS, columns=["hash", "adjacency", "labels", "params"])
    cells = {row["hash"]: row for row in table.to_pylist()}  # it lists some cells twice
    equal = 0
    for row in cells.values():
        names = [_LABELS[label] for label in json.loads(row["labels"])]
        architecture = architecture_of(json.loads(row["adjacency"]), names)
        equal += params(space.graph(architecture)) == row["params"]
    name = "nasbench101: parameters of EC-NAS' cells that agree"
    yield _exact(name, equal, "cells", 2_532, "EC-NAS, column params")


def rows() -> list[Row]:
    """Return all rows."""
    return [*published_rows(), *size_rows(), *nasbench101_rows()]


def main() -> int:
    """Print the figures; 0 if each is met or explained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found = rows()
    if arguments.json:
        print(json.dumps(_report(found), indent=1))
    else:
        for row in found:
            mark = "ok " if row.met else "NO "
            print(f"{mark} {row.name:<60} {row.value:>14,.0f}   {row.against}")
    is_explained = all(row.met or "differs:" in row.against for row in found)
    return 0 if is_explained else 1


def _report(found: list[Row]) -> dict[str, Any]:
    machine = Device.here("onnxruntime").fingerprint.to_json()
    return {"machine": machine, "rows": [asdict(row) for row in found]}


if __name__ == "__main__":
    sys.exit(main())
