"""A device with ONNX Runtime, and tables whose numbers are made up: no test depends on speed."""

from __future__ import annotations

import random
import zlib
from dataclasses import asdict

import pytest

from hwnas.graph import Graph
from hwnas.latency import timing
from hwnas.latency.decompose import Decomposer
from hwnas.latency.device import Device
from hwnas.latency.table import Entry, LatencyTable, NetworkEntry, short_id
from hwnas.latency.timing import Protocol
from hwnas.spaces import SPACES, SearchSpace

#: One short sample of everything: for tests of what is measured, not of how fast it is.
QUICK = Protocol(
    rounds=1, samples=1, sample_ms=0.001, warm_up_ms=0, patience_ms=0, extra_rounds=0,
    least_accepted=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "GET_ACQUAINTED_S", 0.005)


@pytest.fixture(scope="session")
def device() -> Device:
    return Device.here()


@pytest.fixture(scope="session")
def conv_chain() -> SearchSpace:
    plugin = SPACES.get("conv_chain")
    return plugin(plugin.Config(), (1, 8, 8), 10)


@pytest.fixture(scope="session")
def enas_micro() -> SearchSpace:
    """A small `enas_micro`: three nodes, two normal and two reduction cells."""
    plugin = SPACES.get("enas_micro")
    return plugin(plugin.Config(nodes=3, layers=2, channels=8), (3, 16, 16), 10)


def graphs(space: SearchSpace, count: int, seed: int) -> list[Graph]:
    rng = random.Random(seed)
    return [space.graph(space.sample(rng)) for _ in range(count)]


def invented_ms(signature: str) -> float:
    """Return a time between 0.01 and 0.02 ms that depends on the signature only."""
    return 0.01 + (zlib.crc32(signature.encode()) % 1000) / 1e5


@pytest.fixture(scope="session")
def learned(device: Device, conv_chain: SearchSpace) -> Decomposer:
    """A decomposer that knows 60 networks of `conv_chain`."""
    decomposer = Decomposer(device.runtime, audit_every=0)
    for graph in graphs(conv_chain, 60, seed=1):
        decomposer.learn(graph)
    return decomposer


@pytest.fixture
def table(device: Device, conv_chain: SearchSpace, learned: Decomposer) -> LatencyTable:
    """A table with invented times, in which networks cost exactly the sum of their kernels."""
    overhead = 0.002
    entries = {
        signature: Entry(invented_ms(signature) + overhead, 0.1, 0.01, 8, 8)
        for signature in learned.signatures
    }
    networks = []
    for index, graph in enumerate(graphs(conv_chain, 20, seed=1)):
        found = learned.look_up(graph)
        assert found is not None
        signatures = [learned.signatures[each] for each in found.kernels]
        networks.append(
            NetworkEntry(
                "conv_chain", f"net{index}", sum(map(invented_ms, signatures)) + overhead, 1.0,
                0.01, 8, {short_id(each): signatures.count(each) for each in signatures},
            )
        )  # fmt: skip
    return LatencyTable(
        device.fingerprint,
        overhead,
        entries,
        networks,
        [{"date": "2026-11-22T00:00:00+00:00", "hwnas_version": "0", "protocol": {}}],
        asdict(learned.state()),
    )
