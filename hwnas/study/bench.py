"""Measures and predicts the latency of any ONNX file on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.engine.progress import Progress, Silent
from hwnas.errors import DeviceError, HwnasError, UserInputError
from hwnas.latency.device import Device
from hwnas.latency.files import Shapes, kernels_of_file, open_sizes, read_model
from hwnas.latency.predictor import LatencyPredictor
from hwnas.latency.table import LatencyTable, find_table
from hwnas.study.tables import FILE, imported_table

if TYPE_CHECKING:
    from hwnas.graph.architecture import Architecture
    from hwnas.latency.intervals import Difference
    from hwnas.latency.timing import Measurement, Stopwatch
    from hwnas.spaces import SearchSpace
    from hwnas.study.pricing import Pricing

_COVERAGE = 0.9
#: More rounds are measured, up to twice as many, until intervals are this narrow.
_PRECISION = 0.03
#: From this share of disturbed anchors on, the user is told.
_BUSY = 0.5


@dataclass(frozen=True)
class Predicted:
    """What the table says of a model.

    Attributes:
        model: The file, or the architecture's id.
        ms: Predicted milliseconds; None if the table lacks some of its kernels.
        low_ms: Lower end of the interval; None without one.
        high_ms: Upper end.
        kernels: Kernels that the runtime executes for it.
        known: How many of them the table has.
        missing: Signatures that it lacks.
        table: The table's file.
        open_sizes: Inputs with sizes that the file leaves open; these were taken as 1.
        refusal: Why the runtime refuses the model; empty if it does not.
    """

    model: str
    ms: float | None
    low_ms: float | None
    high_ms: float | None
    kernels: int
    known: int
    missing: list[str]
    table: str
    open_sizes: list[str] = field(default_factory=list)
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @property
    def share(self) -> float:
        """Share of the kernels that the table has."""
        return self.known / max(self.kernels, 1)

    def cells(self) -> list[str]:
        """Return the cells of a table's row."""
        interval = "–"
        if self.low_ms is not None and self.high_ms is not None:
            interval = f"{self.low_ms:.3g} to {self.high_ms:.3g} ms"
        return [self.model, _ms(self.ms), interval, str(self.kernels), f"{self.share:.0%}"]


@dataclass
class Bench:
    """What was measured of a model.

    Attributes:
        model: The file.
        ms: Least undisturbed CPU time of one inference.
        low_ms: In 95 % of cases a second measurement finds at least this; None if too little was
            measured to say.
        high_ms: … and at most this.
        wall_ms: Least wall time.
        median_ms: Median of the undisturbed CPU times.
        spread: (80 % - 20 % quantile) / minimum.
        samples: Samples taken.
        accepted: Samples during which the machine was calm.
        predicted_ms: From the table, where it has all kernels.
        notes: What to know about these figures.
        slower: By which share it is slower than the first model, in the same rounds: ``share``,
            its 95 % interval ``low`` to ``high``, and whether that excludes 0 (``is_told``).
    """

    model: str
    ms: float
    low_ms: float | None
    high_ms: float | None
    wall_ms: float
    median_ms: float
    spread: float
    samples: int
    accepted: int
    predicted_ms: float | None = None
    notes: list[str] = field(default_factory=list)
    slower: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    def cells(self) -> list[str]:
        """Return the cells of a table's row."""
        return [
            self.model,
            _ms(self.ms),
            "–" if self.low_ms is None else f"{self.low_ms:.3g} to {_ms(self.high_ms)}",
            _ms(self.wall_ms),
            _ms(self.predicted_ms),
        ]


