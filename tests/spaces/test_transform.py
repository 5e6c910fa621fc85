import random

from hwnas.spaces.transform import Transform
from hwnas.testing.spaces import SpaceSuite


def small(**settings):
    picks = {"width": 4, "depth": 1, "layer0/op": "sep_conv", "layer0/kernel": 3}
    base = {
        "settings": {"min_depth": 1, "min_width": 4, "width_step": 4, "halve_after": [1]},
        "architecture": picks,
    }
    return Transform(Transform.Config(base=base, **settings), (1, 8, 8), 10)


class TestTransform(SpaceSuite):
    make = staticmethod(lambda: Transform(Transform.Config(), (1, 8, 8), 10))
    make_small = staticmethod(lambda: small(steps=2))

    def test_a_neighbour_differs_in_one_answer_that_both_have(self):
        """What is offered depends on earlier steps: other answers change if they must."""
        space, rng = self.make(), random.Random(1)
        for _ in range(20):
            parent = space.sample(rng)
            child = space.neighbour(parent, rng)
            decisions = {each.name: each for each in space.decisions_of(child.replay())}
            changed = [
                name
                for name in parent
                if name in child
                and parent[name] != child[name]
                and parent[name] in decisions[name].options
            ]
            assert len(changed) == 1
