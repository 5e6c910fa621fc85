"""The Penn Treebank as language models read it, from a folder that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

from pydantic import Field

from hwnas.data import DATASETS
from hwnas.data._text import TextDataset, read_lines, text_folder, words_of_lines
from hwnas.errors import UserInputError

_NAMES = tuple(
    tuple(form.format(part) for part in ("train", "valid", "test"))
    for form in ("ptb.{}.txt", "{}.txt")
)


@DATASETS.register("penn_treebank")
class PennTreebank(TextDataset):
    """The Penn Treebank: 929,589 words for training, 10,000 different ones; from a folder.

    Source: Mikolov et al. 2010, "Recurrent neural network based language model", whose form
    (lower case, ``<unk>``, ``N`` for numbers) is commonly distributed as ``ptb.train.txt``,
    ``ptb.valid.txt`` and ``ptb.test.txt``; ``train.txt`` and so on are read too. The text may not
    be redistributed: it does not ship with hwnas.

    The training text has all the words: rare ones are ``<unk>`` in all three files.
    """

    class Config(TextDataset.Config):
        """Settings of the Penn Treebank."""

        folder: Path | None = Field(
            None,
            description="Folder with the three files. Unset: $HWNAS_DATA, ./data, ../shared/data, "
            "and penn_treebank in each.",
        )

    name = "penn_treebank"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    @cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        """The words of the training text, in the order in which they first come up.

        Raises:
            UserInputError: Another text has a word that it lacks.
        """
        found = tuple(dict.fromkeys(self._words("train")))
        known = set(found)
        for part in ("valid", "test"):
            unknown = [word for word in dict.fromkeys(self._words(part)) if word not in known]
            if unknown:
                raise UserInputError(
                    f"The Penn Treebank: {len(unknown)} words of its {part} text, such as "
                    f"{unknown[0]!r}, are not in its training text",
                    "take the three files of one distribution; rare words are <unk> in all of them",
                )
        return found

    def _words(self, part: str) -> Sequence[str]:
        folder = text_folder(
            self.config.folder, _NAMES, title="The Penn Treebank", below="penn_treebank"
        )
        names = next(each for each in _NAMES if all((folder / name).is_file() for name in each))
        return _read(folder / names[("train", "valid", "test").index(part)])


@cache
def _read(path: Path) -> Sequence[str]:
    return words_of_lines(read_lines(path))
