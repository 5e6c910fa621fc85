"""A small vision transformer, written in plain PyTorch, as a search space of its own.

What is to be searched is marked where it is made: `hwnas.integer`, `hwnas.one_of`, `hwnas.choice`.
Searched with shared weights on handwritten digits; the best one is trained and exported. In a
folder of your choice:

    python examples/vision_transformer.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import hwnas


class Block(nn.Module):
    """Self-attention and a perceptron, each on normalised tokens with a shortcut (pre-norm)."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        heads = hwnas.one_of(f"{name}/heads", [2, 4])
        hidden = width * hwnas.integer(f"{name}/mlp_ratio", 1, 3)
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, tokens, width]."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, and blocks (Dosovitskiy et al. 2021).

    Args:
        max_depth: Most blocks.
        input_shape: (C, H, W) of the images; hwnas passes it on.
        classes: Number of classes; hwnas passes it on.
    """

    def __init__(self, max_depth: int, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, _ = input_shape
        patch = hwnas.one_of("patch", [2, 4])
        width = hwnas.integer("width", 16, 32, step=16)
        depth = hwnas.integer("depth", 1, max_depth)
        tokens = (height // patch) ** 2 + 1
        self.stem = hwnas.choice(
            "stem",
            {
                "patches": lambda: nn.Conv2d(channels, width, patch, stride=patch),
                "conv": lambda: nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width, patch, stride=patch),
                ),
            },
        )
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.ModuleList([Block(f"block{i}", width) for i in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, classes]."""
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def main() -> None:
    """Search, train and export the best."""
    study = hwnas.Study(
        {
            "name": "vision-transformer",
            "data": "digits",
            "space": hwnas.space_of(VisionTransformer, max_depth=3),
            "search": {
                "epochs": 8,
                "batch_size": 64,
                "optimiser": {"first_period": None},
                "controller_steps": 2,
                "controller_samples": 8,
                "derive_samples": 16,
                "derive_batches": 2,
            },
            "train": {"epochs": 20},
            "latency": {"profile_samples": 12, "profile_rounds": 2, "check_samples": 0},
        },
        on_stage=lambda name, summary, seconds: print(f"{name:<8} {summary}  ({seconds:.0f} s)"),
    )
    print(f"about {study.check().size} architectures")
    study.search()
    study.train(["best"])
    for label, text in study.export("best").lines():
        print(f"{label:<10} {text}")


if __name__ == "__main__":
    main()
