from hwnas.graph import GraphBuilder
from hwnas.graph.draw import outline


def test_boxes_are_ops_and_arrows_their_inputs():
    g = GraphBuilder((3, 8, 8))
    x = g.conv_bn(g.input, channels=4, kernel=3, stride=2, weights="stem/conv")
    y = g.sum(x, g.relu(x))
    boxes, arrows = outline(g.finish(g.classifier(y, classes=2, weights="head")))
    assert [box.label for box in boxes] == ["input", "conv_bn 3×3 /2", "relu", "sum", "classifier"]
    assert [box.group for box in boxes] == ["", "stem", "stem", "stem", "head"]
    assert boxes[1].shape == (4, 4, 4)
    assert arrows == [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4)]
