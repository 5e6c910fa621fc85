"""Where a run's latency table is from: named, the run's own, found for this device, or measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.engine.progress import Progress
from hwnas.errors import DeviceError, HwnasError, UserInputError
from hwnas.latency.device import Device
from hwnas.latency.runtimes import RUNTIMES
from hwnas.latency.table import (
    LatencyTable,
    default_path,
    find_table,
    shipped_tables,
    user_folder,
)
from hwnas.study.context import Context

if TYPE_CHECKING:
    from hwnas.latency.blocks import BlockTable
    from hwnas.latency.timing import Protocol

FILE = "latency_table.json"
#: Networks of a space that are measured whole, at most: the calibration needs no more.
_MOST_CALIBRATION = 40


@dataclass(frozen=True)
class TableRow:
    """A latency table that can be named."""

    name: str
    description: str
    path: Path


@dataclass(frozen=True)
class DeviceRow:
    """A device that can be named with ``--device``.

    Attributes:
        name: How it is named.
        description: Its id and its table, or why it is not here.
        device: The device; None where its runtime is missing.
    """

    name: str
    description: str
    device: Device | None


@dataclass(frozen=True)
class Profiled:
    """A table that was measured.

    Attributes:
        path: Its file.
        entries: Kernels in it.
        networks: Whole networks in it.
        median_spread: Half of the kernels spread less than this, relatively.
        disturbed: Kernels for which the machine was never calm.
        comparison: How it differs from an older table, in one line.
    """

    path: Path
    entries: int
    networks: int
    median_spread: float
    disturbed: int
    comparison: str = ""

    @property
    def summary(self) -> str:
        """One line for people."""
        calm = f" · {self.disturbed} measured in a storm" if self.disturbed else ""
        return (
            f"{self.entries} distinct kernels · {self.networks} networks · "
            f"spread {self.median_spread:.0%}{calm}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "path": str(self.path)}


@cache
def this_device(runtime: str = "onnxruntime") -> Device:
    """Return this machine with a runtime in its default settings."""
    return Device.here(runtime)


def devices() -> list[DeviceRow]:
    """Return what ``--device`` can name here: each runtime, with one thread and with two."""
    rows = []
    for runtime, _ in RUNTIMES.items():
        for threads in (1, 2):
            name = runtime if threads == 1 else f"{runtime}:threads={threads}"
            try:
                device = Device.here(runtime, threads=threads)
            except DeviceError as error:
                rows.append(DeviceRow(name, f"not here: {error.message} ({error.hint})", None))
                break
            except UserInputError:  # the machine has fewer threads
                break
            rows.append(DeviceRow(name, f"{device.id} · {_table_of(device)}", device))
    return rows


def _table_of(device: Device) -> str:
    try:
        table = find_table(device)
    except HwnasError as error:
        return error.message
    return "no table yet" if table is None else describe(table)


def packaged_tables() -> list[TableRow]:
    """Return the tables that ship with hwnas and those that this user has measured."""
    rows = []
    for path in (*shipped_tables(), *sorted(user_folder().glob("*/*.json"))):
        if path.name.endswith(".contexts.json"):
            continue
        name = f"{path.parent.name}/{path.stem}"
        try:
            text = describe(LatencyTable.load(path))
        except HwnasError as error:
            text = error.message
        rows.append(TableRow(name, text, path))
    return rows


def table_for_this_device() -> TableRow | None:
    """Return the table that ``auto`` would use here, or None."""
    device = this_device()
    table = find_table(device)
    if table is None or table.path is None:
        return None
    return TableRow(device.id, describe(table), table.path)


def describe(table: LatencyTable) -> str:
    """Return one line: kernels, spaces, runtime, date."""
    date = str(table.provenance[-1]["date"])[:10] if table.provenance else "no date"
    fingerprint = table.fingerprint
    return (
        f"{len(table.entries)} kernels of {', '.join(table.spaces) or 'no space'} · "
        f"{fingerprint.runtime} {fingerprint.runtime_version} · {date}"
    )


def where_from(named: str) -> str:
    """Return one sentence: where the latencies of a run will come from.

    Nothing is measured, and the device is not looked at: that would load its runtime.

    Args:
        named: A table's file, or ``auto``.

    Raises:
        UserInputError: The table that is named is missing or damaged.
    """
    if named != "auto":
        blocks = blocks_of(named)
        if blocks is not None:
            return f"{named}: {len(blocks.entries)} blocks"
        return f"{named}: {describe(LatencyTable.load(named))}"
    return "this machine's table where there is one; what it lacks is measured first"


def imported_table(named: str) -> LatencyTable | None:
    """Return the table that a configuration names, if a bundle measured it on another machine.

    Raises:
        UserInputError: It is missing or damaged.
    """
    if named == "auto" or blocks_of(named) is not None:
        return None
    table = LatencyTable.load(named)
    return table if table.is_imported else None


def blocks_of(named: str) -> BlockTable | None:
    """Return the table of blocks that a configuration names; None if it names no such table.

    Raises:
        UserInputError: It is damaged.
    """
    from hwnas.latency.blocks import BlockTable, is_block_table

    path = Path(named)
    if named == "auto" or not path.is_file() or not is_block_table(path):
        return None
    return BlockTable.load(path)


def covers(table: LatencyTable, context: Context) -> bool:
    """Tell whether the space, with these settings and images, was profiled into the table."""
    wanted = {
        "space": context.config.space.name,
        "space_config": context.config.deployed_space().settings.model_dump(mode="json"),
        "input_shape": list(context.dataset.input_shape),
        "classes": context.dataset.classes,
    }
    return any(
        all(record.get(key) == value for key, value in wanted.items())
        for record in table.provenance
    )


def obtain(context: Context, folder: Path | None, progress: Progress) -> LatencyTable:
    """Return the latency table of a run; what is missing is measured.

    The run folder keeps a copy of its own, which grows when the search meets a new kernel.

    Args:
        context: The parts of the run.
        folder: The run folder; None keeps the table in memory.
        progress: Told how far the measuring is.

    Raises:
        TableMismatch: The table that was named is of another device.
        UserInputError: It is missing or damaged.
        DeviceError: The runtime refuses a network.
    """
    device = context.device
    own = None if folder is None else folder / FILE
    if own is not None and own.exists():
        table = LatencyTable.load(own, device)
    elif context.config.latency.table != "auto":
        table = LatencyTable.load(context.config.latency.table, device)
    else:
        found = find_table(device)
        table = found if found is not None else LatencyTable(device.fingerprint)
    table.path = own
    if device.is_here and not covers(table, context):
        measure(context, table, progress)
    if own is None:
        return table
    table.save(own)
    # As a resumed run reads it: the order of its entries decides the last bits of the calibration.
    return LatencyTable.load(own, device)


def measure(context: Context, table: LatencyTable, progress: Progress) -> None:
    """Measure the space's kernels, and some whole networks, into a table."""
    from hwnas.latency.profiler import profile

    settings = context.config.latency
    profile(
        context.deployed,
        context.device,
        table=table,
        networks=settings.profile_samples,
        calibration_networks=most_calibration(settings.profile_samples),
        protocol=protocol_of(context),
        seed=context.config.seed,
        progress=as_steps(progress),
    )


