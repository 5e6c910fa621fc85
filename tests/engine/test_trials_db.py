from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.engine.trials_db import Trial, TrialsDb, TrialState
from hwnas.errors import RunFolderError
from hwnas.graph.architecture import Architecture
from hwnas.objectives.metrics import Metrics


@pytest.fixture
def db(tmp_path: Path) -> Iterator[TrialsDb]:
    db = TrialsDb(tmp_path / "trials.db")
    yield db
    db.close()


def complete(id: int) -> Trial:
    return Trial(
        id,
        TrialState.COMPLETE,
        Architecture({"op": "conv", "kernel": 3, "skips": (0, 2), "scale": 0.1, "flag": True}),
        Metrics(accuracy=0.1 + 0.2, latency_ms=1 / 3, train_time_s=None),
        reward=-1.0e-17,
        epoch=id // 10,
        started=1000.25,
        finished=1001.5,
    )


def test_a_trial_comes_back_exactly(db: TrialsDb) -> None:
    pending = Trial(1, TrialState.PENDING, Architecture({"op": "pool"}))
    failed = Trial(2, TrialState.FAILED, Architecture({}), error="out of memory")
    db.put([complete(0), pending, failed])
    assert db.all() == [complete(0), pending, failed]
    assert db.all(TrialState.PENDING, TrialState.FAILED) == [pending, failed]
    assert db.get([2, 0, 7]) == [complete(0), failed]


def test_storing_a_known_id_replaces_the_trial(db: TrialsDb) -> None:
    db.put([replace(complete(5), state=TrialState.PENDING, metrics=None, reward=None)])
    db.put([complete(5)])
    assert db.all() == [complete(5)]


def test_deleting_after_an_id_keeps_that_id_and_those_below(db: TrialsDb) -> None:
    db.put([complete(id) for id in range(10)])
    db.delete_after(3)
    assert [trial.id for trial in db.all()] == [0, 1, 2, 3]
    db.delete_after(-1)
    assert db.count() == 0


def test_a_trial_takes_about_a_millisecond(db: TrialsDb) -> None:
    start = time.process_time()
    for id in range(200):
        db.put([complete(id)])
    # Measured 0.4 ms on an idle machine; CPU time and a margin, since tests share cores.
    assert (time.process_time() - start) / 200 < 0.003


def test_trials_can_be_read_while_another_connection_writes(db: TrialsDb) -> None:
    db.put([complete(0)])
    reader = TrialsDb(db.path, is_read_only=True)
    assert reader.count() == 1
    db.put([complete(1)])
    assert reader.count() == 2
    reader.close()


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "trials.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(RunFolderError, match=r"trials\.db: file is not a database") as caught:
        TrialsDb(path)
    assert "\n" not in caught.value.message


def test_reading_never_writes(db: TrialsDb) -> None:
    reader = TrialsDb(db.path, is_read_only=True)
    with pytest.raises(RunFolderError, match="readonly"):
        reader.put([complete(0)])
    reader.close()
