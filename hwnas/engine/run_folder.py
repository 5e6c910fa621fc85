"""The run folder: all that a run is, and all that is needed to continue it.

```
run/
├── config.yaml       the resolved configuration
├── run.json          state, versions, git, command, seed
├── trials.db         every trial (SQLite)
├── events.jsonl      what happened, one JSON object a line
├── checkpoints/      the last two: <step>/{tensors.safetensors,state.json}
├── artifacts/        exported networks and the like
└── run.lock          held while a process works in the folder
```
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import yaml

from hwnas.engine import provenance
from hwnas.engine.checkpoints import Checkpoints
from hwnas.engine.events import Event, EventLog, read_events
from hwnas.engine.files import replace_file, writing
from hwnas.engine.lock import FolderLock, is_locked
from hwnas.engine.progress import Interrupted
from hwnas.engine.trials_db import TrialsDb
from hwnas.errors import HwnasError, RunFolderError

State: TypeAlias = Literal["running", "interrupted", "finished", "failed"]
_FORMAT = 1
_LEFTOVERS = {"run.lock", "config.yaml", "config.yaml.partial", "run.json.partial"}


class RunRecord:
    """A run folder opened for reading: no lock is taken and nothing is written.

    Args:
        path: The folder.

    Raises:
        RunFolderError: It is not a run, or its configuration is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = _read_info(self.path)
        self.config: dict[str, Any] = _read_config(self.path / "config.yaml")

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.info["seed"])

    @property
    def state(self) -> State:
        """How the run stands; a run whose process was killed counts as interrupted."""
        state: State = self.info["state"]
        if state == "running" and not is_locked(self.path / "run.lock"):
            return "interrupted"
        return state

    @property
    def artifacts(self) -> Path:
        """Folder of exported networks and the like; it may not exist yet."""
        return self.path / "artifacts"

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints."""
        return Checkpoints(self.path / "checkpoints")

    def read_events(self) -> list[Event]:
        """Return all complete events."""
        return read_events(self.path / "events.jsonl")

    def read_trials(self) -> TrialsDb:
        """Open the trials for reading; close it after use."""
        if not (self.path / "trials.db").exists():
            raise RunFolderError(f"{self.path} has no trials.db", "restore it from a copy")
        return TrialsDb(self.path / "trials.db", is_read_only=True)


class RunFolder(RunRecord):
    """A run folder that this process works in, made by `create` or `open`.

    Use it as a context manager, or call `close`.

    Attributes:
        trials: The trials.
        events: The event log.
    """

    def __init__(self, path: Path | str, lock: FolderLock) -> None:
        super().__init__(path)
        self._lock = lock
        self._depth = 0
        with writing(self.artifacts):
            self.artifacts.mkdir(exist_ok=True)
        self.events = EventLog(self.path / "events.jsonl")
        self.trials = TrialsDb(self.path / "trials.db")

    @classmethod
    def create(
        cls, path: Path | str, config: Mapping[str, Any], *, seed: int = 0, command: str = ""
    ) -> RunFolder:
        """Make a new run in a folder that is empty or does not exist.

        Args:
            path: The folder; its parents are made too.
            config: The resolved configuration; only JSON values.
            seed: Seed of the run.
            command: The command line that repeats the run.

        Raises:
            RunFolderError: The folder holds something else or another run, is in use, or cannot be
                written.
        """
        path = Path(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            foreign = sorted({each.name for each in path.iterdir()} - _LEFTOVERS)
        if foreign and "run.json" not in foreign:
            raise RunFolderError(
                f"{path} is not empty and not a run (it contains {foreign[0]!r})",
                "choose a new folder",
            )
        lock = FolderLock(path / "run.lock")
        try:
            _check_unused(path)
            text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)
            replace_file(path / "config.yaml", text.encode())
            # Written last: a folder without it is no run, and can be used again.
            _write_info(path, _new_info(seed, command))
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path | str, config: Mapping[str, Any] | None = None) -> RunFolder:
        """Open an existing run to continue it.

        Args:
            path: The folder.
            config: If given, it must equal the stored configuration.

        Raises:
            RunFolderError: It is not a run, is in use, is damaged, or has another configuration
                (the differences are named).
        """
        path = Path(path)
        _read_info(path)
        lock = FolderLock(path / "run.lock")
        try:
            if config is not None:
                _check_same(path, _read_config(path / "config.yaml"), _plain(config))
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def resume_command(self) -> str:
        """What to type to continue this run."""
        return f"hwnas search --resume {shlex.quote(str(self.path))}"

    def update(self, **fields: Any) -> None:
        """Change fields of `run.json`, atomically.

        Raises:
            RunFolderError: It cannot be written.
        """
        self.info = self.info | fields | {"updated": _now()}
        _write_info(self.path, self.info)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the state of the run true while the block works: running, then how it ended.

        May be nested; the outermost block decides.

        Raises:
            Interrupted: Ctrl-C was pressed; the hint is the command that continues the run.
        """
        self._depth += 1
        try:
            if self._depth == 1:
                self.update(state="running", error=None)
            yield
            if self._depth == 1:
                self.update(state="finished")
        except KeyboardInterrupt:
            self._try_update(state="interrupted")
            raise Interrupted(
                f"interrupted; the run is saved in {self.path}",
                f"continue with: {self.resume_command}",
            ) from None
        except Interrupted:
            raise
        except Exception as error:
            text = error.message if isinstance(error, HwnasError) else repr(error)
            self._try_update(state="failed", error=text)
            raise
        finally:
            self._depth -= 1

    def close(self) -> None:
        """Close all files and let other processes use the folder; doing so twice is fine."""
        self.trials.close()
        self._lock.release()

    def __enter__(self) -> Self:
        """Return the folder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _try_update(self, **fields: Any) -> None:
        """Update, unless the disk refuses: the error on its way matters more than its record."""
        with suppress(RunFolderError):
            self.update(**fields)


def _check_unused(path: Path) -> None:
    if (path / "run.json").exists():
        raise RunFolderError(
            f"{path} already holds a run",
            f"continue it with --resume {path}, or choose a new folder",
        )


def _new_info(seed: int, command: str) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "state": "running",
        "error": None,
        "seed": seed,
        "command": command,
        "created": _now(),
        "updated": _now(),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "machine": provenance.machine(),
    }


def _write_info(path: Path, info: Mapping[str, Any]) -> None:
    replace_file(path / "run.json", (json.dumps(info, indent=1) + "\n").encode())


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        info = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "is not a run (it has no run.json)" if folder.exists() else "does not exist"
        raise RunFolderError(
            f"{folder} {what}", "give the folder that `hwnas search` printed"
        ) from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}", "restore it from a copy") from error
    if not isinstance(info, dict) or info.get("format") != _FORMAT:
        raise RunFolderError(
            f"{path} is damaged or of another version of hwnas", "restore it from a copy"
        )
    return info


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(
            f"{path} cannot be read: {reason}", "restore it from a copy"
        ) from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} is not a mapping", "restore it from a copy")
    return config


def _check_same(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    old, new = _flat(stored), _flat(asked)
    missing = "(not set)"
    differences = [
        f"{key}: {old.get(key, missing)!r} in the run, {new.get(key, missing)!r} asked for"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]
    if differences:
        raise RunFolderError(
            f"{path} has another configuration: " + "; ".join(differences),
            "continue without changing it, or start a new run in another folder",
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix.removesuffix("."): value}
    flat: dict[str, Any] = {}
    for name, each in value.items():
        flat |= _flat(each, f"{prefix}{name}.")
    return flat


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce to JSON values, so that what is compared and what is stored are alike."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
