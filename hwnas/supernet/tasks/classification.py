"""Classification: one label for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from hwnas.data import Split
from hwnas.supernet.tasks import TASKS, Batch, Outcome, Task, Window

if TYPE_CHECKING:
    import torch

    from hwnas.data import AnySplit, Dataset
    from hwnas.graph import Graph, RunMode
    from hwnas.supernet.config import OptimiserConfig
    from hwnas.supernet.weights import WeightStore


@TASKS.register("classification")
class Classification(Task):
    """Images with labels; the score is the share of images whose label is right."""

    quality = "accuracy"
    unit = " %"
    better = "more"

    def run(
        self,
        graph: Graph,
        store: WeightStore,
        batch: Batch,
        mode: RunMode,
        config: OptimiserConfig,
        carried: Mapping[str, torch.Tensor],
    ) -> Outcome:
        """Return the cross-entropy; further outputs are auxiliary classifiers' logits."""
        import torch
        from torch.nn.functional import cross_entropy

        from hwnas.supernet.run import run, run_all

        assert not isinstance(batch, Window)
        images, labels = batch
        if torch.is_grad_enabled():
            logits, *auxiliary = run_all(graph, store, images, mode)
        else:
            logits, auxiliary = run(graph, store, images, mode), []
        smoothing = config.label_smoothing
        loss = whole = cross_entropy(logits, labels, label_smoothing=smoothing)
        for each in auxiliary:
            added = cross_entropy(each, labels, label_smoothing=smoothing)
            whole = whole + config.auxiliary_weight * added
        correct = int((logits.argmax(1) == labels).sum())
        return Outcome(whole, loss.item(), correct, len(labels))

    def score(self, total: float, count: int) -> float:
        """Return the share of right answers."""
        return total / count

    def drawn(self, score: float) -> float:
        """Return the accuracy in per cent."""
        return 100 * score

    def text(self, score: float, decimals: int = 1) -> str:
        """Return the accuracy in per cent."""
        return f"{100 * score:.{decimals}f}{self.unit}"

    def steps(self, dataset: Dataset, size: int) -> int:
        """Return the number of full batches."""
        return len(dataset.train) // size

    def epoch(self, dataset: Dataset, size: int, seed: int) -> Iterator[Batch]:
        """Yield full batches, shuffled and augmented."""
        from hwnas.data import batches

        return batches(
            _images(dataset.train),
            size,
            seed=seed,
            normalise=dataset.normalisation,
            augment=dataset.augment,
            shuffle=True,
            drop_last=True,
        )

    def plain(self, dataset: Dataset, size: int, seed: int, count: int) -> list[Batch]:
        """Return batches without augmentation."""
        from hwnas.data import batches

        found = batches(
            _images(dataset.train),
            size,
            seed=seed,
            normalise=dataset.normalisation,
            shuffle=True,
            drop_last=False,
        )
        return list(islice(found, count))

    def valid_steps(self, dataset: Dataset, size: int) -> int:
        """Return the number of full batches: a short one has poor statistics for batch norm."""
        return len(dataset.valid) // min(size, len(dataset.valid))

    def valid(self, dataset: Dataset, size: int, seed: int, number: int) -> Batch:
        """Return a batch of images, shuffled once: stored data is often sorted by class."""
        from hwnas.data import batches

        return next(
            batches(
                _images(dataset.valid),
                min(size, len(dataset.valid)),
                seed=seed,
                normalise=dataset.normalisation,
                shuffle=True,
                drop_last=True,
                start=number,
            )
        )

    def whole(self, dataset: Dataset, split: AnySplit, size: int) -> Iterator[Batch]:
        """Yield all images as they are stored."""
        from hwnas.data import batches

        return batches(
            _images(split),
            size,
            seed=0,
            normalise=dataset.normalisation,
            shuffle=False,
            drop_last=False,
        )

    def inputs(self, dataset: Dataset, count: int) -> torch.Tensor:
        """Return normalised images `[n, C, H, W]`."""
        valid = _images(dataset.valid)
        count = min(count, len(valid))
        first = Split(valid.images[:count], valid.labels[:count])
        images, _ = next(iter(self.whole(dataset, first, count)))[:2]
        return images.contiguous()

    def card(self, dataset: Dataset) -> dict[str, Any]:
        """Return shape and normalisation."""
        mean, std = dataset.normalisation
        return {
            "name": "input",
            "shape": ["N=1", *dataset.input_shape],
            "dtype": "float32",
            "mean": list(mean),
            "std": list(std),
            "scale": "uint8 images: divide by 255 first; then subtract mean, divide by std",
        }


def _images(split: AnySplit) -> Split:
    assert isinstance(split, Split), "classification needs images"
    return split
