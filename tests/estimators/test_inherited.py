"""Children of a trained network: what they start from, and what they need."""

import pickle

import onnx
import pytest

from hwnas.data import DATASETS
from hwnas.errors import UserInputError
from hwnas.estimators import ESTIMATORS
from hwnas.estimators.inherited import Inherited
from hwnas.export.onnx import to_onnx
from hwnas.graph.architecture import Architecture
from hwnas.spaces import SPACES
from hwnas.spaces.transform import Transform

STOP = {"step0/action": "stop"}
WIDER = {
    "step0/action": "scale",
    "step0/layer": "width16/stem",
    "step0/factor": 1.5,
    "step1/action": "insert",
    "step1/layer": "width16/layer1/sep_conv3",
    "step1/kind": "conv3",
    "step2/action": "stop",
}


@pytest.fixture(scope="module")
def dataset():
    return DATASETS.get("digits")(DATASETS.get("digits").Config())


def build(dataset, space="transform", **settings):
    space_class, kind = SPACES.get(space), ESTIMATORS.get("inherited")
    of = space_class(space_class.Config(), dataset.input_shape, dataset.classes)
    return kind(kind.Config(base_epochs=3, **settings), space=of, dataset=dataset, seed=1)


def test_a_grown_child_scores_what_the_base_does_before_it_is_trained(dataset):
    estimator = build(dataset, epochs=0)
    base = estimator.evaluate(Architecture(STOP), 0)
    child = estimator.evaluate(Architecture(WIDER), 1)
    assert base.accuracy > 0.5
    assert child.accuracy == base.accuracy


def test_an_epoch_from_inherited_weights_repeats_exactly_in_another_process(dataset):
    estimator = build(dataset, epochs=1)
    first = estimator.evaluate(Architecture(WIDER), 1)
    again = pickle.loads(pickle.dumps(estimator))
    assert again._trained_base is None
    assert again.evaluate(Architecture(WIDER), 1).accuracy == first.accuracy


def test_weights_of_a_file_are_inherited_as_they_are(dataset, tmp_path):
    first = build(dataset)
    graph, store = first._base()
    model = to_onnx(graph, {name: value.numpy() for name, value in store.state().items()})
    onnx.save(model, tmp_path / "base.onnx")
    base = {"onnx": str(tmp_path / "base.onnx")}
    space = Transform(Transform.Config(base=base), dataset.input_shape, dataset.classes)
    settings = Inherited.Config(base_epochs=0, epochs=0)
    second = Inherited(settings, space=space, dataset=dataset, seed=2)
    found = second.evaluate(Architecture(STOP), 0).accuracy
    plain = Inherited.Config(base_epochs=3, epochs=0)
    own = Inherited(plain, space=first.space, dataset=dataset, seed=1)
    assert found == own.evaluate(Architecture(STOP), 0).accuracy > 0.5


def test_a_space_without_a_base_network_is_refused(dataset):
    with pytest.raises(UserInputError, match="base network"):
        build(dataset, space="conv_chain")
