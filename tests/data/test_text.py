"""Texts: vocabularies, splits, folders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from hwnas.data import DATASETS, TextSplit
from hwnas.data.penn_treebank import PennTreebank
from hwnas.data.shakespeare import Shakespeare
from hwnas.data.wikitext2 import WikiText2
from hwnas.errors import HwnasError, UserInputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def _write(folder: Path, form: str) -> None:
    texts = {"train": " the cat sat \n the dog \n", "valid": " the cat \n", "test": " dog cat \n"}
    for part, text in texts.items():
        (folder / form.format(part)).write_text(text)


def test_shakespeare_ships_and_is_cut_in_its_order() -> None:
    data = Shakespeare(Shakespeare.Config())
    assert (data.classes, data.input_shape, data.task) == (65, (35,), "language_model")
    parts = [data.train, data.valid, data.test]
    assert sum(map(len, parts)) == 1_115_394
    text = "".join(data.class_names[i] for part in parts for i in part.tokens)
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert len(data.valid) == len(data.test) == 55_769
    short = Shakespeare(Shakespeare.Config(train_tokens=1000))
    assert len(short.train) == 1000
    assert short.class_names == data.class_names
    assert (short.train.tokens == data.train.tokens[:1000]).all()


@pytest.mark.parametrize("form", ["ptb.{}.txt", "{}.txt"])
def test_penn_treebank_ends_lines_and_numbers_words_as_they_come(tmp_path: Path, form: str) -> None:
    _write(tmp_path, form)
    data = PennTreebank(PennTreebank.Config(folder=tmp_path))
    assert data.class_names == ("the", "cat", "sat", "<eos>", "dog")
    assert data.train.tokens.tolist() == [0, 1, 2, 3, 0, 4, 3]
    assert data.valid.tokens.tolist() == [0, 1, 3]
    assert data.test.tokens.tolist() == [4, 1, 3]


def test_penn_treebank_refuses_words_that_its_training_text_lacks(tmp_path: Path) -> None:
    _write(tmp_path, "ptb.{}.txt")
    (tmp_path / "ptb.valid.txt").write_text(" the bird \n the worm \n")
    with pytest.raises(UserInputError, match="2 words of its valid text, such as 'bird'"):
        _ = PennTreebank(PennTreebank.Config(folder=tmp_path)).class_names


def test_wikitext_can_do_without_its_training_text(tmp_path: Path) -> None:
    (tmp_path / "wiki.valid.tokens").write_text("a b c\nd e f\n")
    (tmp_path / "wiki.test.tokens").write_text("g h\n")
    with pytest.raises(UserInputError, match=r"lacks wiki\.train\.tokens"):
        _ = WikiText2(WikiText2.Config(folder=tmp_path)).train
    data = WikiText2(WikiText2.Config(folder=tmp_path, held_out_only=True))
    assert [len(data.train), len(data.valid), len(data.test)] == [3, 4, 4]


def test_wikitext_has_the_published_numbers_of_tokens() -> None:
    folder = SHARED / "text"
    if not (folder / "wikitext2-valid.txt").is_file():
        pytest.skip(f"no WikiText-2 in {folder}")
    data = WikiText2(WikiText2.Config(folder=folder, held_out_only=True))
    assert len(data.train) == 245_569
    assert len(data.valid) + len(data.test) == 217_646


def test_a_missing_text_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="The Penn Treebank was not found") as caught:
        _ = PennTreebank(PennTreebank.Config(folder=tmp_path)).class_names
    assert str(tmp_path) in caught.value.message
    assert "ptb.train.txt" in str(caught.value.hint)


def test_a_folder_that_lacks_a_file_or_is_none_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "ptb.{}.txt")
    (tmp_path / "ptb.test.txt").unlink()
    with pytest.raises(UserInputError, match=r"is not whole: .* lacks ptb\.test\.txt"):
        _ = PennTreebank(PennTreebank.Config(folder=tmp_path)).class_names
    for wrong in (tmp_path / "nowhere", tmp_path / "ptb.train.txt"):
        with pytest.raises(UserInputError, match=f"{wrong.name} is no folder"):
            _ = PennTreebank(PennTreebank.Config(folder=wrong)).class_names


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "{}.txt")
    (tmp_path / "valid.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserInputError, match=r"valid\.txt cannot be read as UTF-8"):
        _ = PennTreebank(PennTreebank.Config(folder=tmp_path)).valid


def test_the_test_text_is_locked_during_a_search_and_stays_behind_when_sent() -> None:
    data = Shakespeare(Shakespeare.Config()).without_test()
    with pytest.raises(HwnasError, match="locked"):
        _ = data.test
    _ = data.train
    assert len(pickle.dumps(data)) < 2_000_000
    assert (pickle.loads(pickle.dumps(data)).train.tokens == data.train.tokens).all()


def test_fractions_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="leave too little"):
        Shakespeare.Config(valid_fraction=0.49, test_fraction=0.49)
    with pytest.raises(UserInputError, match="fewer than two"):
        TextSplit(np.zeros(1, np.int64))


def test_texts_are_registered() -> None:
    assert {"shakespeare", "penn_treebank", "wikitext2"} <= set(DATASETS.names())
