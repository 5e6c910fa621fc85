"""NASNet-A and AmoebaNet-A, as in their authors' public code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.graph import Architecture
from hwnas.spaces import Published, Stated
from hwnas.spaces._cells import cell_answers

_NAMES = {
    "none": "identity",
    "separable_3x3_2": "sep_conv_3x3",
    "separable_5x5_2": "sep_conv_5x5",
    "separable_7x7_2": "sep_conv_7x7",
    "1x7_7x1": "conv_1x7_7x1",
}


def _cell(name: str, operations: Sequence[str], indices: Sequence[int]) -> Mapping[str, Any]:
    """Translate `operations` and `hiddenstate_indices`, whose states 0 and 1 are swapped."""
    pairs = [
        (_NAMES.get(op, op), 1 - index if index < 2 else index)
        for op, index in zip(operations, indices, strict=True)
    ]
    rows = list(zip(pairs[::2], pairs[1::2], strict=True))
    return cell_answers(name, rows, combine="add")


def _output(used: Sequence[int]) -> tuple[int, ...]:
    """Translate `used_hiddenstates`: a 0 means that the state is part of the output."""
    swapped = [used[1], used[0], *used[2:]]
    return tuple(state for state, is_used in enumerate(swapped) if not is_used)


_NASNET_A = Architecture(
    {
        **_cell(
            "normal",
            (
                "separable_5x5_2",
                "separable_3x3_2",
                "separable_5x5_2",
                "separable_3x3_2",
                "avg_pool_3x3",
                "none",
                "avg_pool_3x3",
                "avg_pool_3x3",
                "separable_3x3_2",
                "none",
            ),
            (0, 1, 1, 1, 0, 1, 1, 1, 0, 0),
        ),
        **_cell(
            "reduction",
            (
                "separable_5x5_2",
                "separable_7x7_2",
                "max_pool_3x3",
                "separable_7x7_2",
                "avg_pool_3x3",
                "separable_5x5_2",
                "none",
                "avg_pool_3x3",
                "separable_3x3_2",
                "max_pool_3x3",
            ),
            (0, 1, 0, 1, 0, 1, 3, 2, 2, 0),
        ),
    }
)
_NASNET_A_OUTPUT = {
    "normal_output": _output((1, 0, 0, 0, 0, 0, 0)),
    "reduction_output": _output((1, 1, 1, 0, 0, 0, 0)),
}

_AMOEBANET_A = Architecture(
    {
        **_cell(
            "normal",
            (
                "avg_pool_3x3",
                "max_pool_3x3",
                "separable_3x3_2",
                "none",
                "none",
                "avg_pool_3x3",
                "separable_3x3_2",
                "separable_5x5_2",
                "avg_pool_3x3",
                "separable_3x3_2",
            ),
            (0, 0, 1, 1, 0, 1, 0, 2, 5, 0),
        ),
        **_cell(
            "reduction",
            (
                "separable_3x3_2",
                "avg_pool_3x3",
                "max_pool_3x3",
                "separable_7x7_2",
                "max_pool_3x3",
                "max_pool_3x3",
                "separable_3x3_2",
                "1x7_7x1",
                "avg_pool_3x3",
                "separable_7x7_2",
            ),
            (1, 0, 0, 2, 1, 0, 4, 0, 1, 0),
        ),
    }
)
_AMOEBANET_A_OUTPUT = {
    "normal_output": _output((1, 0, 1, 0, 0, 1, 0)),
    "reduction_output": _output((1, 1, 0, 0, 0, 0, 0)),
}

_NASNET_CODE = "tensorflow/models, research/slim/nets/nasnet"

PUBLISHED: Mapping[str, Published] = {
    "nasnet_a_cifar": Published(
        architecture=_NASNET_A,
        settings={
            "repeats": 6,
            "channels": 32,
            "stem_channels": 96,
            "auxiliary": True,
            "drop_path": 0.4,
            **_NASNET_A_OUTPUT,
        },
        input_shape=(3, 32, 32),
        classes=10,
        source=f"Zoph et al. 2018, table 1 (6 @ 768); {_NASNET_CODE} (cifar_config)",
        params=Stated(3.3e6, 0.05e6),
    ),
    "nasnet_a_mobile": Published(
        architecture=_NASNET_A,
        settings={
            "repeats": 4,
            "channels": 44,
            "stem": "imagenet",
            "stem_channels": 32,
            "dropout": 0.5,
            "auxiliary": True,
            **_NASNET_A_OUTPUT,
        },
        input_shape=(3, 224, 224),
        classes=1000,
        source=f"Zoph et al. 2018, table 3 (4 @ 1056); {_NASNET_CODE} (mobile_imagenet_config)",
        params=Stated(5.3e6, 0.05e6),
        macs=Stated(564e6, 0.5e6),
    ),
    "nasnet_a_large": Published(
        architecture=_NASNET_A,
        settings={
            "repeats": 6,
            "channels": 168,
            "stem": "imagenet",
            "stem_channels": 96,
            "dropout": 0.5,
            "auxiliary": True,
            "drop_path": 0.3,
            "skips_reduction_input": True,
            **_NASNET_A_OUTPUT,
        },
        input_shape=(3, 331, 331),
        classes=1000,
        source=f"Zoph et al. 2018, table 2 (6 @ 4032); {_NASNET_CODE} (large_imagenet_config)",
        params=Stated(88.9e6, 0.05e6),
        macs=Stated(23.8e9, 0.05e9),
        difference="the paper counts the running statistics of the batch norms too: with them this "
        "network has 88,949,818 values, as the public code's has",
    ),
    "amoebanet_a_cifar": Published(
        architecture=_AMOEBANET_A,
        settings={
            "repeats": 6,
            "channels": 36,
            "stem_channels": 108,
            "auxiliary": True,
            **_AMOEBANET_A_OUTPUT,
        },
        input_shape=(3, 32, 32),
        classes=10,
        source="Real et al. 2019, table 1 (N = 6, F = 36); tensorflow/tpu, amoeba_net/model_specs",
        params=Stated(3.2e6, 0.05e6),
    ),
}
