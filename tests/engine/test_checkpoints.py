from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.engine.checkpoints import Checkpoints
from hwnas.errors import RunFolderError


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def save(checkpoints: Checkpoints, step: int) -> None:
    tensors = {"b": torch.full((2, 3), float(step)), "a": torch.arange(step)}
    checkpoints.save(step, tensors, {"elapsed_s": step / 3, "own": {"list": [1, None, "x"]}})


def test_a_checkpoint_comes_back_exactly_and_in_order(checkpoints: Checkpoints) -> None:
    save(checkpoints, 4)
    checkpoint = checkpoints.load(4)
    assert list(checkpoint.tensors) == ["b", "a"]
    assert torch.equal(checkpoint.tensors["b"], torch.full((2, 3), 4.0))
    assert checkpoint.tensors["a"].dtype == torch.int64
    assert checkpoint.state == {"elapsed_s": 4 / 3, "own": {"list": [1, None, "x"]}}


def test_only_the_last_two_are_kept(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3, 12):
        save(checkpoints, step)
    assert checkpoints.steps() == [3, 12]


def test_without_a_checkpoint_there_is_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.load_latest() is None


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    checkpoints: Checkpoints, name: str, damage: str
) -> None:
    save(checkpoints, 1)
    save(checkpoints, 2)
    path = checkpoints.folder / "000002" / name
    data = path.read_bytes()
    if damage == "flip":
        middle = len(data) - 20
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    seen = []
    checkpoint = checkpoints.load_latest(lambda step, error: seen.append((step, error.message)))
    assert checkpoint is not None
    assert checkpoint.step == 1
    [(step, message)] = seen
    assert step == 2
    assert str(path) in message
    # Set aside: the next look finds a good one at once, and step 2 can be written again.
    assert checkpoints.steps() == [1]
    save(checkpoints, 2)
    assert checkpoints.load(2).step == 2


def test_when_all_are_damaged_nothing_is_touched_and_the_error_says_so(
    checkpoints: Checkpoints,
) -> None:
    for step in (1, 2):
        save(checkpoints, step)
        (checkpoints.folder / f"{step:06d}" / "tensors.safetensors").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(RunFolderError, match="no earlier checkpoint is intact"):
            checkpoints.load_latest()
    assert checkpoints.steps() == [1, 2]


def test_a_half_written_checkpoint_does_not_count(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    partial = checkpoints.folder / "000002.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{")
    latest = checkpoints.load_latest()
    assert latest is not None
    assert latest.step == 1
    save(checkpoints, 2)
    assert checkpoints.steps() == [1, 2]
    assert not partial.exists()
