"""What a configuration means, without running anything."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from hwnas.graph.counts import macs, params
from hwnas.study.config import RunConfig
from hwnas.study.context import Context

_SAMPLES = 20
#: Multiply-accumulates a second that training reaches on one core of an ordinary CPU, forward and
#: backward, small networks: between 5e9 and 5e10. Only the order of magnitude is meant.
_MACS_PER_SECOND = 1.5e10
#: Images of which the training images are a part, in the data sets that ship or are published.
_PUBLISHED = {"digits": 1_797, "cifar10": 50_000}
#: Backward costs about twice as much as forward.
_FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Check:
    """What a configuration means.

    Attributes:
        input_shape: (C, H, W) of the images.
        classes: Number of classes.
        size: Number of architectures, counted as sequences of answers.
        macs: Least, median and most multiply-accumulates of a few random networks, as they are
            trained and exported in the end.
        params: Likewise, parameters.
        train_images: Images that are trained on, where that is known without reading them.
        estimated_s: Rough time of the search in seconds, within a factor of three; None where the
            number of images is not known.
        table: Where latencies will come from.
        warnings: What is allowed but perhaps not meant.
    """

    input_shape: tuple[int, ...]
    classes: int
    size: int
    macs: tuple[int, int, int]
    params: tuple[int, int, int]
    train_images: int | None
    estimated_s: float | None
    table: str
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return label and text of each fact, for people."""
        shape = "×".join(str(each) for each in self.input_shape)
        rows = [
            ("input", f"{shape}, {self.classes} classes"),
            ("space", f"{_count(self.size)} architectures"),
            ("networks", f"{_range(self.macs)} MACs, {_range(self.params)} parameters"),
            ("latency", self.table),
        ]
        if self.estimated_s is not None:
            rows.append(("time", f"about {_duration(self.estimated_s)} for the search, roughly"))
        rows += [("warning", each) for each in self.warnings]
        return rows


def check(config: RunConfig) -> Check:
    """Find out what a configuration means; reads no images, trains and measures nothing.

    Raises:
        UserInputError: Data set and space do not fit together, or the data is missing.
    """
    from hwnas.study.tables import where_from

    context = Context(config)
    space = context.space
    rng = random.Random(0)
    architectures = [space.sample(rng) for _ in range(_SAMPLES)]
    searched = [macs(space.graph(each)) for each in architectures]
    graphs = [context.deployed.graph(each) for each in architectures]
    sizes = sorted(macs(graph) for graph in graphs)
    weights = sorted(params(graph) for graph in graphs)
    images = _train_images(config)
    return Check(
        input_shape=context.dataset.input_shape,
        classes=context.dataset.classes,
        size=space.size() if space.given is None else 1,
        macs=(sizes[0], int(statistics.median(sizes)), sizes[-1]),
        params=(weights[0], int(statistics.median(weights)), weights[-1]),
        train_images=images,
        estimated_s=None
        if images is None or space.given is not None
        else _estimate(config, images, statistics.mean(searched)),
        table="plays no part" if config.latency.skip else where_from(config.latency.table),
        warnings=_warnings(config),
    )


def _train_images(config: RunConfig) -> int | None:
    """Return the number of training images where it is known without reading them."""
    settings = config.data.settings
    given = getattr(settings, "train_images", None)
    if given is not None:
        return int(given)
    published = _PUBLISHED.get(config.data.name)
    if published is None:
        return None
    held_back = getattr(settings, "valid_fraction", 0.0) + getattr(settings, "test_fraction", 0.0)
    return int(published * (1 - held_back)) - int(getattr(settings, "valid_images", 0))


def _estimate(config: RunConfig, images: int, mean_macs: float) -> float:
    search = config.search
    if search.loop == "trials":
        epochs = getattr(config.estimator.settings, "epochs", 0)
        seen = float(search.trials * epochs * images)
    else:
        seen = float(search.epochs * images * search.children_per_step)
        scored = search.controller_steps * search.controller_samples * search.valid_batch_size
        seen += max(0, search.epochs - search.teach_from) * scored / _FORWARD_AND_BACKWARD
    seconds = seen * mean_macs * _FORWARD_AND_BACKWARD / _MACS_PER_SECOND
    return seconds if search.time_budget_s is None else min(seconds, search.time_budget_s)


def _warnings(config: RunConfig) -> list[str]:
    if config.architecture is not None:
        return ["strategy and search are ignored: the configuration gives the architecture"]
    found = []
    objective = config.objective
    has_budget = objective.max_latency_ms is not None or objective.latency_percentile is not None
    if not has_budget and not config.latency.skip:
        found.append("no latency budget: the search looks for accuracy alone (--max-latency-ms)")
    if objective.max_latency_ms is not None and objective.latency_percentile is not None:
        found.append("objective.latency_percentile is ignored: max_latency_ms is given")
    if config.search.loop == "one_shot" and config.estimator.name != "from_scratch":
        found.append("estimator is ignored: the loop one_shot scores with its shared weights")
    if config.search.loop == "one_shot" and config.executor.name != "serial":
        found.append("executor is ignored: the loop one_shot runs in one process")
    return found


def _count(value: int) -> str:
    return f"{value:,}" if value < 10**9 else f"{value:.2e}"


def _range(values: tuple[int, int, int]) -> str:
    return " / ".join(_short(each) for each in values)


def _short(value: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
