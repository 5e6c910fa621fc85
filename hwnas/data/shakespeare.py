"""Tiny Shakespeare, character by character; ships with hwnas."""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files

from pydantic import Field, model_validator

from hwnas.data import DATASETS
from hwnas.data._text import TextDataset


@DATASETS.register("shakespeare")
class Shakespeare(TextDataset):
    """1,115,394 characters of Shakespeare's plays, 65 different ones; ships with hwnas.

    Source: Karpathy's "tiny Shakespeare", in the public domain. The first part is for training,
    then comes the validation text, then the test text.
    """

    class Config(TextDataset.Config):
        """Settings of the text."""

        valid_fraction: float = Field(
            0.05, gt=0, lt=0.5, description="Share of the text that compares architectures."
        )
        test_fraction: float = Field(
            0.05, gt=0, lt=0.5, description="Share of the text kept for the final figure."
        )

        @model_validator(mode="after")
        def _leaves_something(self) -> Shakespeare.Config:
            if self.valid_fraction + self.test_fraction > 0.9:
                raise ValueError("valid_fraction and test_fraction leave too little for training")
            return self

    name = "shakespeare"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    @cached_property
    def _text(self) -> str:
        return files("hwnas.data").joinpath("tinyshakespeare.txt").read_text(encoding="utf-8")

    def _words(self, part: str) -> str:
        count = len(self._text)
        test = count - int(count * self.config.test_fraction)
        valid = test - int(count * self.config.valid_fraction)
        bounds = {"train": (0, valid), "valid": (valid, test), "test": (test, count)}
        start, stop = bounds[part]
        return self._text[start:stop]
