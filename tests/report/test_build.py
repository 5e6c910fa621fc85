"""The whole file: offline, escaped, and whole even where a section is not."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import RunFolderError, UserInputError
from hwnas.report import build_report
from hwnas.report.build import render_report
from hwnas.report.parts import Fragment
from hwnas.report.results import ArchitectureRecord, Drawing, DrawnEdge, DrawnNode, KernelTime
from hwnas.report.run_data import RunData, Trial
from hwnas.report.sections import SECTIONS, Section
from hwnas.report.sections.headline import Headline

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7*7777 }}"
Folder = Callable[..., Path]


class Page(HTMLParser):
    """Collects tags with attributes, ids, and the texts outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._stack: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._stack and self._stack[-1] == tag:
            self._stack.pop()

    def handle_data(self, data: str) -> None:
        if not self._stack:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def failing_section(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*_: object) -> Fragment:
        raise RuntimeError("<b>the plug-in is broken</b>")

    monkeypatch.setattr(Headline, where, fail)


def test_the_report_of_a_run_has_every_section_and_no_reason_card(make_folder: Folder) -> None:
    folder = make_folder()
    out = build_report(folder)
    assert out == folder / "report.html"
    assert not list(folder.glob("*.partial"))
    page = Page(out.read_text(encoding="utf-8"))
    assert [each["id"] for each in page.all("section")] == [
        name for name, _ in sorted(SECTIONS.items(), key=lambda item: item[1].order)
    ]
    assert "callout error" not in {each.get("class") for each in page.all("div")}
    assert "What could not be read" not in page.text


def test_nothing_is_loaded_from_anywhere(make_folder: Folder) -> None:
    html = build_report(make_folder()).read_text(encoding="utf-8")
    page = Page(html)
    loads = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert loads
    assert [value for value in loads if not str(value).startswith(("#", "data:"))] == []
    [style] = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    [policy] = [e["content"] for e in page.all("meta") if "http-equiv" in e]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_plotly_is_inlined_once(make_folder: Folder) -> None:
    html = build_report([make_folder("a"), make_folder("b")]).read_text(encoding="utf-8")
    assert html.count("plotly.js v") == 1
    assert len(html) < 8_000_000


