"""Tables from elsewhere: of devices without hwnas, by bundles, and published ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.engine.progress import Progress
from hwnas.errors import UserInputError
from hwnas.latency.table import LatencyTable, user_folder
from hwnas.study.context import Context
from hwnas.study.tables import Profiled, as_steps, most_calibration, protocol_of, summarise

if TYPE_CHECKING:
    from hwnas.latency.remote.bundle import Bundle


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        path: The file that was written.
        summary: One line for people.
        notes: What to know of it.
        is_table: Whether a search can use it as `latency.table`.
    """

    path: Path
    summary: str
    notes: tuple[str, ...] = ()
    is_table: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"table": str(self.path), "summary": self.summary, "notes": list(self.notes)}


def bundle_to(context: Context, path: Path, progress: Progress) -> Bundle:
    """Write a bundle of the space's kernels and of some of its networks.

    Raises:
        UserInputError: The file cannot be written.
        DeviceError: The runtime refuses a network.
    """
    from hwnas.latency.remote.bundle import write_bundle

    settings = context.config.latency
    return write_bundle(
        path,
        context.deployed,
        context.device,
        networks=settings.profile_samples,
        calibration_networks=most_calibration(settings.profile_samples),
        protocol=protocol_of(context),
        seed=context.config.seed,
        progress=as_steps(progress),
    )


def profile_over_ssh(
    context: Context, target: str, out: Path | None, progress: Progress
) -> Imported:
    """Measure a device over SSH.

    Args:
        context: Says which space and images.
        target: ``user@host`` or ``user@host:port``.
        out: The table's file; by default below the user's tables.
        progress: Told how far the measuring is.

    Raises:
        UserInputError: The target is no host, or what came back is damaged.
        DeviceError: As `hwnas.latency.remote.ssh.Ssh.measure`.
    """
    import tempfile

    from hwnas.latency.remote.ssh import Ssh

    report = as_steps(progress)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        bundle = bundle_to(context, Path(folder) / "bundle.zip", progress)
        found = Ssh(target).measure(bundle, lambda done, total: report("timing", done, total))
    return _save_remote(*found, out)


def import_file(path: Path, out: Path | None = None, bundle: Path | None = None) -> Imported:
    """Import or convert a file, told apart by its content.

    Results of a bundle become a table. A table of blocks is written as what the suffix of `out`
    says. Measured networks (CSV, Parquet) calibrate the table `out`; a table's own networks are
    written where `out` is such a file.

    Args:
        path: ``results.json``; a published table of blocks in YAML or JSON; measured networks as
            CSV or Parquet; or a latency table.
        out: The file to write. A table of blocks is written as JSON or, where the suffix is
            ``.yaml``, as its authors do.
        bundle: The bundle that the results must be of.

    Raises:
        UserInputError: The file is missing, damaged, or nothing that can be imported.
    """
    from hwnas.latency.blocks import BlockTable, is_block_table
    from hwnas.latency.measured import SUFFIXES, write_networks
    from hwnas.latency.remote.bundle import read_manifest
    from hwnas.latency.remote.results import is_results, read_results

    if not path.is_file():
        raise UserInputError(f"{path} does not exist", "give a results.json or a table of blocks")
    if path.suffix in SUFFIXES:
        return _calibrate_with(path, out)
    if out is not None and out.suffix in SUFFIXES:
        table = LatencyTable.load(path)
        write_networks(out, table.networks)
        return Imported(out, f"{len(table.networks)} networks of {path}", is_table=False)
    if is_results(path):
        manifest = None if bundle is None else read_manifest(bundle)
        return _save_remote(*read_results(path, manifest), out)
    if is_block_table(path):
        blocks = BlockTable.load(path)
        target = out or Path(f"{path.stem}.blocks.json")
        blocks.save(target)
        return Imported(target, f"{len(blocks.entries)} blocks")
    raise UserInputError(
        f"{path} is nothing that can be imported",
        "give a results.json that run.py wrote, or a table of blocks (ProxylessNAS, OFA)",
    )


def _calibrate_with(path: Path, out: Path | None) -> Imported:
    from hwnas.latency.device import Device
    from hwnas.latency.measured import compare, read_networks

    if out is None or not out.is_file():
        raise UserInputError(
            f"{path} holds networks, and there is no table to enter them in",
            "name the table of that device with --out",
        )
    table = LatencyTable.load(out)
    device = Device.elsewhere(table.fingerprint)
    networks = read_networks(path, device)
    before = compare(table, networks)
    new = {(each.space, each.id) for each in networks}
    table.networks = [each for each in table.networks if (each.space, each.id) not in new]
    table.networks += networks
    table.save(out)
    note = "none of them could be predicted: the table lacks kernels of each"
    if before is not None:
        note = (
            f"{before.compared} of them were predicted: {before.within_10:.0%} within 10 %, median "
            f"measured/predicted {before.median_ratio:.2f}"
        )
    return Imported(out, f"{len(networks)} networks entered", (note,))


def _save_remote(table: LatencyTable, notes: list[str], out: Path | None) -> Imported:
    fingerprint = table.fingerprint
    path = out or user_folder() / "imported" / fingerprint.id / f"{fingerprint.runtime}.json"
    table.save(path)
    made: Profiled = replace(summarise(table), path=path)
    return Imported(path, f"{fingerprint.id}: {made.summary}", tuple(notes))
