"""Do rebuilt networks have the published numbers? Parameters, MACs, sizes, hashes: exact figures.

Every network that a space lists as published is built from its published string and counted.
Nothing here is timed.

    python benchmarks/published.py            # a table for people
    python benchmarks/published.py --json     # one JSON object
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hwnas.graph import Graph
from hwnas.graph.counts import macs, params
from hwnas.latency.device import Device
from hwnas.spaces import SPACES, Published, SearchSpace, Stated


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


def rows() -> list[Row]:
    """Return all rows."""
    return list(published_rows())


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
