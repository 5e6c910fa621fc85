"""The arena: memory that is used again, and what tests can ask of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from hwnas import _core


def image(*shape: int) -> torch.Tensor:
    return torch.from_dlpack(_core.arena_tensor(shape))


def test_images_are_channels_last_and_everything_else_is_in_c_order() -> None:
    x = image(2, 3, 4, 5)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert image(6, 7).is_contiguous()
    assert torch.from_dlpack(_core.arena_tensor((2, 3, 4, 5), True)).dtype == torch.uint8
    assert image(0, 3, 4, 5).numel() == 0
    assert x.data_ptr() % 64 == 0


def test_a_block_that_was_given_back_is_used_again() -> None:
    first = image(3, 5, 7, 11)
    address = first.data_ptr()
    view = first[1:]
    del first
    assert image(3, 5, 7, 11).data_ptr() != address, "a view still holds it"
    del view
    assert image(3, 5, 7, 11).data_ptr() == address


def test_an_unused_capsule_gives_its_block_back() -> None:
    before = _core.arena_state()["in_use"]
    capsule = _core.arena_tensor((100, 100))
    assert _core.arena_state()["in_use"] > before
    del capsule
    assert _core.arena_state()["in_use"] == before


def test_little_more_is_kept_than_was_ever_in_use() -> None:
    _core.arena_trim()
    before = _core.arena_state()
    for size in range(1, 40):
        x = image(size, 16, 16, 16)
        del x
    state = _core.arena_state()
    assert state["in_use"] + state["cached"] <= 1.5 * state["peak"] + 2**26
    _core.arena_trim()
    after = _core.arena_state()
    assert after["cached"] == 0
    assert after["in_use"] == before["in_use"]


def test_the_peak_is_the_most_that_was_in_use() -> None:
    _core.arena_reset_peak()
    start = _core.arena_state()["in_use"]
    both = [image(1, 1, 1024, 1024), image(1, 1, 1024, 1024)]
    del both
    assert _core.arena_state()["peak"] - start >= 2 * 4 * 2**20


def test_poisoned_memory_is_nan() -> None:
    _core.arena_poison(True)
    try:
        x = image(1, 2, 3, 4)
        x.zero_()
        del x
        assert image(1, 2, 3, 4).isnan().all()
    finally:
        _core.arena_poison(False)


def test_threads_get_blocks_of_their_own() -> None:
    seen: list[bool] = []

    def work(value: float) -> None:
        for _ in range(200):
            x = image(1, 4, 8, 8).fill_(value)
            y = image(1, 4, 8, 8).fill_(-value)
            seen.append(bool((x == value).all()) and bool((y == -value).all()))

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
    assert all(seen)


FORK = """
import os, threading
import torch
from hwnas import _core
from hwnas.kernels.rnn_cell import rnn_cell

torch.set_num_threads(1)
_core.arena_poison(True)  # fills the block under the lock, which is then held most of the time
started, done = threading.Event(), threading.Event()

def work():
    x, h, w = torch.zeros(1, 1, 8), torch.zeros(1, 512), torch.zeros(1024, 512)
    while not done.is_set():
        rnn_cell(x, h, w[:, :8], w, {(0, 1): w}, [([0], [0, 0])], backend="cpu")
        started.set()

worker = threading.Thread(target=work)
worker.start()
started.wait()
for _ in range(20):
    child = os.fork()
    if child == 0:
        capsule = _core.arena_tensor((512, 512))  # no torch: its first calls take locks of glibc
        del capsule
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
done.set()
worker.join()
print("all children took a block and gave it back")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_fork_can_allocate_while_another_thread_did() -> None:
    """Data loaders fork: a lock held by a thread that the child does not have would block it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("all children")


def test_blocks_of_one_size_are_kept_one_behind_the_other() -> None:
    """More than one: each waiting block holds the address of the next."""
    _core.arena_trim()
    blocks = [image(7, 9, 11, 13) for _ in range(5)]
    addresses = {each.data_ptr() for each in blocks}
    kept = _core.arena_state()["in_use"]
    del blocks
    assert {each.data_ptr() for each in [image(7, 9, 11, 13) for _ in range(5)]} == addresses
    _core.arena_trim()
    state = _core.arena_state()
    assert state["cached"] == 0
    assert state["in_use"] < kept


@pytest.mark.parametrize("shape", [(-1, 2), (1, 2, 3, 4, 5, 6)])
def test_a_shape_that_cannot_be_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"negative|at most 5"):
        _core.arena_tensor(shape)
