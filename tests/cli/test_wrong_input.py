from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Ran

    Hwnas = Callable[..., Ran]


def assert_refused(ran: Ran, code: int, *texts: str) -> None:
    assert ran.code == code, ran
    assert "Traceback" not in ran.err
    assert ran.out == "", ran
    for text in texts:
        assert text in ran.err, ran


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["serach"], ["No such command 'serach'", "'search'"]),
        (["search", "digits_demo", "--sed", "1"], ["--sed", "--seed"]),
        (["search", "digits_demo", "--seed", "x"], ["--seed", "valid integer"]),
        (["init", "digits_demo"], ["FILE"]),
    ],
)
def test_wrong_usage_exits_with_2_and_names_what_is_near(
    hwnas: Hwnas, words: list[str], texts: list[str]
) -> None:
    ran = hwnas(*words)
    assert ran.code == 2
    for text in texts:
        assert text in ran.err


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["search", "digit_demo"], ["neither a file nor a recipe", "'digits_demo'"]),
        (["init", "digit_demo", "x.yaml"], ["unknown recipe 'digit_demo'", "'digits_demo'"]),
        (["search", "digits_demo", "--space", "conv_chian"], ["unknown space", "'conv_chain'"]),
        (["search", "digits_demo", "--strategy", "enass"], ["unknown strategy", "'enas'"]),
        (["search", "digits_demo", "--device", "onnxruntim"], ["unknown runtime", "'onnxruntime'"]),
        (["search", "digits_demo", "--set", "data.name=digit"], ["unknown dataset", "'digits'"]),
        (["check", "digits_demo", "--set", "serach.epochs=1"], ["serach", "'search'"]),
        (["ls", "sapces"], ["cannot list 'sapces'", "'spaces'"]),
        (["search"], ["a configuration file or a recipe is missing"]),
        (["search", "digits_demo", "--budget", "soon"], ["'soon' is not a duration", "30m"]),
        (["search", "--resume", "nowhere"], ["nowhere does not exist"]),
        (["search", "x.yaml", "--resume", "nowhere"], ["--resume continues a run"]),
        (["train", "nowhere"], ["nowhere does not exist"]),
        (["export", "nowhere"], ["nowhere does not exist"]),
        (["report", "nowhere"], ["nowhere"]),
        (["bench", "nowhere.onnx"], ["nowhere.onnx"]),
        (["predict", "nowhere.onnx"], ["nowhere.onnx"]),
    ],
)
def test_an_unknown_name_exits_with_3_and_names_what_is_near(
    hwnas: Hwnas, words: list[str], texts: list[str]
) -> None:
    assert_refused(hwnas(*words), 3, *texts)


def test_malformed_yaml_exits_with_3_and_the_place(hwnas: Hwnas, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("space: {name: conv_chain\nseed: 3\n")
    assert_refused(hwnas("check", "bad.yaml"), 3, "bad.yaml", "line 2", "column")


@pytest.mark.parametrize("verb", ["check", "search"])
def test_several_mistakes_are_reported_at_once(hwnas: Hwnas, tmp_path: Path, verb: str) -> None:
    (tmp_path / "bad.yaml").write_text(
        "sed: 1\nspace: {name: conv_chain, min_dept: 1}\nsearch: {epochs: many}\n"
    )
    ran = hwnas(verb, "bad.yaml", "--set", "train.epoch=1")
    assert_refused(ran, 3, "4 mistakes", "line 1: sed", "'seed'", "min_dept", "epochs", "--set")


def test_with_json_an_error_is_one_object_on_stdout_and_text_on_stderr(hwnas: Hwnas) -> None:
    ran = hwnas("check", "digit_demo", "--json")
    found = json.loads(ran.out)
    assert ran.code == found["exit_code"] == 3
    assert found["error"] == "UserInputError"
    assert "digits_demo" in found["hint"]
    assert ran.err


def test_debug_shows_the_traceback(hwnas: Hwnas) -> None:
    ran = hwnas("check", "digit_demo", "--debug")
    assert ran.code == 3
    assert "Traceback" in ran.err


def test_init_does_not_overwrite_unless_forced(hwnas: Hwnas, tmp_path: Path) -> None:
    assert hwnas("init", "digits_demo", "my.yaml").code == 0
    (tmp_path / "my.yaml").write_text("seed: 7\n")
    assert_refused(hwnas("init", "digits_demo", "my.yaml"), 3, "exists already", "--force")
    assert (tmp_path / "my.yaml").read_text() == "seed: 7\n"
    assert hwnas("init", "digits_demo", "my.yaml", "--force").code == 0
    assert hwnas("check", "my.yaml").code == 0


def test_init_into_a_folder_that_does_not_exist_is_refused(hwnas: Hwnas) -> None:
    assert_refused(hwnas("init", "digits_demo", "no/where.yaml"), 3, "cannot be written")


def test_a_bug_is_told_from_a_mistake_of_the_user(
    hwnas: Hwnas, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("hwnas.study.load.recipe_text", broken)
    assert_refused(hwnas("init", "digits_demo", "x.yaml"), 1, "Bug: ZeroDivisionError", "report")


def test_an_interrupt_exits_with_130(hwnas: Hwnas, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwnas.study.load.recipe_text", interrupted)
    assert_refused(hwnas("init", "digits_demo", "x.yaml"), 130, "Interrupted")


def test_missing_data_is_found_before_anything_else_is_done(hwnas: Hwnas, tmp_path: Path) -> None:
    ran = hwnas("search", "cifar10_enas_micro", "--set", f"data.folder={tmp_path}/none")
    assert ran.code == 3
    assert "cifar10-train.parquet" in ran.err
    assert not (tmp_path / "runs").exists()
