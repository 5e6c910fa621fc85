"""Whole steps of an ENAS micro supernet, and what one sep_conv keeps in memory."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from _images import CHANNELS_LAST, FUSED, Problem, sep_conv
from _measure import Contender, Row, Settings
from torch.nn.functional import cross_entropy

from hwnas import _core, kernels
from hwnas.graph import BATCH, TRAIN_SHARED, Graph
from hwnas.spaces import SPACES, SearchSpace
from hwnas.supernet.config import OptimiserConfig
from hwnas.supernet.run import run
from hwnas.supernet.train import Batch, Trainer
from hwnas.supernet.weights import WeightStore

IMAGES, CLASSES = 64, 10
SETTINGS: dict[str, Any] = {"layers": 6, "channels": 20}
GATE_IMAGES = 16
#: Architectures whose steps are timed in turn, and those that are new to a warm process.
SAMPLED, NEVER_SEEN = 10, 10
STEADY_STEPS = 5


def enas_micro() -> SearchSpace:
    """Return the published search: 8 cells, 20 channels, CIFAR-10's size."""
    plugin = SPACES.get("enas_micro")
    return plugin(plugin.Config(**SETTINGS), (3, 32, 32), CLASSES)


def sampled(seed: int) -> Iterator[Graph]:
    """Yield children that are sampled uniformly."""
    space, rng = enas_micro(), random.Random(seed)
    while True:
        yield space.graph(space.sample(rng))


def batch_of(images: int, device: str) -> Batch:
    """Return random images and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, 32, 32, generator=generator)
    return x.to(device), torch.randint(0, CLASSES, (images,), generator=generator).to(device)


def trainer(settings: Settings) -> Trainer:
    """Return a trainer with shared weights of its own, always the same ones."""
    return Trainer(WeightStore(0, torch.float32, settings.device), OptimiserConfig(), epochs=10)


class MicroStep:
    """A training step of one sampled path: forward, loss, backward, clipping, SGD."""

    name = "ENAS micro supernet step"

    def contenders(self, wanted: Sequence[str], settings: Settings) -> dict[str, Contender]:
        """Return both sides; each trains weights of its own on the same children in turn."""
        graphs = list(itertools.islice(sampled(0), SAMPLED))
        batch = batch_of(IMAGES, settings.device)

        def side(backend: str) -> Contender:
            mine, turn = trainer(settings), itertools.cycle(graphs)
            return Contender(lambda: mine.step([next(turn)], batch, 1.0, TRAIN_SHARED), backend)

        return {FUSED: side(settings.backend), CHANNELS_LAST: side("reference")}

    def settings(self, settings: Settings) -> Settings:
        """Warm up with every child: the first step of one costs the reference more."""
        return replace(settings, warm_ups=SAMPLED)

    def for_gate(self, device: str, dtype: torch.dtype) -> Problem:
        """Return the loss of one child without dropout; gradients are left to the ops' gates."""
        graph = next(sampled(0))
        store = WeightStore(0, torch.float32, device)
        store.trainable(graph)
        store.dtype = dtype
        store.load(store.state())
        images, labels = batch_of(GATE_IMAGES, device)

        def forward() -> torch.Tensor:
            return cross_entropy(run(graph, store, images.to(dtype), BATCH), labels)

        return Problem({}, forward, torch.ones((), dtype=dtype, device=device))


def never_seen(names: Sequence[str], settings: Settings) -> list[Row]:
    """Time the first step of new children against their later ones, and count compilations."""
    mine, batch = trainer(settings), batch_of(IMAGES, settings.device)
    on_gpu = settings.device != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time

    def step_ms(graph: Graph) -> float:
        start = clock()
        mine.step([graph], batch, 1.0, TRAIN_SHARED)  # reads the loss, which synchronises a GPU
        return (clock() - start) * 1e3

    children = sampled(1)
    first: list[float] = []
    later: list[float] = []
    with kernels.use(settings.backend):
        for graph in itertools.islice(children, 3):
            step_ms(graph)
        with counted_compilations() as compiled:
            for graph in itertools.islice(children, NEVER_SEEN):
                first.append(step_ms(graph))
                later.append(float(np.median([step_ms(graph) for _ in range(STEADY_STEPS)])))
    ratios = [a / b for a, b in zip(first, later, strict=True)]
    against = (
        f"median of {STEADY_STEPS} later steps of the same child, {np.median(later):.1f} ms; its "
        f"first, {np.median(first):.1f} ms; medians of {NEVER_SEEN} children, "
        f"{'wall' if on_gpu else 'CPU'} time"
    )
    counted = (
        f"graphs of torch.compile and kernels of Triton while {NEVER_SEEN} never-seen children "
        "were trained"
    )
    return [
        Row.of(names[0], ratios, "x", 1.2, against, is_limit=True),
        Row.of(names[1], [sum(compiled.values())], "compilations", 0, counted, is_limit=True),
    ]


@contextlib.contextmanager
def counted_compilations() -> Iterator[Counter[str]]:
    """Count what is compiled inside the ``with`` block; complete when it ends."""
    import torch._dynamo.utils  # slow to import

    counts: Counter[str] = Counter()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]

    def count(**_: Any) -> None:
        counts["Triton"] += 1

    try:
        from triton import knobs
    except ImportError:  # then there is nothing to count
        yield counts
    else:
        original, knobs.runtime.jit_post_compile_hook = knobs.runtime.jit_post_compile_hook, count
        try:
            yield counts
        finally:
            knobs.runtime.jit_post_compile_hook = original
    counts["torch.compile"] = graphs["unique_graphs"] - before


def live_activations(names: Sequence[str], settings: Settings) -> list[Row]:
    """Measure what the forward pass of a two-stage sep_conv has alive at most.

    Counted in tensors of the input's size, without the input: all that PyTorch's allocator and the
    arena hand out and do not get back.
    """
    op = sep_conv(3, (64, 16, 32))
    problem = op.problem(settings.device)
    size = 4.0 * np.prod(op.shape)
    peaks = {}
    for side, backend in ((FUSED, settings.backend), (CHANNELS_LAST, "reference")):
        with kernels.use(backend):
            problem.step()
            peaks[side] = peak_bytes(problem, settings) / size
    against = f"{CHANNELS_LAST}, {peaks[CHANNELS_LAST]:.2f}"
    return [Row.of(names[0], [peaks[FUSED]], "activations", 3.2, against, is_limit=True)]


def peak_bytes(problem: Problem, settings: Settings) -> int:
    """Return the most bytes that a forward pass has allocated at once."""
    if settings.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        problem.forward()
        return int(torch.cuda.max_memory_allocated() - before)
    from torch.profiler import ProfilerActivity, profile

    _core.arena_reset_peak()
    before = _core.arena_state()["in_use"]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        y = problem.forward()
    arena = _core.arena_state()["peak"] - before
    del y
    results = profiler.profiler.kineto_results.events()
    events = sorted((e for e in results if e.name() == "[memory]"), key=lambda e: e.start_ns())
    torchs = max(itertools.accumulate(e.nbytes() for e in events), default=0)
    return int(arena + torchs)
