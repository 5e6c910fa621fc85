"""A search space of one's own, registered here, and searched at random by trials.

The registry needs nothing but the decorated class, so a space may live in any file that is imported
before the search. In a folder of your choice:

    python examples/custom_space.py
"""

from __future__ import annotations

from pydantic import Field

from hwnas import Study
from hwnas.graph import Graph, GraphBuilder, Pick, Shape
from hwnas.registry import PluginConfig
from hwnas.spaces import SPACES, SearchSpace


@SPACES.register("skip_tower")
class SkipTower(SearchSpace):
    """A tower of separable convolutions; each layer also sums earlier layers of its choice."""

    class Config(PluginConfig):
        """Settings of `skip_tower`."""

        layers: int = Field(3, ge=1, le=12, description="layers after the stem")
        channels: int = Field(16, ge=1, description="channels of every layer")

    config: Config

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        super().__init__(config, input_shape, classes)

    def build(self, pick: Pick) -> Graph:
        """Build the tower."""
        channels = self.config.channels
        g = GraphBuilder(self.input_shape)
        x = g.conv_bn(g.input, channels=channels, kernel=3, weights="stem")
        layers = [x]
        for i in range(self.config.layers):
            kernel = pick.one_of(f"layer{i}/kernel", (3, 5))
            skips = pick.predecessors(f"layer{i}/skips", i)
            x = g.sep_conv(x, channels=channels, kernel=kernel, weights=f"layer{i}/sep{kernel}")
            for skip in skips:
                x = g.sum(x, layers[skip])
            layers.append(x)
        return g.finish(g.classifier(x, classes=self.classes, relu=True, weights="head"))


def main() -> None:
    """Try six networks of the space, each trained on its own, and print them."""
    study = Study(
        {
            "name": "skip-tower",
            "data": "digits",
            "space": {"name": "skip_tower", "layers": 3},
            "strategy": "random",
            "search": {"loop": "trials", "trials": 6},
            "estimator": {"name": "from_scratch", "epochs": 3},
            "latency": {"profile_samples": 24},
        }
    )
    print(f"{study.check().size} architectures")
    for candidate in study.search().candidates:
        assert candidate.predicted is not None
        answers = ", ".join(
            f"{name} {each}" for name, each in candidate.architecture.answers.items()
        )
        print(f"{candidate.accuracy:6.1%}  {candidate.predicted.ms:.4f} ms  {answers}")


if __name__ == "__main__":
    main()
