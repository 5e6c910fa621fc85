"""WikiText-2, from a folder that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pydantic import Field

from hwnas.data import DATASETS
from hwnas.data._text import TextDataset, read_lines, text_folder, words_of_lines

_WHOLE = (
    ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    ("wikitext2-train.txt", "wikitext2-valid.txt", "wikitext2-test.txt"),
)
_HELD_OUT = (
    ("wiki.valid.tokens", "wiki.test.tokens"),
    ("wikitext2-valid.txt", "wikitext2-test.txt"),
)


@DATASETS.register("wikitext2")
class WikiText2(TextDataset):
    """WikiText-2: 2,088,628 words of Wikipedia, 33,278 different ones; from a folder.

    Source: Merity et al. 2016, "Pointer Sentinel Mixture Models"; licence CC BY-SA 3.0. The files
    are ``wiki.train.tokens``, ``wiki.valid.tokens`` and ``wiki.test.tokens`` as published, or
    ``wikitext2-train.txt`` and so on.

    With `held_out_only` the training text is not needed: the published test text is trained on,
    and the published validation text is halved into valid and test. Such figures can be compared
    with each other, but not with published ones.
    """

    class Config(TextDataset.Config):
        """Settings of WikiText-2."""

        folder: Path | None = Field(
            None,
            description="Folder with the files. Unset: $HWNAS_DATA, ./data, ../shared/data, and "
            "wikitext2 and text in each.",
        )
        held_out_only: bool = Field(
            False, description="Use the validation and test texts only: a tenth of the data."
        )

    name = "wikitext2"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def _words(self, part: str) -> Sequence[str]:
        needed = _HELD_OUT if self.config.held_out_only else _WHOLE
        folder = text_folder(self.config.folder, needed, title="WikiText-2", below="wikitext2")
        names = next(each for each in needed if all((folder / name).is_file() for name in each))
        if not self.config.held_out_only:
            return _read(folder / names[("train", "valid", "test").index(part)])
        if part == "train":
            return _read(folder / names[1])
        words = _read(folder / names[0])
        half = len(words) // 2
        return words[:half] if part == "valid" else words[half:]


@cache
def _read(path: Path) -> Sequence[str]:
    return words_of_lines(read_lines(path))