def test_hostile_names_and_messages_are_shown_and_not_run(
    make_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = Drawing(
        title=EVIL,
        nodes=[DrawnNode(id=EVIL, label=EVIL, detail=EVIL), DrawnNode(id="b", label="b")],
        edges=[DrawnEdge(source=EVIL, target="b", label=EVIL)],
    )
    run = RunData.load(
        make_folder(
            command=EVIL,
            notes=[EVIL],
            device={"cpu": EVIL, "nested": {EVIL: EVIL}},
            drawings=[drawing],
            kernels=[KernelTime(op=EVIL, signature=EVIL, name=EVIL, ms=1.0)],
            chosen=EVIL,
        )
    )
    assert run.results is not None
    rows = [row.model_copy(update={"role": EVIL, "onnx": EVIL}) for row in run.results.headline]
    rows[0] = rows[0].model_copy(
        update={"architecture": ArchitectureRecord(id=EVIL, answers={EVIL: EVIL})}
    )
    run = dataclasses.replace(
        run,
        path=Path(EVIL.replace("/", "")),
        results=run.results.model_copy(update={"headline": rows}),
        trials=tuple(
            Trial(i, "failed" if i % 2 else "complete", EVIL, {EVIL: EVIL}, 1.0, 0.5, message=EVIL)
            for i in range(60)
        ),
        run={"state": EVIL, "error": EVIL},
        problems=(EVIL,),
    )
    html = render_report([run])
    page = Page(html)
    assert "img" not in {tag for tag, _ in page.tags}
    kinds = [each.get("type") for each in page.all("script")]
    assert kinds.count(None) == 2  # plotly.js and the page's own
    assert set(kinds) == {None, "application/json"}
    assert not [a for _, each in page.tags for a in each if a.startswith("on")]
    assert "alert(1)" in page.text
    assert "{{ 7*7777 }}" in page.text
    assert "54439" not in html
    assert "callout error" not in {each.get("class") for each in page.all("div")}


def test_markup_in_a_figure_is_text_to_plotly(make_folder: Folder) -> None:
    run = RunData.load(make_folder())
    other = dataclasses.replace(run, path=Path("<a href='javascript:x'>run"))
    html = render_report([run, other])
    assert "\\u003ca href" not in html
    assert "\\u0026lt;a href" in html


@pytest.mark.parametrize("where", ["applicable", "render"])
def test_a_section_that_fails_becomes_a_card_and_the_rest_is_drawn(
    make_folder: Folder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    failing_section(monkeypatch, where)
    page = Page(build_report(make_folder()).read_text(encoding="utf-8"))
    assert "RuntimeError: <b>the plug-in is broken</b>" in page.text
    assert len(page.all("section")) == len(SECTIONS.names())
    assert len([each for each in page.all("div") if each.get("class") == "plot"]) > 5


def test_a_section_that_returns_rubbish_becomes_a_card(
    make_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Headline, "render", lambda *_: ("not a part",))
    page = Page(build_report(make_folder()).read_text(encoding="utf-8"))
    assert "This section failed" in page.text


@pytest.mark.parametrize(
    "missing",
    ["config.yaml", "run.json", "events.jsonl", "trials.db", "results.json", "all but config"],
)
def test_a_folder_that_lacks_files_still_has_a_report_that_says_so(
    make_folder: Folder, missing: str
) -> None:
    everything = ("run.json", "events.jsonl", "trials.db", "results.json")
    files = everything if missing == "all but config" else (missing,)
    page = Page(build_report(make_folder(leave_out=files)).read_text(encoding="utf-8"))
    for file in files:
        assert f"{file} does not exist yet" in page.text
    assert "callout error" not in {each.get("class") for each in page.all("div")}


def test_an_unfinished_run_says_so(make_folder: Folder) -> None:
    page = Page(build_report(make_folder(state="interrupted")).read_text(encoding="utf-8"))
    assert "is not finished: its state is “interrupted”" in page.text


def test_several_runs_make_a_comparison_beside_the_first(make_folder: Folder) -> None:
    folders = [make_folder("first"), make_folder("second", seed=2)]
    out = build_report(folders)
    assert out == folders[0].parent / "comparison.html"
    page = Page(out.read_text(encoding="utf-8"))
    assert "2 runs compared" in page.text
    assert "first, second" in page.text


def test_the_report_goes_where_it_is_asked_to(make_folder: Folder, tmp_path: Path) -> None:
    out = build_report(make_folder(), tmp_path / "new" / "folder" / "r.html")
    assert out.stat().st_size > 1_000_000


def test_a_place_that_cannot_be_written_is_an_error_with_a_hint(
    make_folder: Folder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written") as caught:
        build_report(make_folder(), tmp_path / "file" / "r.html")
    assert "--out" in str(caught.value)


def test_no_run_at_all_is_an_error() -> None:
    with pytest.raises(UserInputError, match="no run"):
        build_report([])


def test_every_table_has_headers_and_every_figure_a_text(make_folder: Folder) -> None:
    html = build_report(make_folder()).read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(each["scope"] == "col" for each in page.all("th"))
    plots = [each for each in page.all("div") if each.get("class") == "plot"]
    assert all(each["aria-label"] for each in plots)
    assert all(each["aria-label"] for each in page.all("svg") if "role" in each)
    assert len(page.all("figcaption")) == len(page.all("figure"))


def test_ids_are_unique(make_folder: Folder) -> None:
    page = Page(build_report(make_folder()).read_text(encoding="utf-8"))
    ids = [each["id"] for _, each in page.tags if "id" in each]
    assert len(ids) == len(set(ids))


def test_listing_sections_imports_no_heavy_package() -> None:
    code = (
        "import sys; from hwnas.report.sections import SECTIONS; SECTIONS.names();"
        "heavy = {'torch', 'plotly', 'jinja2', 'sklearn', 'onnxruntime', 'moocore'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_section_of_a_third_party_is_drawn_in_its_place(
    make_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.report.parts import Text

    class Extra(Section):
        order = 15
        title = "Extra"

        def applicable(self, run: RunData) -> str | None:
            return None

        def render(self, run: RunData) -> Fragment:
            return (Text("drawn by a stranger"),)

    plugins: dict[str, Any] = dict(SECTIONS.items()) | {"extra": Extra}
    monkeypatch.setattr(SECTIONS, "_plugins", plugins)
    page = Page(build_report(make_folder()).read_text(encoding="utf-8"))
    assert [each["id"] for each in page.all("section")][1] == "extra"
    assert "drawn by a stranger" in page.text
