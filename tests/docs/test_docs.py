"""The documentation is run: every command and every Python block of README.md and docs/.

A page is run from top to bottom in one temporary folder:

- ```bash` blocks are run by bash, and must exit with 0, or with N in ``… || test $? = N``;
- ```python` blocks are run, each as a program of its own;
- a block with ``title="FILE"`` is a file: if the repository has it, the two must be the same; if
  not, it is a file of the user; both are written to the temporary folder for the blocks after it;
- ```text`, ```json` and ```toml` blocks are read, not run.

What a page cannot run is in `NOT_RUN`, with the place where it is run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RUN = {"bash", "python"}
READ = {"text", "json", "toml"}
FILES = {"yaml", "python"}
#: A command that is meant to fail, and its exit code.
FAILS = re.compile(r"(.*?)\s*\|\| test \$\? = (\d+)", re.DOTALL)

#: Commands that change the environment or take minutes, and the file that runs them, with the words
#: that must be found there.
NOT_RUN = {
    "git clone": (".ci/run", "Needs a clean checkout"),
    "cd hwnas": (".ci/run", 'cd "$(dirname "$0")/.."'),
    "make demo": (".ci/run", "hwnas demo --seconds"),
    "make test": (".ci/run", "make test"),
    "pip install": (".ci/run", 'bin/pip" install'),
    "hwnas demo": (".ci/run", "hwnas demo --seconds"),
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{_name(self.page)}:{self.line}"


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, str, str | None] | None = None
    inside: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("```"):
            if opened is None:
                language, _, rest = line[3:].partition(" ")
                title = re.search(r'title="([^"]+)"', rest)
                opened, inside = (number, language, title[1] if title else None), []
            else:
                yield Block(page, *opened, "\n".join(inside) + "\n")
                opened = None
        elif opened is not None:
            inside.append(line)
    assert opened is None, f"{_name(page)}:{opened and opened[0]}: the block is never closed"


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def commands(text: str) -> list[str]:
    """Return the command lines of a bash block; a backslash continues a line."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def is_run(command: str) -> bool:
    words = shlex.split(command, comments=True)
    return not any(words[: len(known.split())] == known.split() for known in NOT_RUN)


