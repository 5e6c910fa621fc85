"""Writing files that survive a kill, and errors of the file system in plain words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hwnas.errors import RunFolderError

_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EACCES: ("permission denied", "change its permissions, or choose another folder"),
    errno.EPERM: ("permission denied", "change its permissions, or choose another folder"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
}


def write_error(path: Path, error: OSError) -> RunFolderError:
    """Return the error to show for a failed write: what, where, and what to do."""
    reason, remedy = _REASONS.get(
        error.errno or 0, (error.strerror or str(error), "choose another folder")
    )
    return RunFolderError(
        f"cannot write {path}: {reason}",
        f"{remedy}; what was saved before is kept, and a run continues with --resume",
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a one-line error that names `path`.

    Raises:
        RunFolderError: The disk is full, the folder is read-only, and the like.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (renames, new files)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old or the new one, never a part.

    Raises:
        RunFolderError: The file cannot be written; the old one is still there.
    """
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        try:
            write_synced(partial, data)
            partial.replace(path)
            sync_folder(path.parent)
        except OSError:
            # A full disk must not stay full because of our half-written file.
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
