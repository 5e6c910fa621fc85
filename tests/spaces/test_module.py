import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import hwnas
from hwnas.errors import HwnasError, UserInputError
from hwnas.graph import EVAL, Architecture
from hwnas.graph.counts import params
from hwnas.spaces.module import ModuleSpace
from hwnas.spaces.torch_modules.convert import load_weights, weights_of
from hwnas.supernet.run import run
from hwnas.supernet.weights import WeightStore
from hwnas.testing.spaces import SpaceSuite

MODELS = Path(__file__).with_name("own_models.py")
EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWERS = {"width": 4, "block": "twice", "act": "gelu", "bias": False}


def space_for(name: str, **settings) -> ModuleSpace:
    config = ModuleSpace.Config(model=f"{MODELS}:{name}", settings=settings)
    return ModuleSpace(config, (1, 8, 8), 10)


class TestModule(SpaceSuite):
    make = staticmethod(lambda: space_for("Small", widths=4))
    make_small = staticmethod(lambda: space_for("Small"))


def vision_transformer(max_depth: int) -> ModuleSpace:
    model = f"{EXAMPLES / 'vision_transformer.py'}:VisionTransformer"
    config = ModuleSpace.Config(model=model, settings={"max_depth": max_depth})
    return ModuleSpace(config, (1, 8, 8), 10)


class TestVisionTransformer(SpaceSuite):
    make = staticmethod(lambda: vision_transformer(3))
    make_small = staticmethod(lambda: vision_transformer(1))


def test_picks_come_up_in_the_order_of_the_code():
    space = space_for("Small")
    assert [each.name for each in space.decisions_of(Architecture(ANSWERS).replay())] == [
        "width", "block", "act", "bias",
    ]  # fmt: skip
    others = space.decisions_of(Architecture({"width": 4, "block": "none", "bias": True}).replay())
    assert [each.name for each in others] == ["width", "block", "bias"]


def test_the_size_of_a_large_conditional_space_is_estimated(monkeypatch):
    monkeypatch.setattr("hwnas.spaces.module._COUNTED", 10)
    exact = 20 * (1 + 2 + 1) * 2  # widths, blocks, biases
    assert 0.9 * exact < space_for("Small", widths=20).size() < 1.1 * exact


def test_two_processes_would_make_the_same_graph():
    architecture = Architecture(ANSWERS)
    assert space_for("Small").graph(architecture) == space_for("Small").graph(architecture)


def test_weights_are_named_after_path_option_and_shape():
    names = set(space_for("Small").graph(Architecture(ANSWERS)).weight_specs())
    assert names == {
        "stem/4x1x3x3/weight", "stem/4x1x3x3/bias",
        "block/twice/0/4x4x1x1/weight", "block/twice/0/4x4x1x1/bias",
        "block/twice/2/4x4x1x1/weight", "block/twice/2/4x4x1x1/bias",
        "head/10x4/weight",
    }  # fmt: skip


def test_the_module_of_an_architecture_can_lend_its_weights():
    space = space_for("Small")
    architecture = Architecture(ANSWERS)
    module, graph = space.module(architecture), space.graph(architecture)
    store = WeightStore(0)
    store.load(weights_of(module, graph))
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(run(graph, store, x, EVAL), module(x), rtol=1e-5, atol=1e-6)
    assert params(graph) == sum(each.numel() for each in module.parameters())


def test_trained_weights_go_back_into_the_module():
    space = space_for("Small")
    architecture = Architecture(ANSWERS)
    module, graph = space.module(architecture), space.graph(architecture)
    store = WeightStore(5).restrict(graph)
    load_weights(module, graph, store.state())
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(run(graph, store, x, EVAL), module(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserInputError, match="lack 'block/twice/0"):
        load_weights(module, graph, {})


def test_making_a_graph_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    space_for("Small").sample(random.Random(0))
    assert torch.equal(torch.rand(2), expected)


def test_hwnas_is_imported_without_torch():
    code = (
        "import sys, hwnas; from hwnas import choice, integer, one_of, space_of; "
        "from hwnas.spaces import SPACES; SPACES.get('module'); "
        "from hwnas.spaces.torch_modules.converting import converters; converters(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_space_of_names_the_class():
    found = hwnas.space_of(SpaceSuite, depth=3)
    assert found["model"].endswith("spaces.py:SpaceSuite")
    assert found["settings"] == {"depth": 3}
    assert ModuleSpace.Config(model=found["model"]).model == found["model"]


def test_a_class_inside_a_function_has_no_space():
    class Local(nn.Module):
        pass

    with pytest.raises(UserInputError, match="not at the top level"):
        hwnas.space_of(Local)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("nowhere.py:Net", {}, "cannot be read"),
        (f"{MODELS}:Smal", {}, "Did you mean 'Small'"),
        (f"{MODELS}:NoModule", {}, "not a torch.nn.Module"),
        (f"{MODELS}:PicksInForward", {}, "outside of a search"),
        (f"{MODELS}:Fails", {}, "own_models.py:44: Fails cannot be made"),
        (f"{MODELS}:WrongOption", {}, "option 'three' gave int"),
        (f"{MODELS}:ReturnsAnImage", {}, "the data has 10 classes"),
        (f"{MODELS}:Small", {"width": 3}, "Did you mean 'widths'"),
    ],
)
def test_models_that_cannot_be_used_are_refused(model, settings, words):
    config = ModuleSpace.Config(model=model, settings=settings)
    with pytest.raises(UserInputError, match=words):
        ModuleSpace(config, (1, 8, 8), 10).realise(lambda decision: decision.decode(0))


def test_a_file_with_a_mistake_is_named_with_its_line(tmp_path):
    file = tmp_path / "model.py"
    file.write_text("import torch\n\nraise ValueError('no')\n")
    with pytest.raises(UserInputError, match=r"model\.py:3: .*ValueError: no"):
        ModuleSpace(ModuleSpace.Config(model=f"{file}:Net"), (1, 8, 8), 10).model  # noqa: B018


@pytest.mark.parametrize("model", ["model.py", "model:Net", "model.py:a.b", ""])
def test_a_model_is_named_by_file_and_class(model):
    with pytest.raises(ValidationError):
        ModuleSpace.Config(model=model)


def test_choices_need_a_search_and_good_options():
    with pytest.raises(UserInputError, match="outside of a search"):
        hwnas.integer("width", 1, 2)
    with hwnas.chosen({"a": "x", "b": 3}):
        with pytest.raises(UserInputError, match="mapping of labels"):
            hwnas.choice("a", [nn.ReLU()])
        with pytest.raises(UserInputError, match="not a number"):
            hwnas.one_of("b", [nn.ReLU])
        assert hwnas.integer("b", 1, 3) == 3
        with pytest.raises(HwnasError, match="twice"):
            hwnas.integer("b", 1, 3)
