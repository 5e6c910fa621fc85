"""`hwnas ls`: what there is to name in a configuration or on the command line."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from hwnas.cli._app import Verb
from hwnas.cli._session import Session
from hwnas.errors import UserInputError, nearest

VERB = Verb(order=20, examples=("hwnas ls spaces", "hwnas ls recipes 'cifar*'"))

Row = dict[str, Any]


def command(
    session: Session,
    what: Annotated[
        str | None, typer.Argument(metavar="WHAT", help="Kind; without it, all kinds.")
    ] = None,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Only names like this, such as 'enas*'.")
    ] = "*",
) -> None:
    """List spaces, published networks, strategies, data sets, recipes, runs and the like."""
    kinds = _kinds()
    if what is None:
        rows = [{"name": kind, "description": f"hwnas ls {kind}"} for kind in kinds]
        what = "kinds"
    else:
        listed = kinds.get(_plain(what)) or kinds.get(_plural(_plain(what)))
        if listed is None:
            raise UserInputError(f"cannot list {what!r}", nearest(what, kinds))
        rows = [row for row in listed() if fnmatch(str(row["name"]), pattern)]
    if not session.is_json:
        _show(session, what, rows)
        return
    session.finish({"what": what, "items": rows})


def _kinds() -> dict[str, Callable[[], list[Row]]]:
    from hwnas.study.catalogue import PLACES

    kinds: dict[str, Callable[[], list[Row]]] = {
        _plural(_plain(kind)): (lambda place=place: _plugins(place))  # type: ignore[misc]
        for kind, place in PLACES.items()
    }
    kinds |= {
        "devices": _devices,
        "networks": _networks,
        "recipes": _recipes,
        "runs": _runs,
        "tables": _tables,
    }
    return dict(sorted(kinds.items()))


def _plain(kind: str) -> str:
    return kind.lower().replace(" ", "").replace("_", "").replace("-", "")


def _plural(kind: str) -> str:
    kind = {"datas": "datasets", "data": "datasets"}.get(kind, kind)
    if kind.endswith("s"):
        return kind
    return kind[:-1] + "ies" if kind.endswith("y") else kind + "s"


def _plugins(place: str) -> list[Row]:
    from hwnas.study.catalogue import plugins

    return [
        {"name": each.name, "description": each.description, "settings": each.settings}
        for each in plugins(place)
    ]


def _networks() -> list[Row]:
    from hwnas.study.catalogue import networks

    return [
        {
            "name": each.name,
            "description": f"{each.space}: {each.network.source}",
            "space": {"name": each.space, **each.network.settings},
            "architecture": each.network.architecture.to_json(),
            "text": each.text,
            "input_shape": list(each.network.input_shape),
            "classes": each.network.classes,
        }
        for each in networks()
    ]


def _recipes() -> list[Row]:
    from hwnas.study.load import recipes

    return [
        {"name": name, "description": each.read_text("utf-8").split("\n")[0].lstrip("# ")}
        for name, each in recipes().items()
    ]


def _runs() -> list[Row]:
    from hwnas.study.catalogue import runs

    return [
        {"name": str(each.path), "description": each.description, "state": each.state}
        for each in runs(Path("runs"))
    ]


def _tables() -> list[Row]:
    from hwnas.study.tables import packaged_tables

    return [
        {"name": each.name, "description": each.description, "path": str(each.path)}
        for each in packaged_tables()
    ]


def _devices() -> list[Row]:
    from hwnas.study.tables import devices

    return [
        {
            "name": each.name,
            "description": each.description,
            **({} if each.device is None else each.device.fingerprint.to_json()),
        }
        for each in devices()
    ]


def _show(session: Session, what: str, rows: list[Row]) -> None:
    if not rows:
        session.say(f"no {what} here")
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for row in rows:
        table.add_row(str(row["name"]), str(row["description"]))
    session.say(table)