def bench(
    models: Sequence[Path],
    *,
    runtime: Device | str | None = None,
    rounds: int = 8,
    table: str = "auto",
    shapes: Shapes | None = None,
    progress: Progress | None = None,
) -> list[Bench]:
    """Measure models in turns.

    Args:
        models: ONNX files.
        runtime: The device, or its name as in `Device.named`; ONNX Runtime by default.
        rounds: Visits to each model.
        table: A latency table's file; ``auto`` looks for one beside the model and for this device.
        shapes: Sizes of inputs that the files leave open; the rest of these is taken as 1.
        progress: Told how far the measuring is.

    Raises:
        UserInputError: A file is missing or is no ONNX model.
        DeviceError: The runtime refuses a model.
    """
    from hwnas.latency.intervals import difference
    from hwnas.latency.profiler import measure_models
    from hwnas.latency.timing import Protocol, Stopwatch

    device = _device(runtime)
    progress = progress or Silent()
    loaded = {
        str(path): read_model(path, shapes, is_one_of_many=len(models) > 1) for path in models
    }
    optimised = {name: device.runtime.optimise(each) for name, each in loaded.items()}
    progress.start("bench", rounds * len(loaded))
    done = 0

    def report(count: int, _total: int) -> None:
        nonlocal done
        progress.advance("bench", count - done)
        done = count

    stopwatch = Stopwatch(device.runtime, Protocol(rounds=rounds, precision=_PRECISION))
    measured = measure_models(optimised, device, stopwatch, report)
    first = next(iter(loaded))
    taken_as_one = {name: sizes for name, each in loaded.items() if (sizes := open_sizes(each))}
    rows = [
        _bench(name, measured[name], _try_predict(Path(name), device, table, shapes))
        for name in loaded
    ]
    for row in rows:
        if row.model in taken_as_one:
            row.notes.append(open_note(row.model, taken_as_one[row.model]))
    for row in rows[1:]:
        found = difference(measured[first].visit_ms, measured[row.model].visit_ms)
        row.slower = {**asdict(found), "is_told": found.is_told}
        row.notes.append(_verdict(row.model, first, found))
    if stopwatch.disturbed_share > _BUSY:
        rows[0].notes.append(_busy(stopwatch))
    return rows


def predict(
    models: Sequence[Path],
    *,
    runtime: Device | str | None = None,
    table: str = "auto",
    shapes: Shapes | None = None,
) -> list[Predicted]:
    """Predict the latency of ONNX files from a table; nothing is run.

    Args:
        models: ONNX files.
        runtime: The device, or its name as in `Device.named`; ONNX Runtime by default.
        table: A latency table's file; ``auto`` looks for one beside the model and for this device.
        shapes: Sizes of inputs that the files leave open; the rest of these is taken as 1.

    Raises:
        UserInputError: A file is missing or is no ONNX model, there is no table, or it is damaged.
        TableMismatch: The table is of another device.
        DeviceError: The runtime refuses a model.
    """
    imported = imported_table(table)
    device = Device.elsewhere(imported.fingerprint) if imported is not None else _device(runtime)
    return [
        predict_file(path, device, predictor, shapes, is_one_of_many=len(models) > 1)
        for path, predictor in _predictors(models, device, table)
    ]


def predict_architectures(
    space: SearchSpace, pricing: Pricing, architectures: Sequence[Architecture]
) -> list[Predicted]:
    """Predict the latency of architectures of a space; kernels that are missing are measured."""
    for each in architectures:
        space.graph(each)  # refuses an architecture of another space with a clear message
    return [
        Predicted(
            model=each.id,
            ms=found.ms,
            low_ms=found.low_ms if math.isfinite(found.high_ms) else None,
            high_ms=found.high_ms if math.isfinite(found.high_ms) else None,
            kernels=found.kernels,
            known=found.kernels,
            missing=[],
            table=str(pricing.table.path or "measured now"),
        )
        for each, found in zip(architectures, pricing.predict(architectures), strict=True)
    ]


def _device(named: Device | str | None) -> Device:
    return named if isinstance(named, Device) else Device.named(named or "onnxruntime")


def table_for(model: Path, device: Device, named: str) -> LatencyTable:
    """Return the table to predict a model with: named, beside the model, or of this device.

    Raises:
        UserInputError: There is none, or it is damaged.
        TableMismatch: It is of another device.
    """
    if named != "auto":
        return LatencyTable.load(named, device)
    beside = model.parent / FILE
    if beside.exists():
        return LatencyTable.load(beside, device)
    found = find_table(device)
    if found is None:
        raise UserInputError(
            "there is no latency table of this machine",
            "measure one with: hwnas profile, or name one with --table",
        )
    return found


