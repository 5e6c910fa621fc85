"""NAS-Bench-101's tools: enumeration, hashes, the conversion of a file, opening it, queries.

The file is a synthetic one in the published format with all 423,624 cells, 108 epochs and three
repeats: 1,270,872 records, as in the published one, with invented figures. It takes about 0.6 GB in
the temporary folder, and its converted form 0.2 GB; both are removed.

    python benchmarks/nasbench101.py            # a table for people
    python benchmarks/nasbench101.py --json     # one JSON object
    python benchmarks/nasbench101.py --quick    # the cells of up to 6 vertices only
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _measure import Row, Settings, machine, say

from hwnas._core import cell_hash
from hwnas.benchmarks.nasbench101 import api
from hwnas.benchmarks.nasbench101.cells import Cells, unique_cells
from hwnas.benchmarks.nasbench101.config import build_config
from hwnas.benchmarks.nasbench101.synthetic import write_synthetic

SIZES = {3: 7, 4: 91, 5: 2_532, 6: None, 7: 423_624}
BATCH = 2_000
BATCHES = 25


def count_row(name: str, value: float, goal: float | None, against: str) -> Row:
    """Return the row of a number that must be exact."""
    met = None if goal is None else value == goal
    return Row(name, value, "cells", goal, met, None, None, None, against)


def enumeration_rows(largest: int) -> tuple[list[Row], Cells]:
    """Enumerate; seconds of wall time, the median of five."""
    rows = []
    for vertices, goal in SIZES.items():
        if vertices > largest:
            break
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            cells = unique_cells(vertices)
            seconds.append(time.perf_counter() - start)
        name = f"unique cells of up to {vertices} vertices"
        rows.append(count_row(name, len(cells), goal, "Ying et al. 2019; nasbench's README"))
    limit = "ten minutes on two cores; one is used"
    rows.append(Row.of(f"enumeration up to {largest}", seconds, "s", 600.0, limit, is_limit=True))
    return rows, cells


def per_item_us(run: Callable[[int], object], count: int) -> list[float]:
    """Return microseconds of CPU time for each item, one figure for each batch."""
    found = []
    for batch in range(BATCHES):
        first = batch * BATCH
        start = time.process_time()
        for i in range(first, first + BATCH):
            run(i % count)
        found.append((time.process_time() - start) / BATCH * 1e6)
    return found


def hash_rows(cells: Cells, specs: Sequence[api.ModelSpec]) -> list[Row]:
    """Hash one by one and all at once."""
    ops = build_config()["available_ops"]
    coded = [
        (spec.edge_bits, bytes(each & 255 for each in (-1, *(ops.index(o) for o in inner), -2)))
        for spec in specs
        if (inner := (spec.ops or [])[1:-1]) is not None
    ]
    start = time.process_time()
    digests = cells.digests()
    all_us = (time.process_time() - start) / len(cells) * 1e6
    different = len(np.unique(digests, axis=0))
    cpu = f"CPU time, random cells, median of {BATCHES} batches of {BATCH}"
    fresh = [api.ModelSpec(spec.original_matrix, spec.original_ops) for spec in specs]
    return [
        count_row("different hashes", different, len(cells), "one for each class of cells"),
        Row.of(
            "hash of one cell",
            per_item_us(lambda i: cell_hash(*coded[i]), len(coded)),
            "us",
            5.0,
            cpu,
            is_limit=True,
        ),
        Row.of(
            "ModelSpec.hash_spec, first time",
            per_item_us(lambda i: _forget(fresh[i]).hash_spec(ops), len(fresh)),
            "us",
            None,
            cpu,
        ),
        Row.of("hash in a batch of all", [all_us], "us", 5.0, "CPU time", is_limit=True),
    ]


def _forget(spec: api.ModelSpec) -> api.ModelSpec:
    spec._known = None
    return spec


def file_rows(cells: Cells, specs: Sequence[api.ModelSpec], folder: Path) -> list[Row]:
    """Write, convert, open, query."""
    path = folder / "synthetic_only108.tfrecord"
    say(f"writing {len(cells)} cells")
    write_synthetic(path, cells)
    size = f"{path.stat().st_size / 1e6:.0f} MB, {3 * len(cells):,} records"
    say("converting")
    start = time.perf_counter()
    api.NASBench(path)
    converted = time.perf_counter() - start
    opened = []
    for _ in range(11):
        start = time.perf_counter()
        bench = api.NASBench(path, seed=0)
        opened.append(time.perf_counter() - start)
    cpu = f"{size}; CPU time, random cells, median of {BATCHES} batches of {BATCH}"
    fresh = api.NASBench(path, seed=0)
    for spec in specs:
        bench.query(spec)  # touches the pages, and hashes each cell once
    start = time.process_time()
    for spec in specs:
        fresh.query(spec)
    first_us = (time.process_time() - start) / len(specs) * 1e6
    return [
        Row.of("conversion, once", [converted], "s", None, f"{size}; wall time"),
        Row.of("open", opened, "s", 1.0, f"{size}; wall time, median of 11", is_limit=True),
        Row.of(
            "query",
            per_item_us(lambda i: bench.query(specs[i]), len(specs)),
            "us",
            5.0,
            f"{cpu}; a cell that was asked for before",
            is_limit=True,
        ),
        Row.of(
            "query, first of a cell",
            [first_us],
            "us",
            5.0,
            f"{size}; CPU time, mean of {len(specs):,} cells; the ModelSpec's hash is known",
            is_limit=True,
        ),
        Row.of(
            "query of a new ModelSpec",
            per_item_us(lambda i: bench.query(_forget(specs[i])), len(specs)),
            "us",
            None,
            f"{cpu}; its hash is computed",
        ),
    ]


def main() -> int:
    """Print the figures; 0 if each goal is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="cells of up to 6 vertices only")
    arguments = parser.parse_args()
    rows, cells = enumeration_rows(6 if arguments.quick else 7)
    chosen = random.Random(0).sample(range(len(cells)), 20_000)
    specs = [cells.spec(i) for i in chosen]
    rows += hash_rows(cells, specs)
    with tempfile.TemporaryDirectory(prefix="hwnas-nasbench101-") as folder:
        rows += file_rows(cells, specs, Path(folder))
    if arguments.json:
        found = {"machine": machine(Settings()), "rows": [row.to_json() for row in rows]}
        print(json.dumps(found, indent=1))
    else:
        for row in rows:
            mark = {True: "ok ", False: "NO ", None: "   "}[row.met]
            print(f"{mark} {row.name:<40} {row.value:>12,.3f} {row.unit:<6} {row.against}")
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
