from __future__ import annotations

import math
from pathlib import Path

from hwnas.engine.events import EventLog, read_events


def test_events_come_back_in_order_with_their_fields(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("epoch", step=1, loss=0.5)
    log.append("warning", text="äöü\nsecond line")
    first, second = log.read()
    assert (first["kind"], first["step"], first["loss"]) == ("epoch", 1, 0.5)
    assert second["text"] == "äöü\nsecond line"


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("epoch", loss=math.nan, more={"a": [math.inf, 1.0]})
    [event] = log.read()
    assert event["loss"] is None
    assert event["more"] == {"a": [None, 1.0]}


def test_a_half_written_last_line_is_ignored_and_then_removed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("epoch", step=1)
    with path.open("a") as file:
        file.write('{"kind": "epoch", "st')
    assert [event["step"] for event in read_events(path)] == [1]
    again = EventLog(path)
    again.append("epoch", step=2)
    assert [event["step"] for event in again.read()] == [1, 2]
    assert len(path.read_text().splitlines()) == 2


def test_rolling_back_removes_later_steps_and_keeps_events_without_a_step(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for step in (1, 2, 3):
        log.append("epoch", step=step)
    log.append("warning", text="kept")
    log.roll_back(1)
    assert [event.get("step") for event in log.read()] == [1, None]


def test_a_file_that_does_not_exist_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == []
