"""Tables of blocks, as ProxylessNAS and Once-for-All publish them, price chains of blocks.

Such a table has one row for each block in its place, by a key such as
``expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:5-stride:2-idskip:0``, with `mean`
(ms), and where stated `var` and `count`. The time of a network is the sum of its rows, as in the
authors' code (mit-han-lab/proxylessnas, `search/utils/latency_estimator.py` and
`search/models/super_nets/super_proxyless.py`): first convolution, every block that is not "zero",
last convolution, classifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.errors import UserInputError
from hwnas.graph import Graph, Shape

#: A larger file is not read.
MAX_BYTES = 64 * 2**20
_FIELDS = ("mean", "var", "count")
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """One row.

    Attributes:
        mean: Milliseconds.
        var: Variance of what was measured, in ms²; None where not stated.
        count: How often it was measured; None where not stated.
    """

    mean: float
    var: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class BlockTable:
    """Latencies of blocks.

    Attributes:
        entries: By key.
        path: Where it was read from.
    """

    entries: Mapping[str, BlockEntry]
    path: Path | None = None

    @classmethod
    def load(cls, path: Path) -> BlockTable:
        """Read a table from YAML, of which JSON is a part.

        Raises:
            UserInputError: The file is missing or is no table of blocks.
        """
        import yaml

        try:
            if path.stat().st_size > MAX_BYTES:
                raise UserInputError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
            text = path.read_text(encoding="utf-8")
            # Aliases could unfold into more than there is memory; no table has them.
            if any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text, yaml.SafeLoader)):
                raise UserInputError(f"{path} is no table of blocks: it has aliases")
            value = yaml.safe_load(text)
        except OSError as error:
            raise UserInputError(f"cannot read {path}: {error.strerror}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserInputError(f"{path} is not YAML: {str(error)[:300]}") from error
        if not isinstance(value, dict) or not value:
            raise UserInputError(f"{path} is no table of blocks: it has no rows")
        return cls({str(key): _entry(key, row, path) for key, row in value.items()}, path)

    def save(self, path: Path) -> None:
        """Write the table as its authors do, in YAML; JSON if that is the suffix.

        Raises:
            UserInputError: The file cannot be written.
        """
        import json

        import yaml

        names = ("count", "mean", "var")
        value = {
            key: {name: part for name in names if (part := getattr(row, name)) is not None}
            for key, row in sorted(self.entries.items())
        }
        is_json = path.suffix == ".json"
        text = json.dumps(value, indent=1) + "\n" if is_json else yaml.safe_dump(value)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserInputError(f"cannot write {path}: {error.strerror}") from error

    def parts(self, graph: Graph) -> list[tuple[int, str, float]]:
        """Return node, key and milliseconds of each row that a network is made of.

        Args:
            graph: A network of the space `mobile`.

        Raises:
            UserInputError: The network is no such chain, or the table lacks a block; it is named.
        """
        keys = block_keys(graph.inference())
        missing = [key for _, key in keys if key not in self.entries]
        if missing:
            raise UserInputError(
                f"the table of blocks {self.path or ''} lacks {len(missing)} of {len(keys)} "
                f"blocks, the first: {missing[0]}",
                "it prices the network that it was measured for: `mobile` with its default "
                "settings, images of 224×224 and 1,000 classes for ProxylessNAS's",
            )
        return [(node, key, self.entries[key].mean) for node, key in keys]

    def ms(self, graph: Graph) -> float:
        """Return the time of a network, in milliseconds: the sum of its parts."""
        return sum(ms for _, _, ms in self.parts(graph))


def block_keys(graph: Graph) -> list[tuple[int, str]]:
    """Return the rows that a network of the space `mobile` is made of, each with its node.

    Raises:
        UserInputError: The network has something that the published tables have no row for.
    """
    found: list[tuple[int, str]] = []
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        for each in node.inputs:
            readers.setdefault(each, []).append(index)
    convolutions, shape = 0, graph.nodes[0].shape
    for index, node in enumerate(graph.nodes):
        op: Any = node.op
        before = graph.nodes[node.inputs[0]].shape if node.inputs else ()
        if op.kind == "inverted_bottleneck":
            if op.squeeze:
                raise UserInputError("published tables have no blocks with squeeze and excitation")
            sums = [
                graph.nodes[i] for i in readers.get(index, ()) if graph.nodes[i].op.kind == "sum"
            ]
            is_skipped = any(node.inputs[0] in each.inputs for each in sums)
            key = (
                f"expanded_conv-input:{_text(before)}-output:{_text(node.shape)}"
                f"-expand:{op.expansion}-kernel:{op.kernel}-stride:{op.stride}"
                f"-idskip:{int(is_skipped)}"
            )
            found.append((index, key))
        elif op.kind == "conv_bn":
            name = "Conv" if convolutions == 0 else "Conv_1"
            convolutions += 1
            found.append((index, f"{name}-input:{_text(before)}-output:{_text(node.shape)}"))
            shape = node.shape
        elif op.kind == "classifier":
            found.append((index, f"Logits-input:{_text(shape)}-output:{node.shape[0]}"))
    if convolutions != 2 or not found or not found[-1][1].startswith("Logits"):
        raise UserInputError(
            "a table of blocks prices chains of inverted bottlenecks only", "use the space mobile"
        )
    return found


def is_block_table(path: Path) -> bool:
    """Tell whether a file looks like a table of blocks; it is not read to its end."""
    with path.open("rb") as file:
        head = file.read(4096)
    return b"-input:" in head and b"mean" in head


def _text(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def _entry(key: Any, row: Any, path: Path) -> BlockEntry:
    if not isinstance(key, str) or len(key) > 500 or not isinstance(row, dict):
        raise UserInputError(f"{path} is no table of blocks: {str(key)[:100]!r} is no row")
    mean, var, count = (_number(row, name, f"{path}: {key[:100]}") for name in _FIELDS)
    if not mean:
        raise UserInputError(f"{path}: {key[:100]}: mean is {mean}, no time")
    return BlockEntry(mean, var, None if count is None else int(count))


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _MOST or not math.isfinite(value):
        raise UserInputError(f"{where}: {name} is {str(value)[:40]}, no time")
    return float(value)
