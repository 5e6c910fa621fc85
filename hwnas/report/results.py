"""The schema of `results.json`: what a study found, as the report and other programs read it.

`hwnas.study` fills a `RunResults` and writes it with `RunResults.write(run / "results.json")`,
as often as it likes: after the search, after training, after measuring. Everything that is not
known yet stays at its default (`None` or an empty list); the report says what is missing and why.

Units are in the names: accuracies are fractions in ``[0, 1]``, `_ms` is milliseconds of one
inference at batch 1, `_s` seconds. Numbers that are not finite are stored as null.

```
RunResults
├── headline: HeadlineRow …          baseline, knee, fastest, best: one row each
├── front: Candidate …               the candidates that were compared at the end
├── kernels: KernelTime …            where the chosen network's milliseconds go
├── prediction_checks                predicted against measured latency
├── ranking_checks                   inherited against retrained accuracy
├── drawings: Drawing …              the chosen network: cells, or the whole graph
├── table: TableProvenance           the latency table behind the predictions
└── command, seed, git, device, budget_ms, timings, notes
```
"""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hwnas.errors import RunFolderError


def _finite_or_none(value: object) -> object:
    """Turn NaN and infinity, which JSON does not have, into None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A finite number, or None where it is not known."""

Fraction = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None,
    BeforeValidator(_finite_or_none),
]
"""A number in ``[0, 1]``, or None where it is not known."""


