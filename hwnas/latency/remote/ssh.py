"""Measures a device over SSH, with the system's `ssh` and `scp`: there and back in one call."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import DeviceError, UserInputError
from hwnas.latency.remote.bundle import Bundle, read_manifest
from hwnas.latency.remote.results import read_results
from hwnas.latency.table import LatencyTable

#: What `ssh` itself ends with when there is no connection.
_LOST = 255
#: What run.py ends with when another one is at work: that of a lost connection, for a moment.
_BUSY = 75
_TARGET = re.compile(
    r"^(?P<host>(?:\w[\w.-]*@)?(?:\w[\w.-]*|\[[0-9a-fA-F:]+\]))(?::(?P<port>\d{1,5}))?$"
)
_PROBE = (
    "import json,sys\n"
    "found={'python':list(sys.version_info[:3])}\n"
    "for name in ('numpy','onnxruntime'):\n"
    " try: found[name]=__import__(name).__version__\n"
    " except Exception as error: found[name]=None\n"
    "print('hwnas '+json.dumps(found))"
)
_UNPACK = "import sys,zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"


@dataclass(frozen=True)
class Ssh:
    """A device that can be reached over SSH.

    Attributes:
        target: ``user@host`` or ``user@host:port``, as in ssh's own configuration.
        options: More options for ssh and scp, such as ``("-F", "config")``.
        python: The interpreter there.
        attempts: How often a lost connection is made again.
        wait_s: How long to wait before that.
    """

    target: str
    options: tuple[str, ...] = ()
    python: str = "python3"
    attempts: int = 5
    wait_s: float = 3.0

    def measure(
        self, bundle: Bundle, progress: Callable[[int, int], None] | None = None
    ) -> tuple[LatencyTable, list[str]]:
        """Send a bundle, measure there, and bring the table back.

        A connection that is lost is made again, and what was measured there is not measured again;
        so it is, too, when this is called again with an equal bundle.

        Args:
            bundle: The bundle.
            progress: Told how many visits are done and how many are planned.

        Returns:
            As `read_results`.

        Raises:
            UserInputError: The target is no name of a host.
            DeviceError: There is no ssh here; the host cannot be reached; it has no Python, numpy
                or ONNX Runtime; the connection was lost for good; or the runner failed there.
        """
        self._check_here()
        self._check_there()
        name = f"hwnas-bundle-{bundle.sha256[:16]}"
        # Below the home folder: what is below /tmp may be another user's.
        self._ask(f"mkdir -p -m 700 {name}", "make a folder")
        self._copy(str(bundle.path), f"{self._host}:{name}/bundle.zip")
        unpack = f"{self.python} -c {shlex.quote(_UNPACK)} {name}/bundle.zip {name}"
        self._ask(unpack, "unpack the bundle")
        self._run(f"{self.python} {name}/run.py", progress)
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            path = Path(folder) / "results.json"
            self._copy(f"{self._host}:{name}/results.json", str(path))
            found = read_results(path, read_manifest(bundle.path))
        self._ask(f"rm -rf {name}", "clean up")  # or the next measuring would find this one
        return found

    @property
    def _parts(self) -> tuple[str, str | None]:
        match = _TARGET.match(self.target)
        if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
            raise UserInputError(f"{self.target!r} is no host", "give USER@HOST or USER@HOST:PORT")
        return match["host"], match["port"]

    @property
    def _host(self) -> str:
        return self._parts[0]

    def _command(self, program: str) -> list[str]:
        port = self._parts[1]
        number = [] if port is None else ["-p" if program == "ssh" else "-P", port]
        return [
            program, "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
            "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3", *number, *self.options,
        ]  # fmt: skip

    def _ssh(self, command: str) -> list[str]:
        host = self._host.replace("[", "").replace("]", "")
        return [*self._command("ssh"), host, command]

    def _check_here(self) -> None:
        self._parts  # noqa: B018  refuses what is no host, before anything is called
        missing = [each for each in ("ssh", "scp") if shutil.which(each) is None]
        if missing:
            raise DeviceError(
                f"there is no {' and no '.join(missing)} here",
                "install an SSH client (Debian: apt-get install openssh-client), or carry the file "
                "yourself: hwnas profile --bundle FILE",
            )

    def _check_there(self) -> None:
        done = self._tried(self._ssh(f"{self.python} -c {shlex.quote(_PROBE)}"))
        line = next((x for x in done.stdout.splitlines() if x.startswith("hwnas ")), None)
        if done.returncode == 127 or line is None:
            raise DeviceError(
                f"{self.target} has no {self.python}: {_last(done)}",
                "install Python 3.8 or newer there, with numpy and onnxruntime",
            )
        found = json.loads(line.removeprefix("hwnas "))
        if tuple(found["python"]) < (3, 8):
            version = ".".join(map(str, found["python"]))
            raise DeviceError(f"{self.target} has Python {version}", "3.8 or newer is needed there")
        missing = [each for each in ("numpy", "onnxruntime") if found[each] is None]
        if missing:
            raise DeviceError(
                f"{self.target} cannot import {' and '.join(missing)}",
                f"install there: {self.python} -m pip install {' '.join(missing)}",
            )

    def _ask(self, command: str, what: str) -> None:
        done = self._tried(self._ssh(command))
        if done.returncode:
            raise DeviceError(f"{self.target} cannot {what}: {_last(done)}")

    def _copy(self, source: str, destination: str) -> None:
        done = self._tried([*self._command("scp"), "-q", source, destination])
        if done.returncode:
            raise DeviceError(f"cannot copy to or from {self.target}: {_last(done)}")

    def _tried(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Call a program; when there is no connection, call it again."""
        for attempt in range(self.attempts):
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
            if done.returncode != _LOST:
                return done
            refused = re.search(r"denied|verification failed|resolve hostname", done.stderr)
            if refused or attempt == self.attempts - 1:
                break
            time.sleep(self.wait_s)
        raise DeviceError(
            f"cannot connect to {self.target}: {_last(done)}",
            "it must work without a question: ssh -o BatchMode=yes " + self.target,
        )

    def _run(self, command: str, progress: Callable[[int, int], None] | None) -> None:
        """Run the runner to its end, however often the connection is lost."""
        for attempt in range(self.attempts):
            code, last = self._follow(command, progress)
            if code == 0:
                return
            if code not in {_LOST, _BUSY}:
                raise DeviceError(f"run.py failed on {self.target} ({code}): {last}")
            if attempt < self.attempts - 1:
                time.sleep(self.wait_s)
        raise DeviceError(
            f"the connection to {self.target} was lost {self.attempts} times: {last}",
            "the same command goes on with what was measured there",
        )

    def _follow(self, command: str, progress: Callable[[int, int], None] | None) -> tuple[int, str]:
        last = ""
        with subprocess.Popen(
            self._ssh(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                last = line.strip() or last
                match = re.match(r"visit (\d{1,9}) of (\d{1,9}),", last)
                if match and progress is not None:
                    progress(int(match[1]), int(match[2]))
        return process.returncode, last


def _last(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a program said."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1][:300] if lines else f"exit code {done.returncode}"
