"""Flags that several verbs share: same flag, same meaning everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Configuration file, or the name of a recipe.")
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, as printed by search or demo.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY.KEY=VALUE", help="Override one field of the file; repeatable."
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="RUNTIME[:KEY=VALUE,…]",
        help="Runtime on this machine that the network is for, with settings, such as "
        "onnxruntime:threads=2; see: hwnas ls devices.",
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="INPUT=1,3,224,224",
        help="Sizes of an input that the file leaves open; repeatable. 1 where none is given.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--max-latency-ms", metavar="MS", help="Latency budget, batch 1."),
]
SpaceOption = Annotated[
    str | None, typer.Option("--space", metavar="NAME", help="Search space: hwnas ls spaces.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="PATH", help="Where to write what is made.")
]
PickOption = Annotated[
    str,
    typer.Option(
        "--pick", metavar="WHICH", help="Architecture: best, knee, fastest, baseline or its id."
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option("--resume", metavar="RUN", help="Go on with this run where it stopped."),
]


def overrides(
    sets: list[str] | None = None,
    *,
    seed: int | None = None,
    device: str | None = None,
    max_latency_ms: float | None = None,
    space: str | None = None,
    strategy: str | None = None,
) -> list[str]:
    """Return flags as overrides of the configuration; a flag wins over ``--set``."""
    found = list(sets or [])
    named = {
        "seed": seed,
        "latency.runtime": device,
        "objective.max_latency_ms": max_latency_ms,
        "space": space,
        "strategy": strategy,
    }
    return found + [f"{key}={value}" for key, value in named.items() if value is not None]
