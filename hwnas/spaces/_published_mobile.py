"""Published networks of the space `mobile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwnas.graph import Architecture
from hwnas.spaces import Published, Stated

_IMAGENET = (3, 224, 224)
_STRIDES = (2, 2, 2, 1, 2, 1)


def _first(channels: int) -> dict[str, Any]:
    """Return the fixed first stage: one separable convolution."""
    fixed = {"kernels": (3,), "expansions": (1,), "squeezes": (0.0,), "zero": False}
    return {"channels": channels, **fixed}


def _table(first: int, rows: Sequence[tuple[int, int]]) -> tuple[dict[str, Any], ...]:
    """Return the stages of (channels, blocks) behind the first one."""
    stages = zip(rows, _STRIDES, strict=True)
    return (
        _first(first),
        *({"channels": c, "blocks": n, "stride": stride} for (c, n), stride in stages),
    )


def _mobilenet_v2() -> Published:
    rows = ((24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))
    picks = {
        f"stage{i}/block{j}/op": "k3_e6"
        for i, (_, blocks) in enumerate(rows, start=1)
        for j in range(blocks)
    }
    return Published(
        Architecture(picks),
        {"stages": _table(16, rows)},
        _IMAGENET,
        1000,
        "Sandler et al. 2018, tables 2 and 4 (3.4 M parameters, 300 M multiply-adds); exact number "
        "of parameters: torchvision's mobilenet_v2",
        params=Stated(3_504_872),
        macs=Stated(300e6, 0.5e6),
        difference="the paper's figures are cut off, not rounded: the network of its table has "
        "300.77 M multiply-adds, and 3.47 M parameters without those of the batch norms",
    )


def _proxyless(
    params: int,
    macs: float,
    dropout: float,
    stem: int,
    channels: Sequence[int],
    features: int,
    ops: Sequence[str],
) -> Published:
    """Return a network from one string a stage, such as ``5/3 3/3 - -`` (kernel/expansion)."""
    picks = {}
    for i, row in enumerate(ops, start=1):
        for j, op in enumerate(row.split()):
            name = "zero" if op == "-" else "k{}_e{}".format(*op.split("/"))
            picks[f"stage{i}/block{j}/op"] = name
    rows = [(c, len(row.split())) for c, row in zip(channels[1:], ops, strict=True)]
    return Published(
        Architecture(picks),
        {
            "stem": stem,
            "stages": _table(channels[0], rows),
            "features": features,
            "dropout": dropout,
        },
        _IMAGENET,
        1000,
        "Cai et al. 2019; multiply-adds: `Total FLOPs` of the authors' logs "
        "(mit-han-lab/proxylessnas, logs/imagenet_*_log.txt); ops and exact number of parameters: "
        "the authors' configuration as read by imgclsmob (chainer_/chainercv2/models); dropout: "
        "search/README.md",
        params=Stated(params),
        macs=Stated(macs, 0.05e6),
    )


def _mnasnet_a1() -> Published:
    rows = ((24, 2), (40, 3), (80, 4), (112, 2), (160, 3), (320, 1))
    ops = ("k3_e6", "k5_e3_se0.25", "k3_e6", "k3_e6_se0.25", "k5_e6_se0.25", "k3_e6")
    return Published(
        Architecture({f"stage{i}/op": op for i, op in enumerate(ops, start=1)}),
        {
            "stages": _table(16, rows),
            "kernels": (3, 5),
            "squeezes": (0.0, 0.25),
            "per": "stage",
            "activation": "relu",
            "dropout": 0.2,
        },
        _IMAGENET,
        1000,
        "Tan et al. 2019, table 1 (3.9 M parameters, 312 M multiply-adds), and `mnasnet_a1` of "
        "tensorflow/tpu (models/official/mnasnet/mnasnet_models.py)",
        params=Stated(3.9e6, 0.05e6),
        macs=Stated(312e6, 0.5e6),
    )


PUBLISHED = {
    "mobilenet_v2": _mobilenet_v2(),
    "proxyless_cpu": _proxyless(
        4_361_648,
        439.2e6,
        0.2,
        40,
        (24, 32, 48, 88, 104, 216, 360),
        1432,
        (
            "3/6 3/3 3/3 3/3",
            "3/6 3/3 3/3 5/3",
            "3/6 - - 3/3",
            "5/6 3/3 3/3 3/3",
            "5/6 5/3 5/3 3/3",
            "5/6",
        ),
    ),
    "proxyless_gpu": _proxyless(
        7_119_848,
        465.3e6,
        0.3,
        40,
        (24, 32, 56, 112, 128, 256, 432),
        1728,
        ("5/3 - - -", "7/3 - - 3/3", "7/6 - - 5/3", "5/6 - 3/3 5/3", "7/6 7/6 7/6 5/6", "7/6"),
    ),
    "proxyless_mobile": _proxyless(
        4_080_512,
        320.4e6,
        0.1,
        32,
        (16, 32, 40, 80, 96, 192, 320),
        1280,
        (
            "5/3 3/3 - -",
            "7/3 3/3 5/3 5/3",
            "7/6 5/3 5/3 5/3",
            "5/6 5/3 5/3 5/3",
            "7/6 7/6 7/3 7/3",
            "7/6",
        ),
    ),
    "mnasnet_a1": _mnasnet_a1(),
}
