"""What networks cost by somebody else's table of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.errors import DeviceError
from hwnas.graph.architecture import Architecture
from hwnas.latency.blocks import BlockTable
from hwnas.latency.predictor import Prediction
from hwnas.latency.table import LatencyTable
from hwnas.study.context import Context
from hwnas.study.pricing import Pricing


class BlockPricing(Pricing):
    """Sums a table of blocks; there is no interval, because the table says nothing of networks.

    Args:
        context: The parts of the run.
        blocks: The table.
    """

    def __init__(self, context: Context, blocks: BlockTable) -> None:
        self.context = context
        self.blocks = blocks
        self.table = LatencyTable(context.device.fingerprint)  # no kernel of it is looked at

    @property
    def can_measure(self) -> bool:
        """False: the device is not here."""
        return False

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """Return the sum of each network's blocks.

        Raises:
            UserInputError: The table lacks a block; it is named.
        """
        found = [self.blocks.parts(self.context.deployed.graph(each)) for each in architectures]
        return [
            Prediction(sum(ms for _, _, ms in parts), 0.0, math.inf, 0.9, len(parts))
            for parts in found
        ]

    def kernels(self, architecture: Architecture) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """Return the blocks, most expensive first, and each node's share."""
        graph = self.context.deployed.graph(architecture).inference()
        parts = sorted(self.blocks.parts(graph), key=lambda part: -part[2])
        total = sum(ms for _, _, ms in parts)
        rows = [
            {
                "op": graph.nodes[node].op.kind,
                "signature": key,
                "name": graph.nodes[node].weights or graph.nodes[node].op.kind,
                "ms": ms,
                "is_measured": True,
            }
            for node, key, ms in parts
        ]
        return rows, {str(node): ms / total for node, _, ms in parts}

    def measure(self, models: Any) -> Any:
        """Refuse: the device is not here.

        Raises:
            DeviceError: Always.
        """
        raise DeviceError("a table of blocks belongs to a device that is not this machine")

    def save(self, folder: Path) -> dict[str, Any]:
        """Return the journal's record of the table."""
        return {
            "summary": f"{len(self.blocks.entries)} blocks of {self.blocks.path}",
            "provenance": None,
        }