class _Model(BaseModel):
    """Unknown keys are mistakes; values do not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchitectureRecord(_Model):
    """One architecture: `Architecture.id`, `Architecture.to_json()` and `SearchSpace.format`."""

    id: str
    text: str | None = None
    answers: dict[str, str | int | float | bool | list[int]] = Field(default_factory=dict)


class LatencyPrediction(_Model):
    """A predicted latency with its interval; `coverage` is the share that the interval covers."""

    ms: float
    low_ms: Number = None
    high_ms: Number = None
    coverage: Fraction = None


class HeadlineRow(_Model):
    """One line of the headline table.

    Attributes:
        role: ``baseline``, ``knee``, ``fastest`` or ``best`` (best within the budget); others are
            shown after these.
        architecture: What it is.
        accuracy_valid: On the validation split, after its own training (not inherited).
        accuracy_test: On the untouched test split.
        inherited_accuracy: On the validation split with the supernet's shared weights.
        predicted: From the latency table.
        measured_ms: Normalised median of the timing loop: what the budget is compared with.
        measured_wall_ms: The same without the normalisation to the anchor.
        measured_spread: Relative spread of the measurement, such as 0.03.
        params: Number of trained parameters.
        macs: Multiply-accumulates of one inference.
        train_time_s: Seconds of its own training.
        onnx: The exported file, relative to the run folder.
        parity_max_abs_difference: Largest absolute difference of a logit, ONNX against PyTorch.
        note: What else to know, such as ``largest network of the space``.
        task: What was learned; a language model's accuracies are 1 / perplexity.
    """

    role: str
    architecture: ArchitectureRecord
    accuracy_valid: Fraction = None
    accuracy_test: Fraction = None
    inherited_accuracy: Fraction = None
    predicted: LatencyPrediction | None = None
    measured_ms: Number = None
    measured_wall_ms: Number = None
    measured_spread: Number = None
    params: int | None = None
    macs: int | None = None
    train_time_s: Number = None
    onnx: str | None = None
    parity_max_abs_difference: Number = None
    note: str = ""
    task: str = "classification"


class Candidate(_Model):
    """One candidate that was compared at the end of the search.

    `accuracy` is on the validation split; `is_inherited` says with whose weights. Of a language
    model it is 1 / perplexity.
    """

    architecture: ArchitectureRecord
    accuracy: Fraction = None
    is_inherited: bool = True
    predicted: LatencyPrediction | None = None
    measured_ms: Number = None
    task: str = "classification"


class KernelTime(_Model):
    """One kernel of the chosen network, after the runtime's fusion.

    Attributes:
        op: Kind of kernel, such as ``FusedConv``.
        signature: The table's key: op, attributes, shapes, dtype.
        name: The layer or ONNX node that it runs.
        ms: Time of one call.
        is_measured: False where the time was estimated from other entries of the table.
    """

    op: str
    signature: str
    name: str = ""
    ms: float
    is_measured: bool = True


class PredictionCheck(_Model):
    """One architecture that was predicted and then measured on the device.

    `was_profiled`: its kernels took part in making or calibrating the table, so that it says
    little about new architectures.
    """

    architecture_id: str
    predicted: LatencyPrediction
    measured_ms: float
    was_profiled: bool = False


class RankingCheck(_Model):
    """One architecture that was scored with shared weights and then trained on its own."""

    architecture_id: str
    inherited_accuracy: float
    retrained_accuracy: float


class DrawnNode(_Model):
    """One box of a drawing: `label` is its title, `detail` a second, smaller line.

    `share` is its part of the network's latency in ``[0, 1]``, shown by colour if known.
    """

    id: str
    label: str
    detail: str = ""
    kind: Literal["input", "op", "join", "output"] = "op"
    share: Fraction = None


class DrawnEdge(_Model):
    """An arrow between two boxes, from `source` to `target` (ids of nodes)."""

    source: str
    target: str
    label: str = ""


class Drawing(_Model):
    """A graph to draw: a cell (``normal``, ``reduction``) or the whole ``network``."""

    title: str
    nodes: list[DrawnNode]
    edges: list[DrawnEdge]


class TableProvenance(_Model):
    """Where the latency table came from; `created` is when it was measured."""

    path: str
    device_id: str = ""
    runtime: str = ""
    runtime_version: str = ""
    created: datetime | None = None
    entries: int | None = None
    median_spread: Number = None
    device_matches: bool = True
    note: str = ""


class GitState(_Model):
    """The code that ran; `is_dirty` when there were changes that are not committed."""

    commit: str
    is_dirty: bool = False


class StageTiming(_Model):
    """Seconds that one stage took, such as ``profile`` or ``search``."""

    stage: str
    seconds: float


class RunResults(_Model):
    """All that a study found; the content of `results.json`.

    Attributes:
        schema_version: Grows when a field changes its meaning.
        name: Name of the run.
        created: When the file was written, with time zone.
        hwnas_version: The version that wrote it.
        command: The exact command line that repeats the run.
        seed: Seed of the run.
        git: State of the code, where it is a git checkout.
        budget_ms: Latency budget, None without one.
        device: `Device.fingerprint()`, any JSON values.
        table: The latency table.
        chosen: `role` of the headline row that was exported as the result.
        headline: Rows of the headline table.
        front: Candidates compared at the end, dominated ones too.
        kernels: Kernels of the chosen network.
        prediction_checks: Predicted against measured.
        ranking_checks: Inherited against retrained.
        drawings: The chosen network.
        timings: Seconds of each stage, in order.
        notes: Plain sentences for the reader, such as a missed budget.
    """

    schema_version: Literal[1] = 1
    name: str
    created: datetime
    hwnas_version: str = ""
    command: str = ""
    seed: int | None = None
    git: GitState | None = None
    budget_ms: Number = None
    device: dict[str, Any] = Field(default_factory=dict)
    table: TableProvenance | None = None
    chosen: str | None = None
    headline: list[HeadlineRow] = Field(default_factory=list)
    front: list[Candidate] = Field(default_factory=list)
    kernels: list[KernelTime] = Field(default_factory=list)
    prediction_checks: list[PredictionCheck] = Field(default_factory=list)
    ranking_checks: list[RankingCheck] = Field(default_factory=list)
    drawings: list[Drawing] = Field(default_factory=list)
    timings: list[StageTiming] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def chosen_row(self) -> HeadlineRow | None:
        """The headline row of the chosen network."""
        return next((row for row in self.headline if row.role == self.chosen), None)

    def write(self, path: Path) -> None:
        """Write the file atomically: a reader sees the old or the new one, never a part."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> RunResults:
        """Read what `write` wrote.

        Raises:
            RunFolderError: The file is missing, truncated or follows another schema.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"{path} does not exist: the run has no results yet",
                "finish it first: hwnas search --resume RUN",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RunFolderError(
                f"{path} is damaged or of another version: {where}: {first['msg']}",
                "write it again: hwnas train RUN",
            ) from error
