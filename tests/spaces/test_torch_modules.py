"""A converted module computes what the module computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hwnas.graph import EVAL, TRAIN, Graph
from hwnas.graph.counts import macs, params
from hwnas.spaces.torch_modules import converting
from hwnas.spaces.torch_modules.convert import convert, load_weights, weights_of
from hwnas.supernet.run import run, run_all
from hwnas.supernet.weights import WeightStore
from hwnas.testing.modules import assert_converts, converted, shaken

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


def check(module: nn.Module) -> Graph:
    return assert_converts(module, IMAGE)


MODULES = {
    "conv": nn.Conv2d(4, 6, 3, padding=1),
    "conv_groups": nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False),
    "conv_valid": nn.Conv2d(4, 6, (1, 3)),
    "conv_rectangular": nn.Conv2d(4, 6, (1, 7), stride=(2, 1), padding=(0, 3)),
    "conv_dilated": nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "conv_same_even": nn.Conv2d(4, 6, 4, padding="same"),
    "conv_odd_padding": nn.Conv2d(4, 6, 3, padding=2),
    "conv_patches": nn.Conv2d(4, 6, 4, stride=4),
    "conv_padding_valid": nn.Conv2d(4, 6, 3, padding="valid"),
    "conv_of_sequences": nn.Sequential(
        nn.Flatten(2), nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), nn.GELU()
    ),
    "conv_of_sequences_same": nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 6, 4, padding="same")),
    "batch_norm": nn.BatchNorm2d(4, eps=1e-3),
    "batch_norm_of_vectors": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256)),
    "batch_norm_of_sequences": nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(4)),
    "group_norm": nn.GroupNorm(2, 4, eps=1e-4),
    "group_norm_not_affine": nn.GroupNorm(4, 4, affine=False),
    "group_norm_of_vectors": nn.Sequential(nn.Flatten(), nn.GroupNorm(4, 256)),
    "unflatten": nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 128))),
    "zero_pad": nn.ZeroPad2d((1, 0, 2, 3)),
    "upsample": nn.Upsample(scale_factor=2),
    "upsample_to": nn.Upsample(size=(16, 24)),
    "adaptive_max": nn.AdaptiveMaxPool2d(2),
    "max_pool_ceil": nn.MaxPool2d(2, ceil_mode=True),
    "layer_norm": nn.LayerNorm([8], eps=1e-6),
    "layer_norm_image": nn.LayerNorm(IMAGE, elementwise_affine=False),
    "linear": nn.Linear(8, 3),
    "linear_no_bias": nn.Linear(8, 3, bias=False),
    **{
        type(each).__name__: each
        for each in (
            nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(),
            nn.Sigmoid(), nn.Tanh(), nn.Dropout(0.3), nn.Identity(), nn.Softmax(dim=1),
            nn.LeakyReLU(0.2), nn.ELU(0.7),
        )
    },
    "max_pool": nn.MaxPool2d(3, stride=2, padding=1),
    "max_pool_valid": nn.MaxPool2d(2),
    "avg_pool": nn.AvgPool2d(3, stride=1, padding=1),
    "avg_pool_uncounted": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "avg_pool_valid": nn.AvgPool2d(2),
    "adaptive": nn.AdaptiveAvgPool2d(1),
    "adaptive_windows": nn.AdaptiveAvgPool2d((4, 4)),
    "flatten": nn.Flatten(),
    "sequential": nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True), nn.Flatten(2)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_a_module_of_torch_is_converted(module):
    check(module)


def _doubled_in_place(x):
    before = x
    x += x.sigmoid()
    return before.flatten(1).tanh_() - 1


def _aliased(x):
    return x.relu_() + x


def _changed_behind_a_view(x):
    sums = x.view(-1, 4, 64).sum(2)
    return sums + x.relu_().sum((2, 3))


FUNCTIONS = {
    "add": lambda m, x: x + x.relu(),
    "add_number": lambda m, x: 1.5 + x - 0.5,
    "subtract": lambda m, x: x - F.relu(x),
    "number_minus": lambda m, x: 1 - x,
    "multiply": lambda m, x: x * x.sigmoid(),
    "scale": lambda m, x: -(2 * x) / 3,
    "in_place": lambda m, x: (x * 2).relu_().add_(1),
    "in_place_alias": lambda m, x: _aliased(x * 2),
    "in_place_behind_a_view": lambda m, x: _changed_behind_a_view(x * 2),
    "in_place_operator": lambda m, x: _doubled_in_place(x * 3),
    "gate": lambda m, x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "cat": lambda m, x: torch.cat([x, F.gelu(x)], dim=1),
    "cat_rows": lambda m, x: torch.cat((x, x), dim=-1),
    "stack": lambda m, x: torch.stack([x, -x], dim=2),
    "mean": lambda m, x: x.mean(dim=(2, 3)),
    "mean_rows": lambda m, x: torch.mean(x, -1, keepdim=True),
    "sum": lambda m, x: x.sum(dim=1),
    "reshape": lambda m, x: x.reshape(x.shape[0], 2, -1, 8),
    "view": lambda m, x: x.view(x.size(0), -1),
    "flatten": lambda m, x: torch.flatten(x, 1),
    "flatten_part": lambda m, x: x.flatten(2).transpose(1, 2),
    "permute": lambda m, x: x.permute(0, 2, 3, 1),
    "batch_in_the_middle": lambda m, x: x.permute(2, 0, 1, 3)[3:5].sum(0),
    "unsqueeze": lambda m, x: x.unsqueeze(1).squeeze(1).unsqueeze(-1),
    "softmax": lambda m, x: F.softmax(x, dim=-1),
    "matmul": lambda m, x: x @ x.transpose(-2, -1),
    "attention": lambda m, x: F.scaled_dot_product_attention(x, x + 1, x * 2),
    "attention_scaled": lambda m, x: F.scaled_dot_product_attention(x, x, x, scale=0.2),
    "index": lambda m, x: x[:, 1],
    "index_rest": lambda m, x: x[..., 1:7:2],
    "index_new": lambda m, x: x[:, None, -1, 2:],
    "chunk": lambda m, x: torch.cat(x.chunk(2, dim=1)[::-1], dim=1),
    "split": lambda m, x: x.split([1, 3], dim=1)[1],
    "unbind": lambda m, x: x.unbind(2)[3],
    "select": lambda m, x: x.select(1, 2).narrow(1, 1, 3),
    "unpack": lambda m, x: sum(part for part in x.split(2, dim=1)),
    "leaky_relu": lambda m, x: F.leaky_relu(x, negative_slope=0.3) + F.elu(x, 0.5) - F.elu(x),
    "pad": lambda m, x: F.pad(x, (1, 2)) + F.pad(x, [0, 3, 0, 0], value=0.0),
    "interpolate": lambda m, x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode="nearest"),
    "interpolate_to": lambda m, x: x + F.interpolate(F.adaptive_max_pool2d(x, 2), x.shape[2:]),
    "pools": lambda m, x: F.max_pool2d(x, 2) + F.avg_pool2d(x, kernel_size=2, stride=2),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "shape_arithmetic": lambda m, x: x.reshape(x.shape[0], x.shape[1] // 2, 2, -1).mean(2),
    "shape_condition": lambda m, x: F.relu(x) if x.shape[2] > 4 else x,
    "types": lambda m, x: x.float().contiguous().to(torch.float32).to("cpu").clone(),
    "dropout": lambda m, x: F.dropout(x, 0.4, training=m.training),
    "repeat": lambda m, x: x[:, :1].repeat(1, 4, 1, 1) + x[:, :1].expand(-1, 4, -1, -1),
}  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_of_torch_is_converted(function):
    check(Does(function))


PARAMETERS = {
    "position": (lambda m, x: x + m.p, (1, 4, 8, 8)),
    "channel_scale": (lambda m, x: m.p * x, (4, 1, 1)),
    "last_axis": (lambda m, x: x * m.p, (8,)),
    "scalar": (lambda m, x: x * m.p, ()),
    "class_token": (
        lambda m, x: torch.cat([m.p.expand(x.shape[0], -1, -1), x.flatten(2)], dim=1),
        (1, 1, 64),
    ),
    "cut": (lambda m, x: x + m.p[:, 1:5], (1, 7, 8, 8)),
    "batch_first_axis": (lambda m, x: x.transpose(0, 1) + m.p, (4, 1, 8, 8)),
    "products": (lambda m, x: x @ m.p, (8, 3)),
}


@pytest.mark.parametrize(("function", "size"), PARAMETERS.values(), ids=PARAMETERS)
def test_learned_tensors_are_converted(function, size):
    if function is PARAMETERS["batch_first_axis"][0]:
        inner = function
        function = lambda m, x: inner(m, x).transpose(0, 1)  # noqa: E731
    check(Does(function, p=nn.Parameter(torch.randn(size))))


def test_a_buffer_is_a_constant():
    module = Does(lambda m, x: x + m.code)
    module.register_buffer("code", torch.arange(8.0) / 3)
    graph = check(module)
    assert params(graph) == 0


class Residual(nn.Module):
    def __init__(self, channels, stride=1, grow=1):
        super().__init__()
        out = channels * grow
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = None
        if stride > 1 or grow > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class MBConv(nn.Module):
    def __init__(self, channels, expansion=3):
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.SiLU(),
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 3, 1), nn.SiLU(), nn.Conv2d(3, wide, 1)
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        return x + self.project(y * torch.sigmoid(self.squeeze(y)))


class Attention(nn.Module):
    """As written in many vision transformers: the batch is the second axis of q, k, v."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv
        weights = ((q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, width, heads, own):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.own = own
        self.attention = (
            Attention(width, heads)
            if own
            else nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        y = self.norm1(x)
        y = self.attention(y) if self.own else self.attention(y, y, y, need_weights=False)[0]
        x = x + y
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, own, width=12, heads=3):
        super().__init__()
        self.patches = nn.Conv2d(4, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 5, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width, heads, own) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


NETWORKS = {
    "residuals": nn.Sequential(
        Residual(4), Residual(4, stride=2, grow=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    ),
    "mbconv": nn.Sequential(MBConv(4), MBConv(4, 2)),
    "vit_own_attention": Transformer(own=True),
    "vit_multihead": Transformer(own=False),
    "attention_time_first": Does(
        lambda m, x: m.a(*[x.flatten(2).permute(2, 0, 1)] * 3)[0].transpose(0, 1),
        a=nn.MultiheadAttention(4, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("module", NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_converted(module):
    assert macs(check(module)) > 0


def test_training_updates_running_statistics_as_the_module_does():
    module = shaken(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))).train()
    graph, store = converted(module, IMAGE)
    x = torch.randn(5, *IMAGE)
    torch.testing.assert_close(run(graph, store, x, TRAIN), module(x), rtol=1e-4, atol=1e-5)
    names = weights_of(module, graph)
    for name, value in names.items():
        torch.testing.assert_close(store[name].detach(), value, rtol=1e-4, atol=1e-5)


class LayerNorm2d(nn.LayerNorm):
    """As ConvNeXt has it."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Wide(nn.Conv2d):
    """Inherits what it computes."""


@pytest.mark.parametrize("module", [LayerNorm2d(4, eps=1e-6), Wide(4, 6, 3)])
def test_a_class_that_inherits_from_a_module_is_converted(module):
    check(module)


def test_tokens_are_embedded():
    module = shaken(Does(lambda m, x: m.head(m.table(x) + m.code), table=nn.Embedding(9, 6)))
    module.head = nn.Linear(6, 9)
    module.register_buffer("code", torch.linspace(0, 1, 6))
    graph, store = converted(module, (5,), "int64")
    x = torch.randint(0, 9, (2, 5))
    torch.testing.assert_close(run(graph, store, x), module(x), rtol=1e-5, atol=1e-5)


class Doubles(nn.Module):
    """Only its own converter knows what this computes."""

    def forward(self, x):
        return torch.logit(x)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformers_of_torch_are_converted(norm_first):
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )
    assert_converts(Does(lambda m, x: m.net(x[:, 0]), net=nn.TransformerEncoder(layer, 2)), IMAGE)


def test_channels_are_dropped_as_a_whole():
    graph, store = converted(nn.Sequential(nn.Dropout2d(0.5)), IMAGE)
    x = torch.ones(32, *IMAGE)
    means = run(graph, store, x, TRAIN).mean((2, 3))
    assert set(means.flatten().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(run(graph, store, x, EVAL), x)


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self, batch_first, **settings):
        super().__init__()
        self.batch_first = batch_first
        self.lstm = nn.LSTM(8, 5, batch_first=batch_first, **settings)

    def forward(self, x):
        x = x[:, 0] if self.batch_first else x[:, 0].transpose(0, 1)
        output, (h, _) = self.lstm(x)
        return output.mean(1 if self.batch_first else 0) + h[-1]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_is_converted(batch_first, layers):
    module = shaken(Rows(batch_first, num_layers=layers, dropout=0.0)).eval()
    graph, store = converted(module, IMAGE)
    x = torch.randn(3, *IMAGE)
    torch.testing.assert_close(run(graph, store, x, EVAL), module(x), rtol=1e-5, atol=1e-5)
    fresh = Rows(batch_first, num_layers=layers)
    load_weights(fresh, graph, store.state())  # one bias becomes two
    torch.testing.assert_close(fresh(x), module(x))


def test_a_converter_may_be_added_for_functions_and_own_modules(monkeypatch):
    monkeypatch.setattr(converting, "_CONVERTERS", dict(converting.converters()))

    @converting.converts("square")
    def square(call):
        x = call.tensor()
        return converting.Traced(call.g.multiply(x.value, x.value), x.batch)

    @converting.converts(Doubles)
    def doubles(call):
        assert isinstance(call.module, Doubles)
        x = call.tensor()
        return converting.Traced(call.g.scale(x.value, factor=2.0), x.batch)

    check(Does(lambda m, x: torch.square(x) + x.square()))
    graph = convert(Doubles(), IMAGE).graph
    x = torch.randn(2, *IMAGE)
    torch.testing.assert_close(run(graph, WeightStore(0), x), 2 * x)


def test_several_outputs_are_auxiliary():
    module = Does(lambda m, x: (m.a(x.flatten(1)), m.b(x.mean((2, 3)))))
    module.a, module.b = nn.Linear(256, 3), nn.Linear(4, 3)
    graph, store = converted(module, IMAGE)
    x = torch.randn(2, *IMAGE)
    for got, expected in zip(run_all(graph, store, x), module(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_forward_may_have_further_arguments_with_defaults():
    class Masked(nn.Module):
        def forward(self, x, mask=None, factor=2.0):
            return x * factor if mask is None else x * mask

    check(Masked())
