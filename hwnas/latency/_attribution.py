"""Which node of a graph each kernel of the runtime computes, and what became of each node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hwnas.export.onnx import to_onnx
from hwnas.graph import Graph
from hwnas.latency._canonical import CanonicalGraph, names_of
from hwnas.latency._context import Role
from hwnas.latency.kernels import Executed
from hwnas.latency.runtimes import Runtime

#: A name that the exporter gave, or that the runtime has derived from it.
_NAME = re.compile(r"^(n\d+)(?:\.\d+)?(?:_\w+)?$")


def observe(
    runtime: Runtime, graph: Graph, shape: CanonicalGraph
) -> tuple[list[list[str]], list[int]]:
    """Export a graph, let the runtime optimise it, and read off what it made of each node.

    Returns:
        For each canonical node the signatures of its kernels, and its role.

    Raises:
        DeviceError: The runtime refuses the graph.
    """
    names = {**names_of(shape.place), "input": 0}
    names["logits"] = shape.place[graph.inference().expanded().outputs[0]]
    owned: list[list[str]] = [[] for _ in shape.nodes]
    is_plain: list[bool | None] = [None] * len(shape.nodes)
    is_plain[0] = True
    reads_plain = {0: True}
    kernels = [(_owner(each, names), each) for each in runtime.kernels(to_onnx(graph))]
    own_name = {named for named, each in kernels if not each.is_reorder}
    for named, each in kernels:
        if each.is_reorder:
            owned[named].append(each.kernel.signature)
            continue
        start = _anchor(shape, named, each.kernel.op_type, own_name)
        owned[start].append(each.kernel.signature)
        is_plain[named] = each.writes_plain
        reads_plain.setdefault(start, each.reads_plain)
    return owned, _roles(shape, _complete(shape, is_plain), reads_plain)


def _owner(executed: Executed, names: Mapping[str, int]) -> int:
    """Return the canonical node that a kernel belongs to, by the names that the runtime keeps.

    A kernel that the runtime has named in an unknown way belongs to the input: its context then
    differs between networks, and the neighbourhood grows until it is the whole graph.
    """
    for name in executed.names:
        match = _NAME.match(name)
        if match and match[1] in names:
            return names[match[1]]
        if name in names:
            return names[name]
    return 0


def _anchor(shape: CanonicalGraph, named: int, op_type: str, own_name: set[int]) -> int:
    """Return the node that a fused kernel starts from.

    The runtime names a fused kernel now after its first, now after its last part. The part that
    has the kernel's operator is the first: search upwards from the named node, through nodes that
    no kernel is named after.
    """
    wanted = op_type.removeprefix("Fused")
    level = [named]
    for _ in range(6):
        for index in level:
            if wanted in shape.nodes[index].form.types:
                return index
        level = [i for at in level for i in shape.nodes[at].inputs if i not in own_name]
    return named


def _complete(shape: CanonicalGraph, is_plain: Sequence[bool | None]) -> list[bool]:
    """Give a layout to tensors that fusion has removed: that of what they were fused into."""
    result: list[bool] = []
    for index, node in enumerate(shape.nodes):
        known = is_plain[index]
        if known is None and not all(result[i] for i in node.inputs):
            known = False
        at = index
        while known is None and len(shape.consumers[at]) == 1:
            at = shape.consumers[at][0]
            known = is_plain[at]
        result.append(known is not False)
    return result


def _roles(
    shape: CanonicalGraph, is_plain: Sequence[bool], reads_plain: Mapping[int, bool]
) -> list[int]:
    """Return the role of each node.

    Args:
        shape: The graph.
        is_plain: For each node, whether its output has the ordinary layout.
        reads_plain: For each node that starts a kernel, whether that reads the ordinary layout.
    """
    roles: list[int] = []
    for index, node in enumerate(shape.nodes):
        has_weights = node.form.has_weights
        if is_plain[index]:
            role = Role.PLAIN if reads_plain.get(index, True) else Role.TO_PLAIN
        elif reads_plain.get(index, False):
            role = Role.FROM_PLAIN
        elif index in reads_plain:
            role = Role.WEIGHTED_KERNEL if has_weights else Role.KERNEL
        elif has_weights:
            role = Role.ABSORBED_WEIGHTS
        else:
            role = Role.ABSORBED_ONE if len(node.inputs) == 1 else Role.ABSORBED_MORE
        roles.append(int(role))
    return roles
