"""Converts a traced module to a graph."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError, UserInputError, nearest
from hwnas.graph import Graph, GraphBuilder, Shape
from hwnas.graph.ops.input import Input
from hwnas.spaces.torch_modules.choices import OPTIONS
from hwnas.spaces.torch_modules.converting import (
    Call,
    Converter,
    Traced,
    Unsupported,
    converters,
    module_converter,
    module_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx, nn

#: Operators that change their first argument; functions and methods that do end with ``_``.
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}
#: Calls whose result shares its values with their input.
_VIEWS = {
    *("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "transpose", "permute"),
    *("swapaxes", "expand", "getitem", "chunk", "split", "unbind", "narrow", "select"),
}
#: A constant larger than this is a mistake rather than a position code.
_MOST_CONSTANTS = 1 << 20


@dataclass(frozen=True)
class Converted:
    """A module as a graph.

    Attributes:
        graph: The graph.
        sources: The graph's weights, and the tensors of the module that have their values.
    """

    graph: Graph
    sources: Mapping[str, str]


def convert(module: nn.Module, input_shape: Shape, dtype: str = "float32") -> Converted:
    """Trace a module and convert it; it is left on the meta device, without its values.

    Args:
        module: What takes `[N, *input_shape]` and returns logits; further outputs are auxiliary.
        input_shape: Shape of an example.
        dtype: ``float32``, or ``int64`` for tokens.

    Raises:
        UserInputError: It cannot be traced, or has calls that no converter knows: all are listed.
    """
    import torch

    from hwnas.spaces.torch_modules.tracer import BATCH, Tracer

    constants = {f"net.{name}": value.clone() for name, value in module.named_buffers()}
    initial = {
        f"net.{name}": _kind_of(value)
        for name, value in module.named_parameters(remove_duplicate=False)
    }
    module.to("meta")
    tracer = Tracer(tuple(input_shape), getattr(torch, dtype))
    traced = tracer.run(module)
    walk = _Walk(GraphBuilder(tuple(input_shape), dtype), tracer.root, BATCH, constants, initial)
    for node in traced.nodes:
        walk.step(node)
    walk.refuse_problems(type(module).__name__)
    return Converted(walk.g.finish(*walk.outputs), walk.sources)


def weights_of(module: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Return a module's values under the names of the graph that it was converted to.

    For a `WeightStore`: a search or a training may start from what was trained before. Running
    statistics of batch norms are among them.

    Args:
        module: Made with the same architecture; it is not changed.
        graph: Its graph.

    Raises:
        UserInputError: The graph is of another model or architecture.
    """
    import torch

    found = {}
    for name, tensors in _tensors_of(module, graph).items():
        value = torch.stack([each.detach() for each in tensors]).sum(0)
        found[name] = value.reshape(graph.weight_specs()[name].shape)
    return found


def load_weights(module: nn.Module, graph: Graph, weights: Mapping[str, Tensor]) -> None:
    """Put weights of a graph into the module that it was converted from.

    Args:
        module: Made with the same architecture; it is changed.
        graph: Its graph.
        weights: Values by the graph's names, such as those of a trained pick.

    Raises:
        UserInputError: The graph or the weights are of another model or architecture.
    """
    import torch

    tensors = _tensors_of(module, graph)
    missing = sorted(set(tensors) - set(weights))
    if missing:
        raise UserInputError(f"the weights lack {missing[0]!r}", "they are of another network")
    with torch.no_grad():
        for name, (first, *others) in tensors.items():
            first.copy_(weights[name].reshape(first.shape))
            for each in others:  # of a sum, such as an LSTM's two biases
                each.zero_()


def _tensors_of(module: nn.Module, graph: Graph) -> dict[str, list[Tensor]]:
    """Return the tensors of a module whose sum is each weight of its graph."""
    import copy

    op = graph.nodes[0].op
    assert isinstance(op, Input)
    sources = convert(copy.deepcopy(module), graph.input_shape, op.dtype).sources
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers()),
    }
    specs = graph.weight_specs()
    missing = sorted(set(specs) - set(sources))
    if missing:
        raise UserInputError(
            f"the module has no value for {missing[0]!r}",
            "make it with the choices of the graph's architecture: with hwnas.chosen(…)",
        )
    return {name: [tensors[each] for each in sources[name].split("+")] for name in specs}


def _kind_of(value: Tensor) -> str:
    """Tell how a parameter starts: zeros, ones, or something random."""
    first = float(value.detach().flatten()[0]) if value.numel() else 0.0
    if first in (0.0, 1.0) and bool((value == first).all()):
        return "ones" if first else "zeros"
    return "normal"


