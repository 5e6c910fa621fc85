"""Scores a child by looking it up in a table."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hwnas.errors import TrialFailed, UserInputError
from hwnas.estimators import ESTIMATORS, Estimator
from hwnas.objectives.metrics import Metrics
from hwnas.registry import PluginConfig

if TYPE_CHECKING:
    from hwnas.benchmarks.table import TableBenchmark
    from hwnas.data import Dataset
    from hwnas.graph.architecture import Architecture
    from hwnas.spaces import SearchSpace


@ESTIMATORS.register("table")
class Table(Estimator):
    """Reads accuracy, latency and training time from the columns of a table; trains nothing.

    The table is a `TableBenchmark`: NAS-Bench-201's cells, EC-NAS's, or your own.
    """

    class Config(PluginConfig):
        """Settings of `table`."""

        path: Path = Field(
            description="Parquet or CSV file; looked for as it is, then in $HWNAS_DATA, ./data and "
            "../shared/data"
        )
        key: Literal["auto", "arch_str", "cell", "architecture", "picks"] = Field(
            "auto", description="how a row names its architecture; see TableBenchmark"
        )
        accuracy: str = Field(description="column of the accuracy")
        accuracy_unit: Literal["share", "percent"] = Field(
            "share", description="share: 0 to 1; percent: 0 to 100"
        )
        latency_ms: str | None = Field(None, description="column of the latency in ms; null: none")
        train_time_s: str | None = Field(
            None, description="column of the training time in s; null: none"
        )
        repeats: Literal["mean", "random"] = Field(
            "mean", description="what several rows of one architecture give"
        )

    config: Config

    def __init__(self, config: Config, *, space: SearchSpace, dataset: Dataset, seed: int) -> None:
        super().__init__(config, space=space, dataset=dataset, seed=seed)
        self._table: TableBenchmark | None = None

    @property
    def table(self) -> TableBenchmark:
        """The table; read when it is first needed, in each process.

        Raises:
            UserInputError: The file or one of the columns is missing or unusable.
        """
        if self._table is None:
            from hwnas.benchmarks.table import TableBenchmark

            table = TableBenchmark.read(
                find_table(self.config.path), self.space, key=self.config.key
            )
            for column in (self.config.accuracy, self.config.latency_ms, self.config.train_time_s):
                if column is not None:
                    table.check_column(column)
            self._table = table
        return self._table

    def evaluate(self, architecture: Architecture, trial_id: int) -> Metrics:
        """Look the architecture up.

        Raises:
            TrialFailed: The table has no row, or no accuracy, for it.
            UserInputError: The table cannot be used.
        """
        from hwnas.estimators._seeds import derive_seed

        c, table = self.config, self.table
        if architecture not in table:
            raise TrialFailed(f"{table.name} has no row for architecture {architecture.id}")
        accuracies = table.values(architecture, c.accuracy)
        rows = [row for row, value in enumerate(accuracies.tolist()) if not math.isnan(value)]
        if not rows:
            raise TrialFailed(f"{table.name} has no {c.accuracy} for {architecture.id}")
        if c.repeats == "random":  # the same row for every column
            rows = [random.Random(derive_seed(self.seed, "trial", trial_id)).choice(rows)]

        def read(column: str | None) -> float | None:
            if column is None:
                return None
            values = table.values(architecture, column)[rows].tolist()
            known = [value for value in values if not math.isnan(value)]
            return math.fsum(known) / len(known) if known else None

        accuracy = math.fsum(accuracies[rows].tolist()) / len(rows)
        if c.accuracy_unit == "percent":
            accuracy /= 100.0
        if not 0.0 <= accuracy <= 1.0:
            raise UserInputError(
                f"{table.name}: {c.accuracy} of {architecture.id} is a share of {accuracy:g}",
                "set estimator.accuracy_unit to percent for a column of 0 to 100",
            )
        return Metrics(
            accuracy=accuracy,
            latency_ms=read(c.latency_ms),
            train_time_s=read(c.train_time_s),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Send the settings; a worker reads the table again."""
        return super().__getstate__() | {"_table": None}


def find_table(path: Path) -> Path:
    """Return where a table is.

    Raises:
        UserInputError: It is in none of the places that are looked in.
    """
    named = os.environ.get("HWNAS_DATA")
    folders = [Path(), *([Path(named)] if named else []), Path("data"), Path("../shared/data")]
    for folder in folders:
        if (folder / path).is_file():
            return folder / path
    raise UserInputError(
        f"there is no table {path}", "give its path, or put its folder into $HWNAS_DATA"
    )
