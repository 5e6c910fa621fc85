"""Fills a latency table: which kernels does a space need, and how fast are they here?"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import hwnas
from hwnas.errors import DeviceError
from hwnas.export.onnx import to_onnx
from hwnas.latency.decompose import Decomposer, DecomposerState
from hwnas.latency.device import Device, host_state
from hwnas.latency.inside import cover, measure_inside
from hwnas.latency.kernels import Kernel
from hwnas.latency.table import Entry, LatencyTable, NetworkEntry, short_id
from hwnas.latency.timing import Measurement, Protocol, Run, Stopwatch, nothing
from hwnas.spaces import SPACES, SearchSpace

if TYPE_CHECKING:
    from onnx import ModelProto

#: Told the step (``kernels``, ``timing``, ``networks``), how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]

_NOTHING = "nothing"


class Network(NamedTuple):
    """A network in which kernels can be timed.

    Attributes:
        kernels: Signatures of its kernels.
        model: Makes it.
    """

    kernels: Collection[str]
    model: Callable[[], ModelProto]


def profile(
    space: SearchSpace,
    device: Device,
    *,
    table: LatencyTable | None = None,
    networks: int = 100,
    calibration_networks: int = 30,
    protocol: Protocol | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure what a space needs on a device.

    Sampled networks are exported and optimised by the runtime; each distinct kernel that the table
    does not have yet is measured on its own, and some whole networks for the calibration.

    Args:
        space: The space.
        device: The device; it must be this machine.
        table: A table of this device to extend; a new one if None.
        networks: Networks to take kernels from.
        calibration_networks: How many of them are measured as a whole too.
        protocol: How to time.
        seed: Decides which networks are sampled.
        progress: Told how far the work is.

    Returns:
        The table, `table` itself if given. It is not saved.

    Raises:
        TableMismatch: `table` belongs to another device.
        DeviceError: The runtime refuses a network or a kernel.
    """
    if table is None:
        table = LatencyTable(device.fingerprint)
    else:
        device.require(table.fingerprint, "the latency table to extend")
    before = host_state()
    name = space_name(space)
    report = progress or _no_progress
    decomposer = Decomposer(device.runtime, decomposer_state(table))
    sampled = sample_networks(space, networks, seed)
    kernels: dict[str, Counter[str]] = {}
    for done, (identity, graph) in enumerate(sampled.items(), 1):
        numbers = decomposer.learn(graph).kernels
        kernels[identity] = Counter(decomposer.signatures[each] for each in numbers)
        report("kernels", done, len(sampled))
    table.contexts = asdict(decomposer.state())

    stopwatch = Stopwatch(device.runtime, protocol)
    wanted = sorted({signature for counter in kernels.values() for signature in counter})
    measured = measure_kernels(
        [each for each in wanted if each not in table.entries],
        table, stopwatch, partial(report, "timing"),
        {name: Network(each, partial(to_onnx, sampled[name])) for name, each in kernels.items()},
    )  # fmt: skip
    chosen = list(sampled)[:calibration_networks]
    models = {each: device.runtime.optimise(to_onnx(sampled[each])) for each in chosen}
    whole = measure_models(models, device, stopwatch, partial(report, "networks"))
    known = {(each.space, each.id) for each in table.networks} - {(name, each) for each in whole}
    table.networks = [each for each in table.networks if (each.space, each.id) in known]
    table.networks += [
        NetworkEntry(
            name, each, round(result.ms, 6), round(result.wall_ms, 6), round(result.spread, 4),
            result.accepted, {short_id(s): n for s, n in sorted(kernels[each].items())},
        )
        for each, result in whole.items()
    ]  # fmt: skip
    table.provenance.append(
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "hwnas_version": hwnas.__version__,
            "space": name,
            "space_config": space.config.model_dump(mode="json"),
            "input_shape": list(space.input_shape),
            "classes": space.classes,
            "seed": seed,
            "sampled_networks": len(sampled),
            "measured_kernels": len(measured),
            "measured_networks": len(whole),
            "unclean_kernels": sum(each.accepted == 0 for each in measured.values()),
            "protocol": stopwatch.protocol.model_dump(),
            "anchor_clean_us": round(stopwatch.anchor_clean_ns / 1e3, 3),
            "disturbed_share": round(stopwatch.disturbed_share, 3),
            "contention": asdict(stopwatch.contention),
            "host_before": before,
            "host_after": host_state(),
        }
    )
    return table


