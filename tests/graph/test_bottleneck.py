"""What the ops of mobile networks promise beside `OpSuite` (test_ops.py)."""

import numpy as np
import pytest
import torch

from hwnas.errors import ShapeError
from hwnas.export.onnx import to_onnx
from hwnas.export.verify import parity
from hwnas.graph import EVAL, OPS, GraphBuilder
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore

IMAGE = (4, 6, 6)


@pytest.mark.parametrize("shape", [(4,), (4, 1, 1)])
def test_an_image_is_multiplied_by_a_factor_for_each_channel(shape):
    op = OPS.get("multiply")()
    assert op.shape([IMAGE, shape]) == IMAGE
    x, factor = torch.randn(2, *IMAGE), torch.randn(2, *shape)
    got = op.forward([x, factor], {}, EVAL)
    for image in range(2):
        for channel in range(4):
            expected = x[image, channel] * factor[image, channel]
            assert torch.equal(got[image, channel], expected)


def test_factors_of_one_pixel_are_written_as_onnx():
    g = GraphBuilder(IMAGE)
    means = g.avg_pool(g.input, kernel=6, padding="valid")
    graph = g.finish(g.multiply(g.input, means))
    assert graph.nodes[means.index].shape == (4, 1, 1)
    images = np.random.default_rng(0).normal(size=(3, *IMAGE)).astype(np.float32)

    def reference(x):
        return run(graph, WeightStore(0), torch.from_numpy(x), EVAL).numpy()

    assert parity(to_onnx(graph), reference, images).holds


@pytest.mark.parametrize(
    "shapes", [[IMAGE], [IMAGE, (5,)], [IMAGE, (5, 1, 1)], [(4,), IMAGE], [(4,), (4, 1, 1)]]
)
def test_multiply_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match="multiply expects"):
        OPS.get("multiply")().shape(shapes)


def test_the_squeeze_of_a_bottleneck_is_a_share_of_its_input_not_of_the_expansion():
    g = GraphBuilder((8, 4, 4))
    block = g.inverted_bottleneck(g.input, channels=8, expansion=3, squeeze=0.25, weights="block")
    specs = g.finish(block).weight_specs()
    assert specs["block/squeeze/reduce/weight"].shape == (2, 24)
    assert specs["block/depthwise/conv/weight"].shape == (24, 1, 3, 3)


def test_a_bottleneck_without_expansion_has_no_expanding_convolution():
    g = GraphBuilder((8, 4, 4))
    block = g.inverted_bottleneck(g.input, channels=6, expansion=1, weights="block")
    specs = g.finish(block).weight_specs()
    assert not any("expand" in name for name in specs)
    assert specs["block/depthwise/conv/weight"].shape == (8, 1, 3, 3)
