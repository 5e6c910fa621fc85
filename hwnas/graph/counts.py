"""What a network costs on paper: multiply-accumulates, parameters, bytes.

What only training needs, such as an auxiliary classifier, does not count.
"""

from __future__ import annotations

import math

from hwnas.graph.graph import Graph


def macs(graph: Graph) -> int:
    """Return multiply-accumulates of convolutions and linear layers for one image."""
    return sum(op.macs(shapes, node.shape) for node, op, shapes in graph.inference().primitives())


def params(graph: Graph) -> int:
    """Return the number of trainable weights; running statistics do not count."""
    specs = graph.inference().weight_specs().values()
    return sum(math.prod(spec.shape) for spec in specs if spec.is_trainable)


def activation_bytes(graph: Graph) -> int:
    """Return bytes of all op outputs for one image in float32, the input included."""
    return 4 * sum(math.prod(node.shape) for node in graph.inference().expanded().nodes)


def weight_bytes(graph: Graph) -> int:
    """Return bytes of all weights in float32, running statistics included."""
    return 4 * sum(math.prod(spec.shape) for spec in graph.inference().weight_specs().values())
