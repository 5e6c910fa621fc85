"""Weights of a changed network, taken from those of the network that it was made from.

Source: Chen et al. 2016 (Net2Net, arXiv 1511.05641), as summaries of it say it (the wiki of
growingnet, H. Larochelle on shortscience.org); the paper's own sections were not at hand. Narrowing
by the L1 norm of filters is Li et al. 2017 (Pruning Filters for Efficient ConvNets), from memory,
unverified.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch

from hwnas.graph import Graph, WeightSpec
from hwnas.graph.channels import Axis, Channels, is_depthwise, makes_channels
from hwnas.graph.ops.norm import BatchNorm
from hwnas.graph.transform import is_inserted, plain_name
from hwnas.supernet.weights import WeightStore

#: Parts of a child's channel axis, each with the parent's part that it was made from.
_Pairs = dict[int, int]


def inherit(parent: Graph, child: Graph, store: WeightStore, *, noise: float = 0.0) -> WeightStore:
    """Return weights for a child that `hwnas.graph.transform` made of a parent.

    * A wider layer has the parent's channels and copies of some of them, drawn at random; whatever
      reads them divides its weights among the copies (Net2WiderNet). Without noise, copies stay
      equal in training until something, such as dropout, tells them apart.
    * An inserted layer starts as one that changes nothing (Net2DeeperNet): filters that pass a
      channel on, and a batch norm whose scale undoes its own ε.
    * A narrower layer keeps the channels whose filters have the largest L1 norm.
    * A weight of the same shape is copied; one that the parent has no counterpart of is new.

    After scaling by factors above 1 and insertions the child computes the parent's function with
    running statistics (`EVAL`), up to rounding. With the batch's own statistics that holds for
    wider layers only: the batch norm of an inserted layer then normalises.
    Narrowing and removal change the function: what is inherited is only where training starts.

    Args:
        parent: The network that the weights are of.
        child: The network after the changes.
        store: The parent's weights; missing ones are created.
        noise: Standard deviation of what is added to the filters of copied channels, in standard
            deviations of the layer's weights; with it the function is kept approximately.

    Returns:
        The child's own weights; nothing is shared with `store`.
    """
    return _Inheritance(parent, child, store, noise).store()


class _Inheritance:
    def __init__(self, parent: Graph, child: Graph, store: WeightStore, noise: float) -> None:
        self.noise = noise
        self.source = store.restrict(parent)
        self.parent, self.child = parent.expanded(), child.expanded()
        self.old, self.new = Channels(self.parent), Channels(self.child)
        self.places = {
            plain_name(node.weights): index
            for index, node in enumerate(self.parent.nodes)
            if node.weights
        }
        self.pairs = self._pairs()
        self.kept: dict[tuple[int, int], torch.Tensor] = {}

    def store(self) -> WeightStore:
        """Return the child's weights."""
        fresh = WeightStore(self.source.seed, self.source.dtype, self.source.device)
        found: dict[str, torch.Tensor] = {}
        for index, bindings in enumerate(self.child.bindings()):
            for local, name, spec in bindings:
                if name not in found:
                    value = self._value(index, local, name, spec)
                    found[name] = fresh.get(name, spec).detach() if value is None else value
        fresh.load(found)
        return fresh.restrict(self.child)

    def _value(self, index: int, local: str, name: str, spec: WeightSpec) -> torch.Tensor | None:
        """Return an inherited weight, or None for one that has to be new."""
        node = self.child.nodes[index]
        place = self.places.get(plain_name(node.weights))
        if place is None:
            return self._identity(index, local, spec) if is_inserted(name) else None
        old = self.parent.nodes[place]
        known = self.source.state().get(f"{old.weights}/{local}")
        if known is None:
            return None
        made = self._units(self.new.of(index), self.old.of(place))
        read = self._units(self._read(self.new, index), self._read(self.old, place))
        value = known
        if made is not None and len(known) == self.old.total(place):
            value = value[made]
            if self.noise and local == "weight":
                value = value + self._noise(name, value, made)
        if value.ndim > 1 and makes_channels(node.op) and read is not None:
            copies = torch.bincount(read)[read].to(value)
            value = value[:, read] / copies.reshape(-1, *[1] * (value.ndim - 2))
        return value if tuple(value.shape) == spec.shape else None

    def _noise(self, name: str, value: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Return what tells the copies among a weight's filters apart, 0 for all others."""
        is_copy = (made[:, None] == made[None, :]).tril(-1).any(1)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(value.shape, generator=generator) * self.noise
        drawn[~is_copy] = 0
        return drawn.to(value) * value.std(correction=0)

    def _identity(self, index: int, local: str, spec: WeightSpec) -> torch.Tensor:
        """Return a weight of an inserted layer that passes its input on."""
        node, dtype = self.child.nodes[index], self.source.dtype
        if isinstance(node.op, BatchNorm):
            value = {"scale": (1 + node.op.epsilon) ** 0.5, "variance": 1.0}.get(local, 0.0)
            return torch.full(spec.shape, value, dtype=dtype)
        weight = torch.zeros(spec.shape, dtype=dtype)
        row, column = (size // 2 for size in spec.shape[2:])
        if is_depthwise(node):
            weight[:, 0, row, column] = 1
            return weight
        (made,) = self.new.of(index)
        (read,) = self._read(self.new, index)
        into, origin = self._origin(made), self._origin(read)
        same = into[:, None] == origin[None, :]
        weight[:, :, row, column] = same.to(dtype) / torch.bincount(origin)[origin]
        return weight

    def _origin(self, part: int) -> torch.Tensor:
        """Return which of the parent's channels those of a child's part are."""
        if part in self.pairs:
            return self._kept(part, self.pairs[part])
        return torch.arange(self.new.size(part))

    def _units(self, new: Axis, old: Axis) -> torch.Tensor | None:
        """Return which of the old axis's channels each of the new one's is; None: unknown."""
        if len(new) != len(old):
            return None
        found, offset = [], 0
        for part, before in zip(new, old, strict=True):
            found.append(self._kept(part, before) + offset)
            offset += self.old.size(before)
        return torch.cat(found)

    def _kept(self, new: int, old: int) -> torch.Tensor:
        """Return which of a part's old channels each of the new ones is."""
        count, size = self.old.size(old), self.new.size(new)
        key = (new, count)
        if key not in self.kept:
            if size < count:
                # Where a removal made one part of several, the first says which channels stay.
                first = self.pairs.get(new, old)
                judged = first if self.old.size(first) == count else old
                order = self._importance(judged).argsort(descending=True, stable=True)
                found = order[:size].sort().values
            else:
                generator = torch.Generator().manual_seed(zlib.crc32(f"{count}to{size}".encode()))
                more = torch.randint(count, (size - count,), generator=generator)
                found = torch.cat([torch.arange(count), more])
            self.kept[key] = found
        return self.kept[key]

    def _importance(self, part: int) -> torch.Tensor:
        """Return the L1 norms of the filters that make each channel of a parent's part."""
        total = torch.zeros(self.old.size(part), dtype=torch.float64)
        for index, node in enumerate(self.parent.nodes):
            if makes_channels(node.op) and self.old.of(index) == (part,):
                weight = self.source.state()[f"{node.weights}/weight"]
                total += weight.double().abs().flatten(1).sum(1).cpu()
        return total

    def _pairs(self) -> _Pairs:
        """Return which of the parent's parts each of the child's was made from."""
        found: _Pairs = {}
        for index, node in enumerate(self.child.nodes):
            place = self.places.get(plain_name(node.weights)) if node.weights else None
            if place is not None:
                _pair(found, self._read(self.new, index), self._read(self.old, place))
                _pair(found, self.new.of(index), self.old.of(place))
        for index, node in enumerate(self.child.nodes):
            if node.weights and is_inserted(node.weights):
                read, made = self._read(self.new, index), self.new.of(index)
                _pair(found, made, [found[part] for part in read if part in found])
        return found

    @staticmethod
    def _read(channels: Channels, index: int) -> Axis:
        inputs = channels.graph.nodes[index].inputs
        return channels.of(inputs[0]) if inputs else ()


def _pair(pairs: _Pairs, new: Sequence[int], old: Sequence[int]) -> None:
    if len(new) == len(old):
        for part, before in zip(new, old, strict=True):
            pairs.setdefault(part, before)
