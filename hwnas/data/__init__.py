"""Data sets: images with labels, or texts, split into train, valid and test in a repeatable way.

One file is one data set. It is built from its configuration alone, `Cls(config)`, and reads nothing
before a split is asked for. The test split is not for the search: hand the search
`dataset.without_test()`, whose `.test` raises.

`batches` turns a split into normalised tensors; it is loaded on first use, because listing and
validating data sets must not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.data._augment import Augment, AugmentConfig
from hwnas.data._dataset import AnySplit, Dataset, Split
from hwnas.data._text import TextDataset, TextSplit
from hwnas.registry import Registry

if TYPE_CHECKING:
    from hwnas.data._batches import batches

__all__ = [
    "DATASETS",
    "AnySplit",
    "Augment",
    "AugmentConfig",
    "Dataset",
    "Split",
    "TextDataset",
    "TextSplit",
    "batches",
]

DATASETS: Registry[Dataset] = Registry("dataset", "hwnas.data")


def __getattr__(name: str) -> object:
    """Load `batches`, and with it torch, on first use."""
    if name == "batches":
        from hwnas.data._batches import batches

        return batches
    raise AttributeError(f"module 'hwnas.data' has no attribute {name!r}")
