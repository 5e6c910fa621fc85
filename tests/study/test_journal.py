from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.errors import RunFolderError
from hwnas.study.journal import Journal


def test_a_stage_is_done_once_even_across_processes(tmp_path: Path) -> None:
    calls = []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"found": 3}

    for _ in range(3):
        assert Journal(tmp_path).once("search", work)[0] == {"found": 3}
    assert len(calls) == 1
    Journal(tmp_path).forget("search")
    Journal(tmp_path).once("search", work)
    assert len(calls) == 2


def test_a_stage_that_fails_is_not_finished(tmp_path: Path) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Journal(tmp_path).once("search", broken)
    assert "search" not in Journal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": ', b"\xff"])
def test_a_damaged_journal_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stages.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"stages\.json"):
        Journal(tmp_path)