def most_calibration(samples: int) -> int:
    """Return how many of some networks are measured whole."""
    return min(samples, _MOST_CALIBRATION)


def protocol_of(context: Context) -> Protocol:
    """Return how to time: the default protocol with the configured number of rounds."""
    from hwnas.latency.timing import Protocol

    return Protocol(rounds=context.config.latency.profile_rounds)


def profile_to(
    context: Context, out: Path | None, compare: Path | None, progress: Progress
) -> Profiled:
    """Measure a new table, or extend the one in `out` (anew when comparing), and write it.

    Args:
        context: Says which space, images and device.
        out: The file; by default the user's table of this device, which ``auto`` finds.
        compare: A table to compare with.
        progress: Told how far the measuring is.

    Raises:
        TableMismatch: A table is of another device.
        UserInputError: A table is damaged or cannot be written.
    """
    device = context.device
    path = out or default_path(device, user_folder())
    old = None if compare is None else LatencyTable.load(compare)
    # To compare is to measure anew: what the file holds would be compared with itself.
    is_known = path.exists() and compare is None
    table = LatencyTable.load(path, device) if is_known else LatencyTable(device.fingerprint)
    measure(context, table, progress)
    table.save(path)
    return summarise(table, "" if old is None else difference(old, table))


def summarise(table: LatencyTable, comparison: str = "") -> Profiled:
    """Return what a person wants to know of a table."""
    spreads = sorted(entry.spread for entry in table.entries.values())
    return Profiled(
        path=table.path or Path(FILE),
        entries=len(table.entries),
        networks=len(table.networks),
        median_spread=spreads[len(spreads) // 2] if spreads else 0.0,
        disturbed=sum(entry.accepted == 0 for entry in table.entries.values()),
        comparison=comparison,
    )


def difference(old: LatencyTable, new: LatencyTable) -> str:
    """Return one line: how the kernels that both tables have differ."""
    ratios = sorted(
        new.entries[key].ms / old.entries[key].ms
        for key in old.entries.keys() & new.entries.keys()
        if old.entries[key].ms > 0
    )
    if not ratios:
        return "the two tables have no kernel in common"
    middle = ratios[len(ratios) // 2]
    within = sum(abs(math.log(each)) <= math.log(1.1) for each in ratios) / len(ratios)
    return (
        f"{len(ratios)} kernels in both · median ratio new/old {middle:.2f} · "
        f"{within:.0%} within 10 % · from {ratios[0]:.2f} to {ratios[-1]:.2f}"
    )


def as_steps(progress: Progress) -> Callable[[str, int, int], None]:
    """Adapt the profiler's reports: a step's name, how much is done, how much it is."""
    seen: dict[str, int] = {}

    def report(step: str, done: int, total: int) -> None:
        task = f"profile {step}"
        if step not in seen:
            progress.start(task, total)
            seen[step] = 0
        progress.advance(task, done - seen[step])
        seen[step] = done

    return report
