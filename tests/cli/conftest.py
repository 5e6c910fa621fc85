"""Runs verbs: in this process where possible, in one of their own where they must be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hwnas.cli._app import build
from hwnas.study import Study

ROOT = Path(__file__).parents[2]


class Ran:
    """What a verb printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture(scope="session")
def app() -> typer.Typer:
    return build()


@pytest.fixture
def hwnas(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a verb in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ran:
        found = CliRunner().invoke(app, [str(word) for word in words], prog_name="hwnas")
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Ran(found.exit_code, found.stdout, found.stderr)

    return run


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


class Python:
    """Runs things in a process of their own."""

    MAIN = "from hwnas.cli import main; main()"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self, *words: object, script: str = MAIN, before: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start a script, by default the command line, in an empty folder."""
        return subprocess.Popen(
            [*before, sys.executable, "-c", script, *map(str, words)],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 100) -> Ran:
        """Wait for a process; one that hangs is killed and fails the test."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Ran(process.returncode, out, err)

    def __call__(self, *words: object, script: str = MAIN, before: Sequence[str] = ()) -> Ran:
        return self.finish(self.start(*words, script=script, before=before))


@pytest.fixture
def python(tmp_path: Path) -> Python:
    return Python(tmp_path)


TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="session")
def tiny() -> Path:
    """A configuration whose search takes about a second."""
    return TINY


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latency table of this machine for the tiny space."""
    path = tmp_path_factory.mktemp("table") / "table.json"
    Study(TINY).profile(path)
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """A run with all stages done; copy it before changing it."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    study = Study(TINY, [f"latency.table={table}"])
    study.search(path)
    study.train()
    study.export()
    study.report()
    return path


@pytest.fixture(autouse=True)
def no_table_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this user has measured must not decide what a test sees."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