def measure_kernels(
    signatures: Sequence[str],
    table: LatencyTable,
    stopwatch: Stopwatch,
    progress: Callable[[int, int], None] | None = None,
    networks: Mapping[str, Network] | None = None,
) -> Mapping[str, Measurement]:
    """Measure kernels by their signatures and enter them in a table.

    The cost of an empty call is measured along, and kept if it is the least so far.

    Args:
        signatures: The kernels.
        table: The table.
        stopwatch: How to time, and on which runtime.
        progress: Told how many visits are done and how many are planned.
        networks: Networks that run the kernels, for a runtime that times them inside networks.

    Raises:
        DeviceError: A kernel cannot be measured; the message names it.
    """
    if not signatures:
        return {}
    runtime = stopwatch.runtime
    if runtime.is_timed_inside:
        return _measure_inside(signatures, table, stopwatch, progress, networks or {})
    prepare: dict[str, Callable[[], Run]] = {
        each: partial(_prepare_kernel, stopwatch, each) for each in signatures
    }
    measured = stopwatch.measure_all(
        {_NOTHING: lambda: runtime.prepare_kernel(nothing()), **prepare}, progress
    )
    overhead = measured.pop(_NOTHING).ms
    table.overhead_ms = round(min(overhead, table.overhead_ms or overhead), 6)
    table.entries.update({each: Entry.of(result) for each, result in measured.items()})
    return measured


def _measure_inside(
    signatures: Sequence[str],
    table: LatencyTable,
    stopwatch: Stopwatch,
    progress: Callable[[int, int], None] | None,
    networks: Mapping[str, Network],
) -> Mapping[str, Measurement]:
    chosen = cover(signatures, {name: each.kernels for name, each in networks.items()})
    empty = stopwatch.measure(stopwatch.runtime.prepare_kernel(nothing())).ms
    table.overhead_ms = round(min(empty, table.overhead_ms or empty), 6)
    measured = measure_inside({name: networks[name].model for name in chosen}, stopwatch, progress)
    unknown = sorted(set(signatures) - measured.keys())
    if unknown:
        raise DeviceError(
            f"{len(unknown)} kernel(s) can only be timed inside a network, and none is given that "
            f"runs them: {unknown[0]}",
            "measure a network that has them with: hwnas bench",
        )
    # What is measured inside a network has no call of the runtime in it; entries have one.
    entries = {
        each: replace(
            measured[each],
            ms=measured[each].ms + table.overhead_ms,
            wall_ms=measured[each].wall_ms + table.overhead_ms,
        )
        for each in signatures
    }
    table.entries.update({each: Entry.of(result) for each, result in entries.items()})
    return entries


def measure_models(
    models: Mapping[str, ModelProto],
    device: Device,
    stopwatch: Stopwatch,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Measurement]:
    """Measure whole models that the runtime has already optimised, interleaved.

    Each visit loads its model anew: where its memory comes to lie is worth some per cent.
    """
    prepare = device.runtime.prepare
    return stopwatch.measure_all(
        {name: partial(prepare, each, optimise=False) for name, each in models.items()}, progress
    )


def measure_model(
    model: ModelProto, device: Device, protocol: Protocol | None = None
) -> Measurement:
    """Measure one model, as the runtime would run it.

    Args:
        model: Any ONNX model; unknown sizes of its inputs are taken as 1.
        device: The device; it must be this machine.
        protocol: How to time.

    Raises:
        DeviceError: The runtime refuses the model, or its outputs are not finite.
    """
    stopwatch = Stopwatch(device.runtime, protocol)
    return stopwatch.measure(device.runtime.prepare(model, optimise=True))


def decomposer_state(table: LatencyTable) -> DecomposerState | None:
    """Return what a table's decomposer had learned; None if that is lost or of another form."""
    try:
        return DecomposerState(**table.contexts) if table.contexts else None
    except TypeError:
        return None


def space_name(space: SearchSpace) -> str:
    """Return the name under which a space is registered, or its class's name."""
    for name, plugin in SPACES.items():
        if plugin is type(space):
            return name
    return type(space).__name__


def _prepare_kernel(stopwatch: Stopwatch, signature: str) -> Run:
    try:
        return stopwatch.runtime.prepare_kernel(Kernel.parse(signature))
    except DeviceError as error:
        raise DeviceError(f"kernel {signature}: {error.message}", error.hint) from error


def _no_progress(step: str, done: int, total: int) -> None:
    """Tell nobody."""


def sample_networks(space: SearchSpace, count: int, seed: int) -> dict[str, Any]:
    """Sample distinct architectures; fewer where the space is small."""
    # An architecture has the same id in two settings of a space, but is two networks.
    settings = [space.config.model_dump(mode="json"), space.input_shape, space.classes]
    prefix = short_id(json.dumps(settings))
    rng = random.Random(seed)
    graphs: dict[str, Any] = {}
    for _ in range(10 * count):
        if len(graphs) >= count:
            break
        architecture = space.sample(rng)
        graphs.setdefault(f"{prefix}/{architecture.id}", space.graph(architecture))
    return graphs
