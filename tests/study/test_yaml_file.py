from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.study.yaml_file import dump, parse

TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12),
    st.sampled_from(
        ["1e-3", "no", "010", "1:30", "~", "null", ".inf", "0x1f", "2026-11-22", "1_000", "", "-"]
    ),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_dumped_is_read_back_as_the_same_value(value: Any) -> None:
    parsed = parse(dump(value))
    assert parsed.problems == []
    assert parsed.value == value
    assert type(parsed.value) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.e3", 1000.0),
        (".5", 0.5),
        ("010", 10),
        ("10_000", 10_000),
        ("0x1F", 31),
        ("0o17", 15),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("true", True),
        ("null", None),
        ("-.inf", -math.inf),
        ("'1e-3'", "1e-3"),
        ("1.2.3", "1.2.3"),
        ("-", [None]),
    ],
)
def test_scalars_are_what_people_expect(text: str, value: Any) -> None:
    found = parse(text).value
    assert found == value
    assert type(found) is type(value)


def test_every_key_that_is_given_twice_is_reported_with_both_lines() -> None:
    parsed = parse("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert parsed.problems == [
        "line 2, column 11: b.c is given twice (first on line 2)",
        "line 3, column 1: a is given twice (first on line 1)",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1,\nb: }", "line 2, column 4"),
        ("a: 1\n b: 2", "line 2, column 3"),
        ("a:\n\t- 1", "line 2, column 1"),
        ("a: 'open", "line 1, column 9"),
        ("a: 1\n---\nb: 2", "line 2, column 1"),
    ],
)
def test_malformed_text_is_reported_with_line_and_column(text: str, place: str) -> None:
    (problem,) = parse(text).problems
    assert problem.startswith(f"{place}: not valid YAML")


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: &x [*x]", "? [1]\n: 2"])
def test_tags_cycles_and_odd_keys_are_problems_and_not_crashes(text: str) -> None:
    assert len(parse(text).problems) == 1