def hwnas_calls(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield every call of hwnas with its words: those of blocks, and those inside sentences."""
    for block in blocks(page):
        if block.language == "bash":
            for command in commands(block.text):
                words = shlex.split(command, comments=True)
                if words[0] == "hwnas" and "||" not in words:
                    yield str(block), words[1:]
    for inline in re.findall(r"`(hwnas [^`]+)`", prose(page)):
        yield _name(page), shlex.split(inline)[1:]


# ------------------------------------------------------------------ what is quick to check


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_says_what_it_is_and_is_run_or_read(page: Path) -> None:
    for block in blocks(page):
        assert block.language in RUN | READ | FILES, f"{block}: language {block.language!r}"
        if block.language in FILES - RUN:
            assert block.title, f'{block}: a {block.language} block needs title="FILE"'


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_block_that_shows_a_file_of_the_repository_is_that_file(page: Path) -> None:
    for block in blocks(page):
        if block.title is not None and (ROOT / block.title).is_file():
            original = (ROOT / block.title).read_text(encoding="utf-8")
            assert block.text == original, f"{block}: copy {block.title} into the page again"


def test_whole_files_are_shown_where_they_are_promised() -> None:
    shown = {block.title for page in PAGES for block in blocks(page)}
    assert "hwnas/spaces/conv_chain.py" in shown


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{_name(page)}: {target} leads nowhere"
        if anchor:
            assert anchor in _anchors(linked), f"{_name(page)}: {target}: no such heading"
        if page.is_relative_to(ROOT / "docs"):
            assert linked.is_relative_to(ROOT / "docs"), f"{target} is not part of the site"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose(page), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {re.sub(r"[ -]+", "-", heading.strip()) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_call_of_hwnas_uses_verbs_and_flags_that_exist(page: Path) -> None:
    verbs = _verbs()
    for where, words in hwnas_calls(page):
        verb = words[0]
        if verb.startswith("-"):
            assert verb in {"--help", "--version", "-h"}, f"{where}: hwnas {verb}"
            continue
        if not verb.islower():  # `hwnas VERB --help`
            continue
        assert verb in verbs, f"{where}: there is no verb {verb!r}"
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        unknown = flags - verbs[verb] - {"--help"}
        assert not unknown, f"{where}: hwnas {verb} has no {sorted(unknown)}"


def test_the_command_page_lists_every_verb_with_every_flag_and_no_other() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^## hwnas (\w+)\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    )
    everywhere = {"--json", "--debug", "--help"}
    listed = {
        verb: set(re.findall(r"^\| `(--[\w-]+)", text, flags=re.MULTILINE))
        for verb, text in sections.items()
    }
    assert listed == {verb: flags - everywhere for verb, flags in _verbs().items()}


def test_the_command_page_lists_the_exit_codes() -> None:
    from hwnas import errors
    from hwnas.engine.progress import Interrupted

    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = set(map(int, re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)))
    known = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.HwnasError)
    }
    assert known | {0, 2, Interrupted.exit_code} == listed


def _verbs() -> dict[str, set[str]]:
    """Return the verbs of the command line with their long flags."""
    from typer.main import get_command

    from hwnas.cli._app import build

    return {
        name: {
            flag
            for parameter in command.params
            for flag in (*parameter.opts, *parameter.secondary_opts)
            if flag.startswith("--")
        }
        for name, command in get_command(build()).commands.items()  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("command", NOT_RUN)
def test_a_command_that_the_pages_do_not_run_is_run_elsewhere(command: str) -> None:
    file, words = NOT_RUN[command]
    assert words in (ROOT / file).read_text(encoding="utf-8")


def test_the_list_of_what_is_not_run_has_no_leftovers() -> None:
    used = {
        known
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for command in commands(block.text)
        for known in NOT_RUN
        if command.split()[: len(known.split())] == known.split()
    }
    assert used == set(NOT_RUN)


def test_every_page_is_in_the_navigation_and_in_a_list_of_pages() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT / "docs")) in navigation, f"{page} is in no menu"
    decisions = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"({page.name})" in decisions, f"{page.name} is not listed"


def test_the_entry_point_in_the_pages_is_one_that_the_registry_looks_for() -> None:
    import tomllib

    from hwnas.spaces import SPACES

    found = [
        tomllib.loads(block.text)["project"]["entry-points"]
        for page in PAGES
        for block in blocks(page)
        if block.language == "toml"
    ]
    assert found, "no page shows how another package offers its space"
    for groups in found:
        for group, points in groups.items():
            assert group == SPACES.package
            for name, value in points.items():
                assert EntryPoint(name, value, group).module


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    build = ["-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    _run([sys.executable, *build, "--site-dir", str(tmp_path / "site")], tmp_path, "mkdocs")
    assert (tmp_path / "site" / "guides" / "own-images" / "index.html").is_file()


# ------------------------------------------------------------------ what is run


def _pages_that_run() -> list[Path]:
    return [page for page in PAGES if any(_is_run_block(block) for block in blocks(page))]


def _is_run_block(block: Block) -> bool:
    if block.language == "bash":
        return any(map(is_run, commands(block.text)))
    return block.language == "python" and block.title is None


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with this hwnas, and with a cache of its own in the folder."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "NO_MKDOCS_2_WARNING": "1",
    }


def _run(words: list[str], folder: Path, what: str, expected: int = 0) -> None:
    done = subprocess.run(
        words,
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=480,
        check=False,
    )
    code = done.returncode
    assert code == expected, f"{what} exits with {code}, not {expected}:\n{done.stdout[-4000:]}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", _pages_that_run(), ids=_name)
def test_a_page_can_be_followed_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.title is not None:
            # A file of the package itself is not needed, and a folder `hwnas` would be in the way.
            if not block.title.startswith("hwnas/"):
                (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            _run([sys.executable, "-c", block.text], tmp_path, str(block))
        elif block.language == "bash":
            for command in filter(is_run, commands(block.text)):
                fails = FAILS.fullmatch(command)
                line, code = (fails[1], int(fails[2])) if fails else (command, 0)
                _run(["bash", "-euo", "pipefail", "-c", line], tmp_path, f"{block}: {line}", code)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    _run([sys.executable, str(example)], tmp_path, _name(example))
