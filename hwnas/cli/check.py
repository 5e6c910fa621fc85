"""`hwnas check`: every mistake of a configuration at once."""

from __future__ import annotations

from hwnas.cli._app import Verb
from hwnas.cli._options import (
    BudgetOption,
    ConfigArgument,
    DeviceOption,
    SeedOption,
    SetOption,
    overrides,
)
from hwnas.cli._session import Session, command_line

VERB = Verb(
    order=40,
    examples=(
        "hwnas check my.yaml",
        "hwnas check cifar10_enas_micro --set search.epochs=5 --max-latency-ms 3",
    ),
)


def command(
    session: Session,
    file: ConfigArgument,
    sets: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    max_latency_ms: BudgetOption = None,
) -> None:
    """Validate a configuration, and show what it means; nothing is run."""
    from hwnas.study.check import check
    from hwnas.study.load import load_config

    config = load_config(
        file, overrides(sets, seed=seed, device=device, max_latency_ms=max_latency_ms)
    )
    found = check(config)
    session.say(config.to_yaml().rstrip())
    session.say()
    for label, text in found.lines():
        session.say(f"{label:<10} {text}")
    session.finish(
        {"valid": True, "config": config.to_mapping(), **found.to_json()},
        then=[(command_line("hwnas", "search", file), "run it")],
    )
