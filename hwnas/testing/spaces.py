"""What every search space promises."""

from __future__ import annotations

import json
import random

import pytest
import torch

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.graph import BATCH, Architecture, Decision
from hwnas.spaces import SearchSpace
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore


def enumerate_space(space: SearchSpace) -> list[Architecture]:
    """Return every architecture of a (small) space, conditional decisions included."""
    found: list[Architecture] = []
    pending: list[list[int]] = [[]]
    while pending:
        prefix = pending.pop()
        seen: list[Decision] = []

        def answer(decision: Decision) -> object:
            seen.append(decision)  # noqa: B023
            position = len(seen) - 1  # noqa: B023
            return decision.decode(prefix[position] if position < len(prefix) else 0)  # noqa: B023

        architecture, _ = space.realise(answer)  # type: ignore[arg-type]
        found.append(architecture)
        for position in range(len(prefix), len(seen)):
            zeros = [0] * (position - len(prefix))
            pending += [[*prefix, *zeros, i] for i in range(1, seen[position].count)]
    return found


class SpaceSuite:
    """Tests of one space; a subclass gives `make` (usual size) and `make_small` (enumerable)."""

    @staticmethod
    def make() -> SearchSpace:
        """Return a space of the usual size; a subclass overrides this."""
        raise NotImplementedError

    @staticmethod
    def make_small() -> SearchSpace:
        """Return a space small enough to enumerate; a subclass overrides this."""
        raise NotImplementedError

    def test_size_is_the_number_of_architectures(self) -> None:
        """The formula agrees with an enumeration."""
        space = self.make_small()
        everything = enumerate_space(space)
        assert len(set(everything)) == len(everything) == space.size()

    def test_a_recorded_architecture_builds_the_same_graph(self) -> None:
        """Replaying an architecture that went through JSON gives an equal graph."""
        space, rng = self.make(), random.Random(0)
        for _ in range(5):
            architecture, graph = space.realise(
                lambda decision: decision.decode(rng.randrange(decision.count))
            )
            copy = Architecture.from_json(json.loads(json.dumps(architecture.to_json())))
            assert copy == architecture
            assert copy.id == architecture.id
            assert space.graph(copy) == graph

    def test_a_neighbour_differs_in_one_answer_that_both_have(self) -> None:
        """A mutation changes one decision, and what depends on it."""
        space, rng = self.make(), random.Random(1)
        for _ in range(20):
            parent = space.sample(rng)
            child = space.neighbour(parent, rng)
            common = [name for name in parent if name in child]
            assert sum(parent[name] != child[name] for name in common) == 1

    def test_children_agree_on_the_shapes_of_shared_weights(self) -> None:
        """Fifty children fit into one store, and some of their weights are shared."""
        space, rng, store = self.make(), random.Random(2), WeightStore(0)
        created = 0
        for _ in range(50):
            trainable = store.trainable(space.graph(space.sample(rng)))
            created += len(trainable)
        assert len(store.state()) < created

    def test_children_run_and_can_be_written(self) -> None:
        """A sampled child returns finite logits and exports."""
        space, store = self.make(), WeightStore(0)
        graph = space.graph(space.sample(random.Random(3)))
        logits = run(graph, store, torch.randn(2, *space.input_shape), BATCH)
        assert logits.shape == (2, space.classes)
        assert torch.isfinite(logits).all()
        assert to_onnx(graph).graph.output[0].name == "logits"

    def test_an_architecture_of_another_space_is_refused(self) -> None:
        """Missing and surplus answers are errors that name the pick."""
        space = self.make()
        architecture = space.sample(random.Random(4))
        with pytest.raises(UserInputError, match="never asked"):
            space.graph(Architecture({**architecture, "no/such/pick": 1}))
        with pytest.raises(UserInputError, match="no answer"):
            space.graph(Architecture(dict(list(architecture.items())[1:])))
