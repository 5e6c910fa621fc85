"""YAML as people expect it: `1e-3` is a number, `no` is a word, a key is given once.

PyYAML follows YAML 1.1, where ``1e-3`` is a string, ``no`` a boolean, ``010`` eight and ``1:30``
ninety. Here the scalars follow the core schema of YAML 1.2, underscores in numbers are allowed
(``10_000``), and dates stay text. What `dump` writes, `parse` reads back as the same values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

_RESOLVERS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+", tuple("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        (
            r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        tuple("-+0123456789."),
    ),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes; their values are built by `_Builder`."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  (as in the base class)


class _Dumper(yaml.SafeDumper):
    """Quotes a text exactly when `_Loader` would read something else."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  (as in the base class)

    def ignore_aliases(self, data: object) -> bool:
        """Write equal lists out: ``&id001`` helps no reader."""
        return True


for _tag, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


@dataclass
class Parsed:
    """The content of a file.

    Attributes:
        value: Mappings, lists, texts, numbers, booleans, None.
        lines: Line of each value, by its path of keys and indices, counted from 1.
        problems: What is wrong with the text: syntax, keys that are given twice.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def parse(text: str) -> Parsed:
    """Read one YAML document; mistakes are reported in `Parsed.problems`, not raised."""
    parsed = Parsed()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        parsed.problems.append(_syntax(error))
    else:
        if node is not None:
            parsed.value = _Builder(parsed).build(node, ())
    return parsed


def dump(value: object) -> str:
    """Return a document that `parse` reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Builder:
    """Turns nodes into values, and notes lines and mistakes."""

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        self.open_nodes: list[int] = []

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.parsed.lines[path] = node.start_mark.line + 1
        if id(node) in self.open_nodes:
            self._complain(node, "an anchor that contains itself")
            return None
        self.open_nodes.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(each, (*path, i)) for i, each in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self.open_nodes.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, "a key must be a word, not a list or a mapping")
                continue
            key = key_node.value
            if key in mapping:
                where = ".".join(str(part) for part in (*path, key))
                first = self.parsed.lines[(*path, key)]
                self._complain(key_node, f"{where} is given twice (first on line {first})")
                continue
            mapping[key] = self.build(value_node, (*path, key))
            self.parsed.lines[(*path, key)] = key_node.start_mark.line + 1
        return mapping

    def _scalar(self, node: yaml.Node) -> Any:
        text: str = node.value
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        try:
            if kind == "int":
                # Base 0 reads 0x and 0o, and refuses the leading zeros that are decimal here.
                return int(text, 0) if re.match(r"0[xo]", text) else int(text.replace("_", ""))
            if kind == "float":
                plain = text.lower().replace("_", "")
                return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self._complain(node, f"{text!r} is not a number")
            return None
        if kind != "str":
            self._complain(node, f"the tag {node.tag!r} is not supported")
        return text

    def _complain(self, node: yaml.Node, what: str) -> None:
        mark = node.start_mark
        self.parsed.problems.append(f"line {mark.line + 1}, column {mark.column + 1}: {what}")


def _syntax(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        what = error.problem or error.context or "not valid YAML"
        return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {what}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"position {error.position}: not valid YAML: {error.reason}"
    return f"not valid YAML: {error}"
