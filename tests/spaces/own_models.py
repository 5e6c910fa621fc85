"""Models of a user, for the tests of the space `module`."""

from torch import nn

import hwnas


class Small(nn.Module):
    """Two convolutions of a picked width, and a picked block."""

    def __init__(self, classes, widths=2, step=4):
        super().__init__()
        width = hwnas.integer("width", step, widths * step, step=step)
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.block = hwnas.choice(
            "block",
            {
                "conv3": lambda: nn.Conv2d(width, width, 3, padding=1),
                "twice": lambda: nn.Sequential(
                    nn.Conv2d(width, width, 1),
                    hwnas.one_of("act", {"relu": nn.ReLU, "gelu": nn.GELU})(),
                    nn.Conv2d(width, width, 1),
                ),
                "none": nn.Identity,
            },
        )
        self.bias = hwnas.one_of("bias", [True, False])
        self.head = nn.Linear(width, classes, bias=self.bias)

    def forward(self, x):
        x = self.block(self.stem(x)).relu()
        return self.head(x.mean((2, 3)))


class PicksInForward(nn.Module):
    def forward(self, x):
        return x * hwnas.integer("factor", 1, 3)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        heads = hwnas.integer("heads", 3, 3)
        self.attention = nn.MultiheadAttention(8, heads)


class NoModule:
    pass


def wrong_option():
    return 3


class WrongOption(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = hwnas.choice("part", {"three": wrong_option})


class ReturnsAnImage(nn.Module):
    def forward(self, x):
        return x.relu()
