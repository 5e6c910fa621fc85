"""What cannot be converted is refused, all at once, with its lines."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hwnas.errors import UserInputError
from hwnas.spaces.torch_modules.convert import convert, weights_of

IMAGE = (4, 8, 8)


class Does(nn.Module):
    """A module whose forward is the given function."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def _changed_under_a_view(x):
    rows = x.flatten(2)
    x.relu_()
    return rows.sum(2)


def _view_changed(x):
    return x.flatten(1).relu_().mean(1, True) + x.mean((2, 3))


def _refused(module, shape=IMAGE):
    with pytest.raises(UserInputError) as caught:
        convert(module, shape)
    return str(caught.value)


def test_all_calls_that_cannot_be_converted_are_listed_with_their_lines():
    module = Does(lambda m, x: torch.fft.rfft(m.up(m.a(x))).abs() + torch.erfinv(x))
    module.a, module.up = (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Bilinear(1, 1, 1),
    )
    module.function = lambda m, x: m.a(x) + torch.erfinv(x) + torch.cumsum(x, 1) + torch.logit(x)
    message = _refused(module)
    assert "4 calls cannot be converted" in message
    for part in (
        "padding_mode='reflect'",
        "erfinv",
        "cumsum",
        "logit",
        "test_torch_modules_refused.py:",
    ):
        assert part in message, message


def test_calls_behind_one_that_cannot_be_converted_are_listed_too():
    module = Does(lambda m, x: torch.logit(m.up(x).amax((2, 3))), up=nn.ConvTranspose2d(4, 2, 2))
    message = _refused(module)
    assert "3 calls cannot be converted" in message
    for part in ("nn.ConvTranspose2d (up)", "amax", "logit"):
        assert part in message, message


def test_the_nearest_known_calls_are_named():
    assert "'nn.LayerNorm'" in _refused(Does(lambda m, x: m.n(x), n=nn.InstanceNorm2d(4)))
    assert "'nn.Conv2d'" in _refused(nn.Conv3d(1, 1, 1), (1, 4, 4, 4))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda m, x: x if x.sum() > 0 else -x, "values of its data"),
        (lambda m, x: x * x.mean().item(), "item"),
        (lambda m, x: x.reshape(-1, 8), "batch"),
        (lambda m, x: x.mean(), "batch"),
        (lambda m, x: x * x.shape[0], "batch"),
        (lambda m, x: x.softmax(0), "batch"),
        (lambda m, x: x @ torch.ones(3, 3), "matmul of N×4×8×8 and 3×3"),
        (lambda m, x: x.to(torch.float64).float(), "type of a tensor"),
        (lambda m, x: m.missing(x), "missing"),
        (lambda m, x: _changed_under_a_view(x * 2), "later under another shape"),
        (lambda m, x: _view_changed(x * 2), "later under another shape"),
        (lambda m, x: x[[0, 1]], "numbers and slices"),
        (lambda m, x: F.max_pool2d(x, 3, ceil_mode=True), "ceil_mode=True"),
        (lambda m, x: m.p(x)[0], "returns no tensor"),
        (lambda m, x: F.pad(x, (1, 1), value=2.0), "only add zeros"),
        (lambda m, x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)), "batch"),
        (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), "mode='bilinear'"),
        (lambda m, x: F.interpolate(x, size=(12, 12)), "from 8×8 to 12×12"),
        (lambda m, x: m.both(x[:, 0])[0], "bidirectional=True"),
        (lambda m, x: m.rnn(x[:, 0])[1][1].relu(), "cell state of an LSTM"),
    ],
)
def test_what_depends_on_data_or_batch_is_refused_with_its_line(function, words):
    parts = {
        "p": nn.MaxPool2d(2, return_indices=True),
        "rnn": nn.LSTM(8, 3, batch_first=True),
        "both": nn.LSTM(8, 3, batch_first=True, bidirectional=True),
    }
    message = _refused(Does(function, **parts))
    assert words in message
    assert "test_torch_modules_refused.py:" in message


def test_weights_of_another_architecture_are_refused():
    graph = convert(nn.Conv2d(4, 6, 3), IMAGE).graph
    with pytest.raises(UserInputError, match="no value for"):
        weights_of(nn.Conv2d(4, 7, 3), graph)
