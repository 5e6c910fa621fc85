"""What every search space promises."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.errors import UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.export.verify import Parity, parity
from hwnas.graph import BATCH, EVAL, TRAIN, Architecture, Decision, Graph
from hwnas.graph.counts import macs, params
from hwnas.graph.ops.input import Input
from hwnas.spaces import SearchSpace
from hwnas.supernet.run import run, run_all
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


def example_input(graph: Graph, batch: int, seed: int = 0) -> torch.Tensor:
    """Return random images, or random tokens below ten, for a graph."""
    generator = torch.Generator().manual_seed(seed)
    op = graph.nodes[0].op
    assert isinstance(op, Input)
    if op.dtype == "int64":
        return torch.randint(0, 10, (batch, *graph.input_shape), generator=generator)
    return torch.randn(batch, *graph.input_shape, generator=generator)


class SpaceSuite:
    """Tests of one space; a subclass gives `make` (usual size) and `make_small` (enumerable).

    It may give `make_exported` too: a space whose children are small enough for two hundred of
    them to be trained, exported and run within half a minute.
    """

    @staticmethod
    def make() -> SearchSpace:
        """Return a space of the usual size; a subclass overrides this."""
        raise NotImplementedError

    @staticmethod
    def make_small() -> SearchSpace:
        """Return a space small enough to enumerate; a subclass overrides this."""
        raise NotImplementedError

    @classmethod
    def make_exported(cls) -> SearchSpace:
        """Return a space with small children; a subclass may override this."""
        return cls.make_small()

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
        logits = run(graph, store, example_input(graph, 2), BATCH)
        assert logits.shape == (2, *graph.nodes[graph.outputs[0]].shape)
        assert logits.shape[-1] == space.classes
        assert torch.isfinite(logits).all()
        assert to_onnx(graph).graph.output[0].name == "logits"

    def test_picks_survive_json(self) -> None:
        """Whatever is answered, the record of it says the same after JSON."""
        space = self.make_exported()
        for seed in range(50):
            architecture = space.sample(random.Random(seed))
            copy = Architecture.from_json(json.loads(json.dumps(architecture.to_json())))
            assert copy == architecture
            decisions = space.decisions_of(copy.replay())
            assert [each.name for each in decisions] == list(architecture)
            for each in decisions:
                assert each.decode(each.encode(copy[each.name])) == copy[each.name]

    def test_the_text_of_an_architecture_says_all_of_it(self) -> None:
        """Where a space has a text form, what `format` prints `parse` reads."""
        space = self.make_exported()
        for seed in range(50):
            architecture = space.sample(random.Random(seed))
            text = space.format(architecture)
            if text is None:
                with pytest.raises(UserInputError, match="no text form"):
                    space.parse("0 0")
                return
            assert space.parse(text) == architecture
        with pytest.raises(UserInputError):
            space.parse("no (architecture) | at all")

    @pytest.mark.slow
    def test_two_hundred_children_train_count_and_export(self) -> None:
        """Each runs forward and backward, counts, and ONNX Runtime agrees within 1e-4."""
        space, rng = self.make_exported(), random.Random(5)
        for number in range(200):
            graph, store = space.graph(space.sample(rng)), WeightStore(number)
            weights = store.trainable(graph)
            run_all(graph, store, example_input(graph, 2), TRAIN)[0].square().mean().backward()
            inference = store.trainable(graph.inference())
            assert all(_is_finite(each.grad) for each in inference.values())
            assert params(graph) == sum(each.numel() for each in inference.values())
            assert macs(graph) > 0
            assert len(weights) >= len(inference)
            assert _parity(graph, store).holds

    def test_an_architecture_of_another_space_is_refused(self) -> None:
        """Missing and surplus answers are errors that name the pick."""
        space = self.make()
        architecture = space.sample(random.Random(4))
        with pytest.raises(UserInputError, match="never asked"):
            space.graph(Architecture({**architecture, "no/such/pick": 1}))
        with pytest.raises(UserInputError, match="no answer"):
            space.graph(Architecture(dict(list(architecture.items())[1:])))


def _is_finite(gradient: torch.Tensor | None) -> bool:
    """Tell whether a weight that the child uses got a usable gradient, or none at all."""
    return gradient is None or bool(torch.isfinite(gradient).all())


@torch.no_grad()
def _parity(graph: Graph, store: WeightStore) -> Parity:
    """Compare ONNX Runtime with PyTorch on two inputs."""
    weights = {name: value.numpy() for name, value in store.state().items()}

    def reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return run(graph, store, torch.from_numpy(x), EVAL).numpy()

    return parity(to_onnx(graph, weights), reference, example_input(graph, 2, seed=1).numpy())
