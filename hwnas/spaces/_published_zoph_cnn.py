"""The network of Zoph & Le's first experiment, as read from their figure 7."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.graph import Answer, Architecture
from hwnas.spaces import Published, Stated

#: Filter height, filter width, number of filters, and inputs (from 1; none: the image).
_FIGURE_7 = (
    (3, 3, 36, ()),
    (3, 3, 48, (1,)),
    (3, 3, 36, (1, 2)),
    (5, 5, 36, (1, 2, 3)),
    (3, 7, 48, (3, 4)),
    (7, 7, 48, (2, 3, 4, 5)),
    (7, 7, 48, (2, 3, 4, 5, 6)),
    (7, 3, 36, (1, 6, 7)),
    (7, 1, 36, (1, 5, 6, 8)),
    (7, 7, 36, (1, 3, 4, 5, 6, 7, 8, 9)),
    (5, 7, 36, (1, 2, 5, 6, 7, 8, 9, 10)),
    (7, 7, 48, (1, 2, 3, 4, 6, 11)),
    (7, 5, 48, (1, 3, 6, 7, 8, 9, 10, 11, 12)),
    (7, 5, 48, (3, 7, 12, 13)),
    (7, 5, 48, (6, 7, 11, 12, 13, 14)),
)


def published() -> Mapping[str, Published]:
    """Return the network without strides or pooling."""
    answers: dict[str, Answer] = {}
    for layer, (height, width, filters, inputs) in enumerate(_FIGURE_7):
        answers |= {
            f"layer{layer}/inputs": tuple(each - 1 for each in inputs),
            f"layer{layer}/filter_height": height,
            f"layer{layer}/filter_width": width,
            f"layer{layer}/filters": filters,
        }
    return {
        "zoph_cnn_v1": Published(
            architecture=Architecture(answers),
            settings={"min_depth": 15, "max_depth": 15},
            input_shape=(3, 32, 32),
            classes=10,
            params=Stated(4.2e6, 0.05e6),
            # 4.2 M is from memory; that the transcription gives it speaks for both.
            source="Zoph & Le 2017, table 1 (v1, no stride or pooling) and figure 7, as a public "
            "PyTorch class (NASCNN15) has typed it",
        )
    }
