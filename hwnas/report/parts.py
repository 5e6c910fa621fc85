"""What a section is made of: plain values that the templates turn into HTML.

A section returns a `Fragment`, a tuple of parts. All texts in parts are plain text: the templates
escape them. Only `Html` is taken as it is, and is for markup that hwnas itself wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from hwnas.report.results import Drawing

Level: TypeAlias = Literal["info", "good", "warning", "error"]
Json: TypeAlias = Any


@dataclass(frozen=True)
class Text:
    """A paragraph; `is_lead` sets it larger, `is_small` smaller."""

    kind: ClassVar[str] = "text"
    text: str
    is_lead: bool = False
    is_small: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Callout:
    """A card that stands out: a warning, a reason, good news."""

    kind: ClassVar[str] = "callout"
    level: Level
    title: str
    text: str = ""


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    kind: ClassVar[str] = "command"
    text: str
    label: str = "Repeat it"


@dataclass(frozen=True)
class Facts:
    """Terms and their values."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A plotly figure.

    Attributes:
        data: Plotly traces. Colours are CSS variables of the report's theme, such as
            ``var(--c1)``; the page's script resolves them for light, dark and print.
        layout: Plotly layout; see `hwnas.report.figures.layout`.
        caption: What is seen, in a sentence or two.
        alt: What it shows, for those who do not see it.
        height: Pixels.
    """

    kind: ClassVar[str] = "figure"
    data: Sequence[Mapping[str, Json]]
    layout: Mapping[str, Json]
    caption: str
    alt: str
    height: int = 380


@dataclass(frozen=True)
class Column:
    """A table column; numbers are set flush right."""

    title: str
    is_numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: What is shown.
        sort: What it sorts by; the text where None. Cells without a value sort last.
        bar: A bar behind the text, in ``[0, 1]``.
        is_code: Set in the typewriter face.
        note: A second, smaller line.
        level: Tone of the text.
    """

    text: str
    sort: float | None = None
    bar: float | None = None
    is_code: bool = False
    note: str = ""
    level: Level | None = None


@dataclass(frozen=True)
class Table:
    """A table with a caption; `marked` are the indices of rows that stand out."""

    kind: ClassVar[str] = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str
    is_sortable: bool = False
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Download:
    """A button that saves text as a file, made in the page itself."""

    kind: ClassVar[str] = "download"
    label: str
    filename: str
    mime: str
    content: str


@dataclass(frozen=True)
class DrawnGraph:
    """A graph as inline SVG."""

    kind: ClassVar[str] = "graph"
    drawing: Drawing


@dataclass(frozen=True)
class Html:
    """Markup that hwnas itself wrote: it is not escaped."""

    kind: ClassVar[str] = "html"
    html: str


@dataclass(frozen=True)
class Grid:
    """Parts side by side where there is room; `is_wide` ones keep the width that they need."""

    kind: ClassVar[str] = "grid"
    parts: Sequence[Part]
    is_wide: bool = False


@dataclass(frozen=True)
class Details:
    """Parts that are folded away under a summary."""

    kind: ClassVar[str] = "details"
    summary: str
    parts: Sequence[Part] = field(default_factory=tuple)


Part: TypeAlias = (
    Text
    | Heading
    | Callout
    | Command
    | Facts
    | Figure
    | Table
    | Download
    | DrawnGraph
    | Html
    | Grid
    | Details
)
Fragment: TypeAlias = tuple[Part, ...]
