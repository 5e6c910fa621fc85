"""Builds `report.html`: one file that works offline, composed of the sections."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas import __version__
from hwnas.errors import HwnasError, RunFolderError, UserInputError
from hwnas.report.figures import cleaned
from hwnas.report.graph_layout import place
from hwnas.report.parts import Callout, Fragment
from hwnas.report.run_data import RunData
from hwnas.report.sections import SECTIONS, Section

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Drawn:
    """A section as the template sees it."""

    name: str
    title: str
    html: str


def build_report(run: Path | Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run, or a comparison of several.

    Args:
        run: A run folder, or several.
        out: The file to write. By default `report.html` in the run folder, or `comparison.html`
            beside the first of several.

    Returns:
        The file that was written.

    Raises:
        RunFolderError: A path is not a run folder, or the file cannot be written.
        UserInputError: No run was given.
    """
    folders = [run] if isinstance(run, Path) else list(run)
    if not folders:
        raise UserInputError("no run was given to report on", "hwnas report RUN")
    runs = [RunData.load(folder) for folder in folders]
    if out is None:
        first = runs[0].path
        out = first / "report.html" if len(runs) == 1 else first.parent / "comparison.html"
    html = render_report(runs)
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(html, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise RunFolderError(
            f"{out} cannot be written: {error.strerror}", "choose another file with --out"
        ) from error
    return out


def render_report(runs: Sequence[RunData]) -> str:
    """Return the HTML of a report of one or more runs."""
    plotly = _plotly_js()
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    template = _environment().get_template("report.html.j2")
    return template.render(
        title=title,
        runs=runs,
        states=[state for each in runs if (state := run_state(each))],
        problems=[f"{each.name}: {problem}" for each in runs for problem in each.problems],
        sections=[draw(name, section(), runs) for name, section in _ordered()],
        plotly=plotly,
        script=script,
        style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        # The page runs these two scripts and no other, whatever a name may contain.
        script_hashes=" ".join(_csp_hash(text) for text in (plotly, script)),
        version=__version__,
    )


def draw(name: str, section: Section, runs: Sequence[RunData]) -> _Drawn:
    """Draw one section; whatever goes wrong in it becomes a card in its place."""
    try:
        html = _html(_parts(section, runs))
    except Exception as error:  # A third party's section may raise anything.
        _log.warning("the report's section %r failed", name, exc_info=True)
        text = f"{type(error).__name__}: {error}"
        html = _html((Callout("error", "This section failed; the others are whole.", text),))
    return _Drawn(name, section.title, html)


def _html(parts: Fragment) -> str:
    """Return parts as markup: the macro escapes every text in them."""
    module: Any = _environment().get_template("parts.html.j2").module
    html: str = module.all(parts)
    return html


def _parts(section: Section, runs: Sequence[RunData]) -> Fragment:
    if len(runs) > 1:
        return section.compare(runs)
    reason = section.applicable(runs[0])
    return section.render(runs[0]) if reason is None else (Callout("info", reason),)


def run_state(run: RunData) -> Callout | None:
    """Say when a run has not come to its end; None where it has."""
    state = run.run.get("state")
    if state in (None, "finished"):
        return None
    error = run.run.get("error")
    text = str(error) if error else "What follows is what was known when the report was made."
    return Callout("warning", f"{run.name} is not finished: its state is “{state}”.", text)


def _ordered() -> list[tuple[str, type[Section]]]:
    return sorted(SECTIONS.items(), key=lambda item: (item[1].order, item[0]))


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = _figure_json
    environment.filters["script_json"] = _script_json
    environment.filters["placed"] = place
    return environment


def _figure_json(figure: Any) -> Any:
    return _script_json(cleaned(figure))


def _script_json(value: Any) -> Any:
    """Return JSON that is safe inside a script element."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _plotly_js() -> str:
    """Return plotly.js from plotly's package, fit to stand in a script element."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise HwnasError(
            f"the report needs the package plotly: {error}", "pip install plotly"
        ) from error
    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")
