from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.errors import ConfigError, UserInputError
from hwnas.study.config import RunConfig
from hwnas.study.load import load_config, recipes
from hwnas.study.yaml_file import parse

BAD = """\
name: my run
sed: 3
data: {name: digit}
space:
  name: conv_chain
  min_dept: 3
  max_width: "wide"
search:
  epochs: 0
  optimiser: {learning_rate: 1e-3, momentun: 0.3}
objective:
  reward: {name: mnasnet_soft, latency_weight: 3}
  max_latency_ms: -1
strategy: randm
train: 5
seed: 1
seed: 2
"""


def problems_of(source: object, overrides: list[str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides or [])  # type: ignore[arg-type]
    return caught.value.problems


def test_all_mistakes_of_a_file_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    problems = problems_of(file)
    starts = [
        "line 17, column 1: seed is given twice",
        "line 1: name: ",
        "line 2: sed: unknown setting. Did you mean 'seed'",
        "line 3: data.name: unknown dataset 'digit'. Did you mean 'digits'",
        "line 6: space.min_dept: unknown setting. Did you mean 'min_depth'",
        "line 7: space.max_width: expected a whole number, got 'wide'",
        "line 9: search.epochs: should be greater than or equal to 1, got 0",
        "line 10: search.optimiser.momentun: unknown setting. Did you mean 'momentum'",
        "line 12: objective.reward.latency_weight: should be",
        "line 13: objective.max_latency_ms: should be greater than 0, got -1",
        "line 14: strategy.name: unknown strategy 'randm'. Did you mean 'random'",
        "line 15: train: expected a mapping of settings, got 5",
    ]
    assert len(problems) == len(starts)
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


def test_an_unknown_plug_in_setting_names_those_of_that_plug_in() -> None:
    (problem,) = problems_of({"space": {"name": "enas_micro", "node": 3}})
    assert "'nodes'" in problem


def test_a_resolved_configuration_is_read_back_identically() -> None:
    config = load_config("digits_demo", ["search.optimiser.learning_rate=1e-5"])
    assert config.search.optimiser.learning_rate == 1e-5
    again = load_config(parse(config.to_yaml()).value)
    assert again == config
    assert again.to_yaml() == config.to_yaml()


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_is_valid_and_says_how_to_use_it(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)
    head = recipes()[name].read_text("utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"hwnas search {name}" in head
    assert "--set " in head


def test_overrides_win_in_order_and_are_read_as_yaml() -> None:
    config = load_config({"seed": 1}, ["seed=2", "seed=3", "space.kernels=[3]"])
    assert config.seed == 3
    assert config.space.settings.kernels == (3,)  # type: ignore[attr-defined]


def test_an_override_below_a_section_that_is_left_out_keeps_the_default_plug_in() -> None:
    assert load_config({}, ["strategy.lr=1e-3"]).strategy.name == "enas"


def test_a_section_may_be_just_a_name_and_be_refined_by_an_override() -> None:
    config = load_config({"space": "enas_micro"}, ["space.nodes=3"])
    assert config.space.settings.nodes == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("serach.epochs=3", "--set serach: unknown setting. Did you mean 'search'"),
        ("search.epoch=3", "--set search.epoch: unknown setting. Did you mean 'epochs'"),
        ("search.epochs", "--set search.epochs: expected KEY.KEY=VALUE"),
        ("seed=x", "--set seed: expected a whole number, got 'x'"),
        ("seed=[1", "--set seed=[1: line 1, column"),
        ("objective.max_latency_ms=.nan", "--set objective.max_latency_ms: expected a finite"),
    ],
)
def test_a_wrong_override_is_reported_like_a_wrong_field(override: str, message: str) -> None:
    (problem,) = problems_of({}, [override])
    assert problem.startswith(message)


def test_overrides_do_not_change_the_mapping_that_was_given() -> None:
    given = {"search": {"epochs": 3}}
    load_config(given, ["search.epochs=4"])
    assert given == {"search": {"epochs": 3}}


def test_an_unknown_file_or_recipe_names_the_nearest_recipes() -> None:
    with pytest.raises(UserInputError) as caught:
        load_config("digit_demo")
    assert "'digits_demo'" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_means_the_defaults(text: str, tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text(text)
    assert load_config(file) == load_config()


@pytest.mark.parametrize("text", ["- a\n", "3\n", "a: [\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    assert problems_of(file)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserInputError, match="not a text file"):
        load_config(file)


@pytest.mark.parametrize("given", ["onnxruntime:threads=2", "{name: onnxruntime, threads: 2}"])
def test_a_device_is_named_in_a_configuration_as_on_the_command_line(given: str) -> None:
    config = load_config("digits_demo", [f"latency.runtime={given}"])
    assert config.latency.runtime.name == "onnxruntime"
    assert config.latency.runtime.settings.threads == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("onnxruntime:threads=0", "threads: should be greater than or equal to 1, got 0"),
        ("onnxruntime:thraeds=2", "thraeds: unknown setting. Did you mean 'threads'"),
        ("onnxruntime:threads", "expected settings such as key=value, got 'threads'"),
        ("onnxrutime:threads=2", "unknown runtime 'onnxrutime'. Did you mean 'onnxruntime'"),
    ],
)
def test_a_wrong_device_in_a_configuration_is_a_problem_like_others(
    given: str, problem: str
) -> None:
    (found,) = problems_of("digits_demo", [f"latency.runtime={given}"])
    assert "latency.runtime" in found
    assert problem in found
