"""A run folder as plain, frozen data: the only input of the report.

A folder may be incomplete: a run that is still going, was killed, or lost a file. Whatever cannot
be read becomes a sentence in `RunData.problems` and an empty value, so that the report of the rest
can still be drawn.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml

from hwnas.errors import HwnasError, RunFolderError
from hwnas.report.quality import Quality
from hwnas.report.results import RunResults
from hwnas.spaces import SPACES

T = TypeVar("T")
_STEPS = ("epoch", "trial")


@dataclass(frozen=True)
class Trial:
    """One evaluated architecture.

    Attributes:
        trial_id: Its number, from 0 on.
        state: ``pending``, ``complete`` or ``failed``.
        architecture_id: Twelve hexadecimal digits.
        answers: The architecture's picks by name; lists for subsets.
        reward: What the strategy was told.
        accuracy: On the validation split, a fraction.
        latency_ms: Predicted, or measured where the search measures.
        train_time_s: Seconds.
        epoch: Epoch of the one-shot loop; None in the trials loop.
        message: Why it failed.
    """

    trial_id: int
    state: str
    architecture_id: str
    answers: Mapping[str, Any] = field(default_factory=dict)
    reward: float | None = None
    accuracy: float | None = None
    latency_ms: float | None = None
    train_time_s: float | None = None
    epoch: int | None = None
    message: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether it has a score."""
        return self.state == "complete"

    def meets(self, budget_ms: float | None) -> bool:
        """Whether its latency is within the budget; without a budget every trial is."""
        if budget_ms is None:
            return True
        return self.latency_ms is not None and self.latency_ms <= budget_ms


@dataclass(frozen=True)
class RunData:
    """All that a report knows of one run.

    Attributes:
        path: The run folder.
        config: `config.yaml`, resolved.
        run: `run.json`: how and when the run was started.
        events: Lines of `events.jsonl`, oldest first.
        trials: The trials by id.
        results: `results.json`; None where the run has none yet.
        problems: What could not be read and why.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    trials: tuple[Trial, ...] = ()
    results: RunResults | None = None
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run folder's name, which is unique among runs."""
        return self.path.name

    @property
    def budget_ms(self) -> float | None:
        """The latency budget: of the results, else of the configuration."""
        if self.results is not None and self.results.budget_ms is not None:
            return self.results.budget_ms
        objective = self.config.get("objective")
        value = objective.get("max_latency_ms") if isinstance(objective, Mapping) else None
        return float(value) if isinstance(value, (int, float)) else None

    @cached_property
    def quality(self) -> Quality:
        """What its scores say."""
        if self.results is not None:
            tasks = [row.task for row in self.results.headline]
            tasks += [candidate.task for candidate in self.results.front]
            if tasks:
                return Quality(tasks[0])
        name = self.plugin("space")
        task = SPACES.get(name).task if name in SPACES.names() else None
        return Quality(task or "classification")

    def plugin(self, section: str) -> str | None:
        """Return the name of the plug-in in a section of the configuration, such as ``space``."""
        value = self.config.get(section)
        name = value.get("name") if isinstance(value, Mapping) else value
        return name if isinstance(name, str) else None

    @property
    def complete_trials(self) -> tuple[Trial, ...]:
        """Trials that have a score."""
        return tuple(trial for trial in self.trials if trial.is_complete)

    @property
    def feasible_trials(self) -> tuple[Trial, ...]:
        """Trials that have a score and meet the budget."""
        return tuple(trial for trial in self.complete_trials if trial.meets(self.budget_ms))

    @property
    def command(self) -> str:
        """The command line that repeats the run; empty where it was not kept."""
        if self.results is not None and self.results.command:
            return self.results.command
        command = self.run.get("command")
        return command if isinstance(command, str) else ""

    @cached_property
    def series(self) -> Mapping[str, tuple[list[float], list[float]]]:
        """Every number that the search logged, as it went on: steps and values by name.

        A step is an epoch of the one-shot loop or a trial of the trials loop. Both lists are sorted
        by step; the last value counts where a step was repeated after a resume.
        """
        found: dict[str, dict[float, float]] = defaultdict(dict)
        for event in self.events:
            step = event.get("step")
            if event.get("kind") in _STEPS and _is_number(step):
                for name, value in event.items():
                    if name not in ("step", "trial") and _is_number(value):
                        found[name][step] = float(value)
        return {
            name: (sorted(values), [values[step] for step in sorted(values)])
            for name, values in found.items()
        }

    @property
    def step_unit(self) -> str:
        """What a step of the search is: ``epoch`` or ``trial``."""
        kinds = [str(event["kind"]) for event in self.events if event.get("kind") in _STEPS]
        return kinds[-1] if kinds else _STEPS[0]

    @classmethod
    def load(cls, path: Path) -> RunData:
        """Read a run folder.

        Raises:
            RunFolderError: The path is not a run folder.
        """
        if not path.is_dir():
            raise RunFolderError(f"{path} is not a run folder", "list the runs: hwnas ls runs")
        if not any((path / name).exists() for name in ("config.yaml", "run.json", "results.json")):
            raise RunFolderError(
                f"{path} is not a run folder: it has no config.yaml", "list the runs: hwnas ls runs"
            )
        problems: list[str] = []
        path = path.resolve()
        return cls(
            path=path,
            config=_part(problems, path / "config.yaml", _read_yaml, {}),
            run=_part(problems, path / "run.json", _read_json, {}),
            events=_part(problems, path / "events.jsonl", _events, ()),
            trials=_part(problems, path / "trials.db", _read_trials, ()),
            results=_part(problems, path / "results.json", RunResults.read, None),
            problems=tuple(problems),
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _part(problems: list[str], path: Path, read: Callable[[Path], T], default: T) -> T:
    """Read one file of the folder; note why not, and go on with the default."""
    if not path.exists():
        problems.append(f"{path.name} does not exist yet")
        return default
    try:
        return read(path)
    except HwnasError as error:
        problems.append(error.message)
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
    return default


def _read_yaml(path: Path) -> Mapping[str, Any]:
    return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))


def _read_json(path: Path) -> Mapping[str, Any]:
    return _mapping(json.loads(path.read_text(encoding="utf-8")))


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected names and values, found {type(value).__name__}")
    return value


def _read_trials(path: Path) -> tuple[Trial, ...]:
    from hwnas.engine.trials_db import TrialsDb

    database = TrialsDb(path, is_read_only=True)
    try:
        stored = database.all()
    finally:
        database.close()
    return tuple(
        Trial(
            trial_id=each.id,
            state=str(each.state),
            architecture_id=each.architecture.id,
            answers=each.architecture.to_json(),
            reward=_known(each.reward),
            accuracy=_known(each.metrics.accuracy) if each.metrics else None,
            latency_ms=_known(each.metrics.latency_ms) if each.metrics else None,
            train_time_s=_known(each.metrics.train_time_s) if each.metrics else None,
            epoch=each.epoch,
            message=each.error or "",
        )
        for each in stored
    )


def _known(value: float | None) -> float | None:
    """Drop what is not finite: it cannot be drawn, and JSON cannot say it."""
    return value if _is_number(value) else None


def _events(path: Path) -> tuple[Mapping[str, Any], ...]:
    from hwnas.engine.events import read_events

    return tuple(read_events(path))
