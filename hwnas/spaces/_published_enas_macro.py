"""The network of the ENAS authors' `scripts/cifar10_macro_final.sh`."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.spaces import Published, Stated
from hwnas.spaces._enas_macro_arc import ARC_FORM, OPS, read_arc
from hwnas.spaces._text import numbers_of

_SOURCE = "https://github.com/melodyguan/enas, scripts/cifar10_macro_final.sh"

#: Each line is a layer: its op, and a bit for each output before its input (0: the stem).
_ARC = """
0
3 0
0 1 0
2 0 0 1
2 0 0 0 0
3 1 1 0 1 0
2 0 0 0 0 0 1
2 0 1 1 0 1 1 1
1 0 1 1 1 0 1 0 1
0 0 0 0 0 0 0 0 0 0
2 0 0 0 0 0 1 0 0 0 0
0 1 0 0 1 1 0 0 0 0 1 1
2 0 1 0 0 0 0 0 1 0 1 1 0
1 0 0 1 0 0 0 1 1 1 0 1 0 1
0 1 1 0 1 0 1 0 0 0 0 0 1 0 0
2 0 0 1 0 0 0 0 0 0 0 1 0 1 0 1
2 0 1 0 0 0 1 0 0 1 1 1 1 0 0 1 0
2 0 0 0 0 1 0 1 0 1 0 0 1 0 1 0 0 1
3 0 1 1 0 1 0 0 0 0 0 1 0 1 0 1 0 0 0
3 0 1 1 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1
0 1 0 0 1 0 1 1 0 0 0 1 0 0 0 0 0 1 1 0 0
3 0 1 0 1 1 0 0 1 0 1 1 0 1 1 0 1 0 0 1 0 0
0 1 0 1 0 1 0 0 0 0 0 0 0 0 1 0 1 0 0 1 0 0 0
0 1 1 0 0 0 1 1 1 0 1 0 0 0 1 0 1 0 0 1 1 0 0 0
"""

#: What `_fixed_layer` makes of the ids; in the search they stand for `OPS`.
_TRAINED = ("conv_3x3", "conv_3x3", "conv_5x5", "conv_5x5")

_SETTINGS = {"form": "final", "layers": 24, "channels": 96, "dropout": 0.5}

_DIFFERENCE = (
    "Table 1 states 21.3 M (and 38.0 M with more channels) for a network that the paper draws and "
    "nobody printed; the arc in the script, with the script's 24 layers of 96, 192 and 384 "
    "channels, has {count} {reading}: projections of skips and 1×1 convolutions 12.7 M, the ops "
    "themselves {ops}."
)


def published() -> Mapping[str, Published]:
    """Return the script's network by both readings of its ids."""
    readings = {
        "enas_macro_script": (OPS, "30.9 M", "16.8 M", "with the ops of the search"),
        "enas_macro_script_as_trained": (_TRAINED, "42.6 M", "28.4 M", "as its code trains it"),
    }
    return {
        name: Published(
            architecture=read_arc(numbers_of(_ARC, ARC_FORM), 24, ops=ops),
            settings=_SETTINGS,
            input_shape=(3, 32, 32),
            classes=10,
            params=Stated(21.3e6, 0.05e6),
            source=f"Pham et al. 2018, table 1 (ENAS + macro search space); {_SOURCE}",
            difference=_DIFFERENCE.format(count=count, ops=own, reading=reading),
        )
        for name, (ops, count, own, reading) in readings.items()
    }
