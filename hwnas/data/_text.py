"""What the text data sets share: tokens, vocabularies, splits."""

from __future__ import annotations

import itertools
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.data._augment import Augment
from hwnas.data._dataset import ChannelValues, Dataset, Shape
from hwnas.errors import UserInputError

#: Ends each line of a text of words, as in the language-model evaluation of the Penn Treebank.
END_OF_SENTENCE = "<eos>"


@dataclass(frozen=True, eq=False)
class TextSplit:
    """A text as numbers, read-only.

    Attributes:
        tokens: `[N]` int64, from 0 to the number of words minus one.

    Raises:
        UserInputError: There are fewer than two tokens: nothing follows anything.
    """

    tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the tokens and make them read-only."""
        if self.tokens.ndim != 1 or self.tokens.dtype != np.int64:
            raise UserInputError(f"tokens must be [N] in int64, not {self.tokens.dtype}")
        if len(self.tokens) < 2:
            raise UserInputError("a text with fewer than two tokens: nothing can be predicted")
        frozen = self.tokens.view()
        frozen.flags.writeable = False
        object.__setattr__(self, "tokens", frozen)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)


class TextDataset(Dataset):
    """A text whose next token is to be predicted.

    `input_shape` is `(T,)`, the tokens that a network sees at once; what came before reaches it
    through the state that it carries from window to window. `classes` is the number of words.
    """

    task: ClassVar[str] = "language_model"

    class Config(Dataset.Config):
        """Settings that every text has."""

        bptt: int = Field(
            35, ge=1, description="Tokens of a window: how far gradients reach back in time."
        )
        train_tokens: int | None = Field(
            None, ge=2, description="Tokens to fit weights on, from the start; unset: all."
        )
        evaluation_batch: int = Field(
            10,
            ge=1,
            description="Columns into which a text is cut when its perplexity is measured; 1 "
            "carries the state through all of it, as published tests do, and is slow.",
        )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.text = config

    @property
    def input_shape(self) -> Shape:
        """`(T,)`."""
        return (self.text.bptt,)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The vocabulary, by token."""
        return self._vocabulary

    @abstractmethod
    def _words(self, part: str) -> Sequence[str]:
        """Return the words of `train`, `valid` or `test` in their order."""

    @cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        """All words of all three parts, in the order in which they first come up.

        As the published language models count it (Merity's `data.Corpus`): words of the
        validation and test text that the training text lacks have a number too.
        """
        found: dict[str, None] = {}
        for part in ("train", "valid", "test"):
            found.update(dict.fromkeys(self._words(part)))
        return tuple(found)

    def _numbers(self, part: str) -> TextSplit:
        number = {word: index for index, word in enumerate(self._vocabulary)}
        words = self._words(part)
        if part == "train" and self.text.train_tokens is not None:
            words = words[: self.text.train_tokens]
        return TextSplit(np.array([number[word] for word in words], np.int64))

    def _read_search(self) -> tuple[TextSplit, TextSplit]:
        return self._numbers("train"), self._numbers("valid")

    def _read_test(self) -> TextSplit:
        return self._numbers("test")

    @property
    def normalisation(self) -> tuple[ChannelValues, ChannelValues]:
        """Nothing: tokens are used as they are."""
        return (), ()

    @property
    def augment(self) -> Augment | None:
        """None: a text is not changed."""
        return None


def words_of_lines(lines: Iterable[str]) -> list[str]:
    """Return the words of a text with one sentence a line, each line ended by ``<eos>``."""
    return [word for line in lines for word in (*line.split(), END_OF_SENTENCE)]


def text_folder(
    folder: Path | None, needed: Sequence[Sequence[str]], *, title: str, below: str
) -> Path:
    """Return the first folder that holds one of the sets of files.

    Args:
        folder: What the user named; None looks in ``$HWNAS_DATA``, ``./data`` and
            ``../shared/data``, and in `below` of each.
        needed: Sets of file names; a folder must hold all of one set.
        title: Name of the text, for the message.
        below: Name of its own folder.

    Raises:
        UserInputError: No folder does, or one lacks some of the files; they are named.
    """
    if folder is not None:
        roots = [folder.expanduser()]
    else:
        named = os.environ.get("HWNAS_DATA")
        roots = [Path(named).expanduser()] if named else []
        roots += [Path("data"), Path("../shared/data")]
    candidates = [
        each
        for root in (r.resolve() for r in roots)
        for each in (root, root / below, root / "text")
    ]
    candidates = list(dict.fromkeys(candidates))
    for candidate in candidates:
        if any(all((candidate / name).is_file() for name in names) for names in needed):
            return candidate
    if folder is not None and not candidates[0].is_dir():
        raise UserInputError(
            f"data.folder: {candidates[0]} is no folder", "name the folder that holds the files"
        )
    wanted = ", or ".join(" + ".join(names) for names in needed)
    for candidate, names in itertools.product(candidates, needed):
        missing = [name for name in names if not (candidate / name).is_file()]
        if len(missing) < len(names):
            raise UserInputError(
                f"{title} is not whole: {candidate} lacks {', '.join(missing)}",
                f"put {wanted} there, or name another folder: --set data.folder=FOLDER",
            )
    raise UserInputError(
        f"{title} was not found. Looked in:" + "".join(f"\n    {each}" for each in candidates),
        f"put {wanted} in one of these, or name the folder: --set data.folder=FOLDER",
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text.

    Raises:
        UserInputError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path} cannot be read as UTF-8 text: {error}") from error
