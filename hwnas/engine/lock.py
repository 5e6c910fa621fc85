"""One writer for a run folder; the kernel releases the lock however the process ends."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from hwnas.engine.files import write_error
from hwnas.errors import RunFolderError


class FolderLock:
    """Holds an exclusive lock on a file from creation until `release`.

    Args:
        path: The lock file; it stays there, its content is the process id of the last holder.

    Raises:
        RunFolderError: Another process holds it (its id is in the message), or the file cannot be
            written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise RunFolderError(
                    f"{path.parent} is in use by process {holder or 'unknown'}",
                    "wait for it to end, stop it, or use another folder",
                ) from None
            raise write_error(path, error) from error

    def release(self) -> None:
        """Let others have it; doing so twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_locked(path: Path) -> bool:
    """Tell whether a living process holds the lock file; changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
