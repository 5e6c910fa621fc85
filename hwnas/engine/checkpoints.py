"""Checkpoints: tensors and JSON, written in one atomic step, each with a checksum."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.engine.files import sync_folder, write_synced, writing
from hwnas.errors import RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after `step` steps.

    Attributes:
        step: Number of finished steps (epochs).
        tensors: Contiguous tensors on the CPU, in the order in which they were given to `save`.
        state: Everything else, as JSON.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, newest last.

    A checkpoint is a folder `<step>/` with `tensors.safetensors` and `state.json`. It is written
    under another name, synced, and renamed, so that it exists completely or not at all.

    Args:
        folder: Where they are, created on the first `save`.
        keep: How many to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(each.name) for each in self.folder.iterdir() if each.name.isdigit())

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then drop the oldest beyond `keep`.

        Raises:
            RunFolderError: It cannot be written; earlier ones are untouched.
        """
        from safetensors.torch import save

        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        text = json.dumps(dict(state))
        content = {
            "format": _FORMAT,
            "step": step,
            "names": list(tensors),
            "tensors_sha256": hashlib.sha256(data).hexdigest(),
            "state_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "state": json.loads(text),
        }
        target, partial = self._path(step), self.folder / f"{step:06d}.partial"
        with writing(target):
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                write_synced(partial / "tensors.safetensors", data)
                write_synced(partial / "state.json", json.dumps(content).encode())
                sync_folder(partial)
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
                sync_folder(self.folder)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old), ignore_errors=True)

    def load(self, step: int) -> Checkpoint:
        """Read one checkpoint and verify its checksums.

        Raises:
            RunFolderError: It is damaged or missing; the message names the file.
        """
        from safetensors.torch import load

        folder = self._path(step)
        content = _read_state(folder / "state.json")
        path = folder / "tensors.safetensors"
        data = _read(path)
        if hashlib.sha256(data).hexdigest() != content["tensors_sha256"]:
            raise _damaged(path, "its checksum does not match")
        tensors = load(data)
        return Checkpoint(
            step, {name: tensors[name] for name in content["names"]}, content["state"]
        )

    def load_latest(
        self, on_damaged: Callable[[int, RunFolderError], None] | None = None
    ) -> Checkpoint | None:
        """Read the newest checkpoint that is intact.

        Damaged ones are renamed to `<step>.damaged` and reported.

        Args:
            on_damaged: Called with the step and the error for each damaged one.

        Returns:
            None if there is no checkpoint yet.

        Raises:
            RunFolderError: There are checkpoints, and all are damaged.
        """
        damaged: list[tuple[int, RunFolderError]] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step)
            except RunFolderError as error:
                damaged.append((step, error))
                continue
            for bad_step, reason in damaged:
                self._set_aside(bad_step)
                if on_damaged is not None:
                    on_damaged(bad_step, reason)
            return checkpoint
        if damaged:
            # Nothing is renamed here: a second attempt must not look like a run that never began.
            raise RunFolderError(
                f"{damaged[0][1].message}; no earlier checkpoint is intact either",
                "start again in a new folder, or restore this one from a copy",
            )
        return None

    def _set_aside(self, step: int) -> None:
        aside = self.folder / f"{step:06d}.damaged"
        with writing(aside):
            shutil.rmtree(aside, ignore_errors=True)
            self._path(step).rename(aside)

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06d}"


def _read_state(path: Path) -> dict[str, Any]:
    data = _read(path)
    try:
        content: dict[str, Any] = json.loads(data)
        if content["format"] != _FORMAT:
            raise _damaged(path, f"its format is {content['format']!r}, not {_FORMAT}")
        # Writing what was read gives the same text again, so the sum covers the parsed state.
        text = json.dumps(content["state"])
        if hashlib.sha256(text.encode()).hexdigest() != content["state_sha256"]:
            raise _damaged(path, "its checksum does not match")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"it is not what was written ({error})") from error
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error


def _damaged(path: Path, why: str) -> RunFolderError:
    return RunFolderError(
        f"checkpoint {path} is damaged: {why}", "the one before it is used where there is one"
    )
