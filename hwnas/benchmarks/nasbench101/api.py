"""The interface of `nasbench.api`: the same names, arguments, keys and errors.

Differences, all of them:

- The file is converted once, and then opened in well under a second; `cache` says where to.
- Which repeat a query returns is drawn by a generator of the object, seeded with `seed`. The
  published package seeds and uses Python's global one, so that two objects disturb each other and
  everything else; with the same seed both draw the same repeats.
- A cell with too many vertices is an `OutOfDomainError`, as documented there (some versions of its
  code fail with a TypeError instead).
- A cell that is in the space but not in the file is a KeyError in both; the message says so here.
- `config` has the keys of the published configuration; changing them changes the checks only.
- `evaluate` refuses: it trained with TensorFlow on a TPU. Use the space `nasbench101` with the
  recipe `nasbench101_train`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, KeysView, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from hwnas.benchmarks.nasbench101.config import build_config
from hwnas.benchmarks.nasbench101.model_spec import ModelSpec
from hwnas.benchmarks.nasbench101.records import Records
from hwnas.benchmarks.nasbench101.store import open_store
from hwnas.errors import HwnasError
from hwnas.spaces._nasbench101_cell import INPUT, OUTPUT

__all__ = ["ModelSpec", "NASBench", "OutOfDomainError"]


class OutOfDomainError(Exception):
    """The cell or the number of epochs is outside the benchmark."""


class NASBench:
    """The benchmark: what each cell scored.

    Args:
        dataset_file: The published TFRecord file, with all epochs or with 108 only.
        seed: Seed of the choice between repeats; None for another one each time.
        cache: Folder for the converted form; by default ``<file>.hwnas`` beside the file, or below
            ``~/.cache/hwnas`` where that cannot be written.

    Attributes:
        dataset_file: As given.
        config: The published configuration.
        valid_epochs: Lengths of training that can be asked for.
        training_time_spent: Seconds of training that the queries stand for.
        total_epochs_spent: Epochs of training that the queries stand for.
        fixed_statistics: What does not depend on a training, by hash.
        computed_statistics: What was measured, by hash, epochs and repeat.
        history: Empty, as published.

    Raises:
        UserInputError: The file is missing, damaged or of another kind.
    """

    def __init__(
        self,
        dataset_file: str | PathLike[str],
        seed: int | None = None,
        cache: str | PathLike[str] | None = None,
    ) -> None:
        self.dataset_file = Path(dataset_file)
        self.config = build_config()
        self._random = random.Random(seed)
        contents = open_store(self.dataset_file, None if cache is None else Path(cache))
        self._records = Records(contents)
        self._mark = object()  # stands for this object in a ModelSpec; a copy of it stands for none
        self._places = {epochs: i for i, epochs in enumerate(contents.epochs)}
        self.valid_epochs = set(contents.epochs)
        self.fixed_statistics: Mapping[str, dict[str, Any]] = _Statistics(
            self._records, self._records.fixed
        )
        self.computed_statistics: Mapping[str, dict[int, list[dict[str, float]]]] = _Statistics(
            self._records, self._records.computed
        )
        self.history: dict[str, Any] = {}
        self.training_time_spent = 0.0
        self.total_epochs_spent = 0

    def query(
        self, model_spec: ModelSpec, epochs: int = 108, stop_halfway: bool = False
    ) -> dict[str, Any]:
        """Return one training of a cell, and add its cost to the budget counters.

        Args:
            model_spec: The cell.
            epochs: Length of the training; one of `valid_epochs`.
            stop_halfway: Return what was measured after half of the epochs; costs half of them.

        Returns:
            ``module_adjacency``, ``module_operations``, ``trainable_parameters``,
            ``training_time`` in seconds, ``train_accuracy``, ``validation_accuracy`` and
            ``test_accuracy``.

        Raises:
            OutOfDomainError: The cell or the number of epochs is outside the benchmark.
            KeyError: The cell is not in the file.
        """
        place = self._places.get(epochs)
        if place is None:
            raise OutOfDomainError(f"invalid number of epochs, must be one of {self.valid_epochs}")
        records = self._records
        index = self._index_of(model_spec)
        time, train, valid, test = records.draw(index, place, self._random, halfway=stop_halfway)
        matrix, labels, parameters = records.cell(index)
        self.training_time_spent += time
        self.total_epochs_spent += epochs // 2 if stop_halfway else epochs
        return {
            "module_adjacency": matrix,
            "module_operations": labels,
            "trainable_parameters": parameters,
            "training_time": time,
            "train_accuracy": train,
            "validation_accuracy": valid,
            "test_accuracy": test,
        }

    def is_valid(self, model_spec: ModelSpec) -> bool:
        """Tell whether a cell is within the benchmark's space; costs nothing."""
        try:
            self._check_spec(model_spec)
        except OutOfDomainError:
            return False
        return True

    def get_budget_counters(self) -> tuple[float, int]:
        """Return seconds and epochs of training that the queries stand for."""
        return self.training_time_spent, self.total_epochs_spent

    def reset_budget_counters(self) -> None:
        """Set both counters to zero."""
        self.training_time_spent = 0.0
        self.total_epochs_spent = 0

    def evaluate(self, model_spec: ModelSpec, model_dir: str) -> NoReturn:
        """Refuse: the published method trains with TensorFlow.

        Raises:
            HwnasError: Always; the hint names what trains the cell here.
        """
        raise HwnasError(
            "NASBench.evaluate trained with TensorFlow on a TPU and is not here",
            "hwnas train nasbench101_train, with architecture: the picks that "
            "model_spec.to_architecture() returns",
        )

    def hash_iterator(self) -> KeysView[str]:
        """Return all hashes, in the order of the file."""
        return self.fixed_statistics.keys()

    def get_module_hash(self, model_spec: ModelSpec) -> str:
        """Return the hash of a cell.

        Raises:
            OutOfDomainError: The cell is outside the benchmark's space.
        """
        self._check_spec(model_spec)
        return self._hash_spec(model_spec)

    def get_metrics_from_hash(
        self, module_hash: str
    ) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """Return all that is known of a cell; costs nothing, and is not meant for searching.

        Returns:
            What does not depend on a training; and the metrics of each repeat by epochs.

        Raises:
            KeyError: The cell is not in the file.
        """
        index = self._records.find(module_hash)
        return self._records.fixed(index), self._records.computed(index)

    def get_metrics_from_spec(
        self, model_spec: ModelSpec
    ) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """Return all that is known of a cell, as `get_metrics_from_hash`.

        Raises:
            OutOfDomainError: The cell is outside the benchmark's space.
            KeyError: The cell is not in the file.
        """
        index = self._index_of(model_spec)
        return self._records.fixed(index), self._records.computed(index)

    def _index_of(self, model_spec: ModelSpec) -> int:
        """Return the index of a cell; the checks of `_check_spec` in their quickest form."""
        ops, config = model_spec.ops, self.config
        if (
            ops is None
            or len(ops) > config["module_vertices"]
            or model_spec.edges > config["max_edges"]
            or ops[0] != INPUT
            or ops[-1] != OUTPUT
        ):
            self._check_spec(model_spec)
        try:
            module_hash = model_spec.hash_spec(config["available_ops"])
        except ValueError:
            self._check_spec(model_spec)
            raise
        found, mark = model_spec._found, self._mark
        if found is not None and found[0] is mark and found[1] is module_hash:
            return found[2]
        index = self._records.find(module_hash)
        model_spec._found = (mark, module_hash, index)
        return index

    def _hash_spec(self, model_spec: ModelSpec) -> str:
        return model_spec.hash_spec(self.config["available_ops"])

    def _check_spec(self, model_spec: ModelSpec) -> None:
        """Refuse a cell that is outside the space.

        Raises:
            OutOfDomainError: The message says why.
        """
        ops, config = model_spec.ops, self.config
        if ops is None:
            raise OutOfDomainError("invalid spec, provided graph is disconnected.")
        if len(ops) > config["module_vertices"]:
            raise OutOfDomainError(
                f"too many vertices, got {len(ops)} (max vertices = {config['module_vertices']})"
            )
        if model_spec.edges > config["max_edges"]:
            raise OutOfDomainError(
                f"too many edges, got {model_spec.edges} (max edges = {config['max_edges']})"
            )
        if ops[0] != INPUT:
            raise OutOfDomainError("first operation should be 'input'")
        if ops[-1] != OUTPUT:
            raise OutOfDomainError("last operation should be 'output'")
        available = config["available_ops"]
        if not set(available).issuperset(ops[1:-1]):
            unknown = next(op for op in ops[1:-1] if op not in available)
            raise OutOfDomainError(f"unsupported op {unknown} (available ops = {available})")


class _Statistics(Mapping[str, Any]):
    """A view by hash, for scripts that read the published attributes."""

    def __init__(self, records: Records, get: Callable[[int], Any]) -> None:
        self._records = records
        self._get = get

    def __getitem__(self, module_hash: str) -> Any:
        return self._get(self._records.find(module_hash))

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return self._records.hashes()