def predict_file(
    path: Path,
    device: Device,
    predictor: LatencyPredictor,
    shapes: Shapes | None = None,
    *,
    is_one_of_many: bool = False,
) -> Predicted:
    """Predict one file; a kernel that the table lacks is named, never counted as nothing.

    Among many files, one that the runtime refuses is a row that says so.
    """
    try:
        counts, left_open = kernels_of_file(path, device, shapes, is_one_of_many=is_one_of_many)
    except DeviceError as error:
        if not is_one_of_many:
            raise
        where = str(predictor.table.path)
        return Predicted(str(path), None, None, None, 0, 0, [], where, refusal=error.message)
    table = predictor.table
    missing = sorted(each for each in counts if each not in table.entries)
    known = sum(count for each, count in counts.items() if each in table.entries)
    ms = low = high = None
    if not missing:
        prediction = predictor.predict_counts(counts)
        ms = prediction.ms
        if math.isfinite(prediction.high_ms):
            low, high = prediction.low_ms, prediction.high_ms
    total = sum(counts.values())
    name = str(path)
    return Predicted(name, ms, low, high, total, known, missing, str(table.path), left_open)


def _predictors(
    paths: Sequence[Path], device: Device, named: str
) -> Iterator[tuple[Path, LatencyPredictor]]:
    """Yield each file with a predictor; files with the same table share it."""
    known: dict[Path, LatencyPredictor] = {}
    for path in paths:
        folder = path.parent
        if folder not in known:
            table = table_for(path, device, named)
            same = (each for each in known.values() if each.table.path == table.path)
            known[folder] = next(same, None) or LatencyPredictor(table, device, coverage=_COVERAGE)
        yield path, known[folder]


def _try_predict(path: Path, device: Device, table: str, shapes: Shapes | None) -> Predicted | str:
    """Return the prediction, or why there is none: measuring does not need one."""
    try:
        ((_, predictor),) = _predictors([path], device, table)
        return predict_file(path, device, predictor, shapes, is_one_of_many=True)
    except HwnasError as error:
        if table != "auto":
            raise
        return error.message


def _bench(name: str, measured: Measurement, predicted: Predicted | str) -> Bench:
    notes = []
    ms = None
    if isinstance(predicted, str):
        notes.append(f"no prediction: {predicted}")
    elif predicted.refusal:
        notes.append(f"no prediction: {predicted.refusal}")
    elif predicted.ms is None:
        notes.append(
            f"no prediction: the table has {predicted.share:.0%} of its kernels and lacks "
            f"{len(predicted.missing)} different ones ({predicted.table})"
        )
    else:
        ms = predicted.ms
    low, high = measured.interval_ms
    if measured.accepted == 0:
        notes.append("the machine was never calm while measuring: repeat when it is idle")
    return Bench(
        model=name,
        ms=measured.ms,
        low_ms=low if math.isfinite(high) else None,
        high_ms=high if math.isfinite(high) else None,
        wall_ms=measured.wall_ms,
        median_ms=measured.median_ms,
        spread=measured.spread,
        samples=measured.samples,
        accepted=measured.accepted,
        predicted_ms=ms,
        notes=notes,
    )


def open_note(model: str, found: Sequence[str]) -> str:
    """Return one sentence: which sizes were taken as 1."""
    return f"{model} leaves sizes open, taken as 1: {', '.join(found)}; give them with --shape"


def _verdict(model: str, first: str, found: Difference) -> str:
    """Return one sentence: which is faster, or that it cannot be told."""
    if not math.isfinite(found.low):
        return f"{model} against {first}: too few rounds to compare; give more --repeats"
    bounds = f"95 % interval {found.low:+.1%} to {found.high:+.1%}"
    if not found.is_told:
        return f"{model} against {first}: no difference can be told ({bounds})"
    word = "slower" if found.share > 0 else "faster"
    return f"{model} is {abs(found.share):.1%} {word} than {first} ({bounds})"


def _busy(stopwatch: Stopwatch) -> str:
    """Return one sentence: how much the machine was disturbed, and by whom."""
    found = stopwatch.contention
    others = [
        f"{share:.0%} {what}"
        for share, what in (
            (found.waited, "waiting for a core"),
            (found.stolen, "taken by the host"),
        )
        if share is not None and share >= 0.01
    ]
    who = f" ({', '.join(others)})" if others else ""
    return (
        f"the machine was busy: {stopwatch.disturbed_share:.0%} of the control measurements were "
        f"disturbed{who}; times are upper bounds and intervals are wide"
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"