@dataclass
class _Walk:
    """Goes through the traced calls in order; what fails is noted, to be refused at once."""

    g: GraphBuilder
    root: Any
    batch: int
    constants: dict[str, Tensor]
    initial: dict[str, str]
    values: dict[fx.Node, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def step(self, node: fx.Node) -> None:
        """Convert one call."""
        if any(each not in self.values for each in node.all_input_nodes):
            return
        try:
            self._step(node)
        except Unsupported as error:
            self._note(node, str(error))
        except HwnasError as error:
            self._note(node, error.message)
        if self.problems and node not in self.values:
            self._stand_in(node)

    def _stand_in(self, node: fx.Node) -> None:
        """Go on behind a call that cannot be converted, to find the others: no graph is made."""
        shape = list(getattr(node.meta["value"], "shape", ()))
        if self.batch in shape:
            batch = shape.index(self.batch)
            size = (*shape[:batch], *shape[batch + 1 :]) or (1,)
            value = self.g.parameter(
                self.g.input, size=size, weights=f"problem{len(self.problems)}"
            )
            self.values[node] = Traced(value, batch)

    def refuse_problems(self, name: str) -> None:
        """Raise one error for everything that could not be converted."""
        if self.problems:
            lines = "".join(f"\n  - {each}" for each in dict.fromkeys(self.problems))
            raise UserInputError(
                f"{name}: {len(self.problems)} calls cannot be converted{lines}",
                "write them with calls that can be, or add a converter: "
                "docs/guides/your-own-model.md",
            )

    def _step(self, node: fx.Node) -> None:
        if any(self.values[each] is None for each in node.all_input_nodes):
            raise Unsupported(
                "reads a result that cannot be converted: the weights of an attention, the cell "
                "state of an LSTM"
            )
        if node.op == "placeholder":
            self.values[node] = Traced(self.g.input, 0)
        elif node.op == "get_attr":
            self.values[node] = self._tensor(str(node.target))
        elif node.op == "output":
            self._finish(self._argument(node.args[0]))
        else:
            converter, call = self._call(node)
            changes = _changes_input(node, call.module)
            if changes:
                self._refuse_views(node, node.all_input_nodes[0])
            result = converter(call)
            self.values[node] = result
            if changes:  # whoever reads the changed tensor later sees that
                self.values[node.all_input_nodes[0]] = result

    def _refuse_views(self, node: fx.Node, changed: fx.Node) -> None:
        """Refuse to change a tensor in place that is read later under another shape."""
        later = [
            reader
            for view in changed.users
            if view in self.values and _is_view(view)
            for reader in view.users
        ]
        if _is_view(changed):
            later += changed.all_input_nodes[0].users
        if any(each not in self.values and each is not node for each in later):
            raise Unsupported("changes in place what is read later under another shape")

    def _call(self, node: fx.Node) -> tuple[Converter, Call]:
        module, path, own = None, "", ""
        if node.op == "call_module":
            module, path, own = self._module(str(node.target))
            name, converter = module_name(module), module_converter(module)
        else:
            name = node.target if isinstance(node.target, str) else node.target.__name__
            name = name.rstrip("_") if not name.endswith("__") else name
            converter = converters().get(name)
        if converter is None:
            known = [each for each in converters() if isinstance(each, str)]
            raise Unsupported(f"has no converter. {nearest(name, known)}")
        shape = getattr(node.meta["value"], "shape", None)
        call = Call(
            self.g,
            name,
            tuple(self._argument(each) for each in node.args),
            {key: self._argument(each) for key, each in node.kwargs.items()},
            None if shape is None else tuple(shape),
            self.batch,
            module,
            path,
            own,
            self.sources,
        )
        return converter, call

    def _module(self, target: str) -> tuple[nn.Module, str, str]:
        """Return a module, its path with the labels of choices, and its path in the model."""
        module, parts = self.root, []
        for part in target.split("."):
            module = getattr(module, part)
            parts += [part, *getattr(module, OPTIONS, ())]
        return module, "/".join(parts[1:]) or "model", target.removeprefix("net").lstrip(".")

    def _tensor(self, target: str) -> Traced:
        """Add a parameter or a constant."""
        if target in self.initial:
            *holders, name = target.split(".")
            _, path, own = self._module(".".join(holders))
            size = tuple(getattr(self.root.get_submodule(".".join(holders)), name).shape)
            label = path if own else ""
            prefix = "/".join(filter(None, (label, name, "x".join(map(str, size)))))
            self.sources[f"{prefix}/value"] = f"{own}.{name}".lstrip(".")
            init = self.initial[target]
            return Traced(
                self.g.parameter(self.g.input, size=size or (1,), init=init, weights=prefix), None
            )
        value = self.constants.get(target)
        value = operator.attrgetter(target)(self.root) if value is None else value
        if value.numel() > _MOST_CONSTANTS or self.batch in value.shape:
            raise Unsupported(f"is a constant of shape {tuple(value.shape)}: too large")
        numbers = tuple(value.detach().double().flatten().tolist())
        size = tuple(value.shape) or (1,)
        return Traced(self.g.constant(self.g.input, size=size, values=numbers), None)

    def _argument(self, argument: Any) -> Any:
        from torch import fx

        return fx.node.map_aggregate(
            argument, lambda each: self.values[each] if isinstance(each, fx.Node) else each
        )

    def _finish(self, result: Any) -> None:
        results = result if isinstance(result, tuple) else (result,)
        for each in results:
            if not isinstance(each, Traced) or each.batch != 0:
                raise Unsupported("returns something else than a tensor of the batch, or several")
        self.outputs = [each.value for each in results]

    def _note(self, node: fx.Node, problem: str) -> None:
        place = node.meta.get("place", "the model")
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            what = f"{module_name(module)} ({str(node.target).removeprefix('net.')})"
        elif node.op == "output":
            what, place = "the result", "forward"
        else:
            what = node.target if isinstance(node.target, str) else node.target.__name__
        self.problems.append(f"{place}: {what} {problem}")


def _is_view(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return node.op in ("call_method", "call_function") and name in _VIEWS


def _changes_input(node: fx.Node, module: Any) -> bool:
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    name = getattr(node.target, "__name__", "")
    return node.target in _IN_PLACE or name.endswith("_") or bool(node.kwargs.get("inplace"))
