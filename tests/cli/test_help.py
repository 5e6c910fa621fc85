from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

import hwnas.cli
from hwnas import __version__

if TYPE_CHECKING:
    from tests.cli.conftest import Python, Ran

VERBS = sorted(m.name for m in pkgutil.iter_modules(hwnas.cli.__path__) if m.name[0] != "_")
HEAVY = {"torch", "sklearn", "plotly", "onnxruntime", "onnx", "scipy"}

#: Prints the help of every verb, then what was imported and how long each took.
ALL_HELPS = """
import json, sys, time
start = time.process_time()
import hwnas
from hwnas.cli._app import build
app = build()
took = {"import": time.process_time() - start}
import contextlib, io
for words in json.loads(sys.argv[1]):
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            app(words, prog_name="hwnas")
        except SystemExit as exit:
            assert not exit.code, words
    assert "Examples" in out.getvalue(), words
    took[" ".join(words)] = time.process_time() - start
print(json.dumps({"took": took, "modules": sorted(sys.modules)}))
"""


def test_no_help_takes_a_second_or_imports_anything_heavy(python: Python) -> None:
    calls = [["--help"], *([verb, "--help"] for verb in VERBS)]
    ran = python(json.dumps(calls), script=ALL_HELPS)
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert not HEAVY & set(found["modules"])
    assert found["took"]["import"] + found["took"]["--help"] < 1.0
    assert all(took < 1.0 for took in found["took"].values()), found["took"]


@pytest.mark.parametrize(
    "words", [["ls", "spaces"], ["ls", "strategies"], ["check", "digits_demo"]]
)
def test_listing_and_checking_import_nothing_heavy(python: Python, words: list[str]) -> None:
    script = (
        "import sys; from hwnas.cli._app import build\n"
        "try: build()(sys.argv[1:])\n"
        "except SystemExit as exit: assert not exit.code\n"
        f"heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy"
    )
    ran = python(*words, script=script)
    assert ran.code == 0, ran


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_ends_with_two_examples_of_that_verb(
    hwnas: Callable[..., Ran], verb: str
) -> None:
    found = hwnas(verb, "--help")
    assert found.code == 0
    examples = found.out[found.out.index("Examples:") :]
    assert len(re.findall(rf"^\s*hwnas {verb}\b", examples, flags=re.MULTILINE)) == 2
    assert len(import_module(f"hwnas.cli.{verb}").VERB.examples) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json_and_debug(hwnas: Callable[..., Ran], verb: str) -> None:
    found = hwnas(verb, "--help")
    assert "--json" in found.out
    assert "--debug" in found.out


def test_the_help_lists_every_verb(hwnas: Callable[..., Ran]) -> None:
    found = hwnas("--help")
    assert all(re.search(rf"\b{verb}\b", found.out) for verb in VERBS)


def test_a_flag_means_the_same_in_every_verb() -> None:
    import typer

    from hwnas.cli._app import build

    group = typer.main.get_command(build())
    meanings: dict[str, set[str]] = {}
    for command in group.commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.opts[0] in {"--set", "--seed", "--device", "--max-latency-ms", "--json"}:
                meanings.setdefault(parameter.opts[0], set()).add(parameter.help)
    assert all(len(texts) == 1 for texts in meanings.values()), meanings


def test_the_version_is_printed(hwnas: Callable[..., Ran]) -> None:
    found = hwnas("--version")
    assert (found.code, found.out) == (0, f"hwnas {__version__}\n")
