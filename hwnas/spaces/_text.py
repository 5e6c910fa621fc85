"""What the spaces share that read architectures as other tools print them."""

from __future__ import annotations

import re
from typing import Any

from hwnas.errors import UserInputError
from hwnas.registry import PluginConfig

_MOST_DIGITS = 6


def numbers_of(text: str, form: str) -> list[int]:
    """Read whole numbers between blanks, line ends, commas and brackets, as numpy prints them too.

    Args:
        text: The text.
        form: What it should look like.

    Raises:
        UserInputError: It has something else in it, or nothing.
    """
    words = re.sub(r"[\[\](),\s]+", " ", text).split()
    for word in words:
        if not re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", word):
            raise UserInputError(f"architecture: {word[:40]!r} is no number of an arc", form)
    if not words:
        raise UserInputError("architecture: the text is empty", form)
    return [int(word) for word in words]


def must_have(config: PluginConfig, **found: Any) -> None:
    """Refuse a space whose settings are not those that a text says.

    Args:
        config: Settings of the space.
        found: Settings by name, as the text has them.

    Raises:
        UserInputError: A setting is another one.
    """
    for name, value in found.items():
        has = getattr(config, name)
        if has != value:
            shown = "null" if value is None else list(value) if isinstance(value, tuple) else value
            raise UserInputError(
                f"architecture: the text is of a space with {name}: {shown}, this one has {has}",
                f"--set space.{name}={shown}",
            )
