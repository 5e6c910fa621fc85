from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.errors import UserInputError
from hwnas.tracking import TRACKERS, Trackers


@pytest.fixture
def board() -> type:
    kind = TRACKERS.get("tensorboard")
    if kind.missing():
        pytest.skip("tensorboard is not installed")
    return kind


@pytest.mark.usefixtures("board")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_numbers_end_up_in_tensorboard_s_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Trackers("auto", tmp_path) as trackers:
        for step in (1, 2):
            trackers.log(step, {"loss": 1.0 / step, "strategy/entropy": 2.0})
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert set(accumulator.Tags()["scalars"]) == {"loss", "strategy/entropy"}
    assert [(e.step, e.value) for e in accumulator.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_auto_is_silent_without_tensorboard_and_asking_by_name_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = TRACKERS.get("tensorboard")
    monkeypatch.setattr(kind, "missing", classmethod(lambda cls: "tensorboard"))
    with Trackers("auto", tmp_path) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserInputError, match="'tensorboard' is not installed") as caught:
        Trackers(["tensorboard"], tmp_path)
    assert caught.value.hint == "install it with: pip install tensorboard"


def test_an_unknown_tracker_gets_the_nearest_names(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="unknown tracker 'tensorbord'") as caught:
        Trackers(["tensorbord"], tmp_path)
    assert "tensorboard" in str(caught.value.hint)
