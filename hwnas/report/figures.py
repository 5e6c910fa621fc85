"""Plotly figures as JSON: the common layout and small helpers.

Nothing here imports plotly: a figure is the JSON that plotly.js reads. Colours are CSS variables
(``var(--c1)``) that the page resolves, so that one figure serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

COLOURS = tuple(f"var(--c{number})" for number in range(1, 9))
INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
GOOD, BAD, PAPER = "var(--good)", "var(--bad)", "var(--card)"

_MARKUP = ("<br>", "<b>", "</b>", "<extra></extra>")


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Return an axis in the report's style; `settings` are plotly's."""
    base: dict[str, Any] = {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
    }
    return base | settings


def layout(x: Mapping[str, Any], y: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Return a layout in the report's style with the given axes."""
    base: dict[str, Any] = {
        "xaxis": dict(x),
        "yaxis": dict(y),
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "showlegend": True,
    }
    return base | settings


def budget_line(budget_ms: float, colour: str = BAD, axis_name: str = "x") -> dict[str, Any]:
    """Return a dashed line across the plot at the budget."""
    other = "y" if axis_name == "x" else "x"
    return {
        "type": "line",
        f"{axis_name}0": budget_ms,
        f"{axis_name}1": budget_ms,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": colour, "width": 1.5, "dash": "dash"},
    }


def budget_label(budget_ms: float, text: str, colour: str = BAD) -> dict[str, Any]:
    """Return the text beside a budget line."""
    return {
        "x": budget_ms,
        "y": 0.02,
        "yref": "paper",
        "text": text,
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": 4,
        "font": {"color": colour, "size": 12},
    }


def cleaned(value: Any) -> Any:
    """Return a figure's JSON made safe: no NaN, and no markup but line breaks and bold.

    Plotly reads a little HTML in its texts, and names come from users.
    """
    if isinstance(value, str):
        escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        for tag in _MARKUP:
            escaped = escaped.replace(tag.replace("<", "&lt;").replace(">", "&gt;"), tag)
        return escaped
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): cleaned(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(each) for each in value]
    return value
