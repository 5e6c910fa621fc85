"""ONNX files from anywhere: reading them, sizes that they leave open, kernels remembered."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hwnas.errors import UserInputError
from hwnas.latency.device import Device

if TYPE_CHECKING:
    from onnx import ModelProto

#: Sizes of inputs, by name.
Shapes: TypeAlias = Mapping[str, Sequence[int]]


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read ``INPUT=1,3,224,224`` each; ``INPUT=`` is a scalar.

    Raises:
        UserInputError: A text has another form, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        try:
            shape = tuple(int(each) for each in sizes.split(",")) if sizes else ()
        except ValueError:
            shape = (-1,)
        if not equals or not name or any(each < 0 for each in shape):
            raise UserInputError(
                f"--shape {text}: expected an input's name and its sizes",
                "such as --shape input=1,3,224,224",
            )
        if name in shapes:
            raise UserInputError(f"--shape names {name!r} twice", "give it once")
        shapes[name] = shape
    return shapes


def read_model(
    path: Path, shapes: Shapes | None = None, *, is_one_of_many: bool = False
) -> ModelProto:
    """Read an ONNX file, its external data included.

    Args:
        path: The file.
        shapes: Sizes of inputs that the file leaves open.
        is_one_of_many: Whether `shapes` may name inputs of other files.

    Raises:
        UserInputError: It is missing or is no ONNX model, its external data is missing, or a shape
            does not fit.
    """
    import onnx

    # Protobuf's types are not installed everywhere that mypy runs.
    broken: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    checker: type[Exception] = onnx.checker.ValidationError
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise UserInputError(
            f"{path} does not exist", "give the ONNX file that `hwnas export` printed"
        ) from None
    except (OSError, broken, ValueError) as error:
        raise UserInputError(
            f"{path} is not an ONNX file: {error}", "give an .onnx file"
        ) from error
    if not model.graph.node:
        raise UserInputError(f"{path} is not an ONNX file: it has no node", "give an .onnx file")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, checker) as error:
        raise UserInputError(
            f"the weights of {path} are in a file of their own, which cannot be read: {error}",
            "put it beside the model, under the name that it had",
        ) from error
    if shapes and is_one_of_many:
        names = {each.name for each in model.graph.input}
        shapes = {name: shape for name, shape in shapes.items() if name in names}
    return with_shapes(model, shapes) if shapes else model


def with_shapes(model: ModelProto, shapes: Shapes) -> ModelProto:
    """Fix sizes of a model's inputs, in place, and return it.

    What the file says of other tensors' sizes is dropped where it was symbolic: the runtime works
    it out.

    Raises:
        UserInputError: There is no such input, or the file says another rank or size.
    """
    weights = {each.name for each in model.graph.initializer}
    inputs = {each.name: each for each in model.graph.input if each.name not in weights}
    for name, shape in shapes.items():
        if name not in inputs:
            raise UserInputError(
                f"the model has no input {name!r}", f"its inputs: {', '.join(inputs)}"
            )
        tensor = inputs[name].type.tensor_type
        has_rank = tensor.HasField("shape")
        dims = tensor.shape.dim
        said = [each.dim_value if each.HasField("dim_value") else None for each in dims]
        if has_rank and (
            len(said) != len(shape)
            or any(a not in {None, 0, b} for a, b in zip(said, shape, strict=True))
        ):
            text = ",".join("?" if each is None else str(each) for each in said)
            raise UserInputError(
                f"input {name!r} is [{text}] in the file, not {list(shape)}",
                "give sizes for what is ? only",
            )
        del dims[:]
        for size in shape:
            dims.add().dim_value = size
    for each in model.graph.output:
        if any(not dim.HasField("dim_value") for dim in each.type.tensor_type.shape.dim):
            each.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def open_sizes(model: ModelProto) -> list[str]:
    """Return the inputs with sizes that the file leaves open; these are taken as 1."""
    weights = {each.name for each in model.graph.initializer}
    found = []
    for each in model.graph.input:
        dims = each.type.tensor_type.shape.dim
        if each.name not in weights and any(not dim.dim_value for dim in dims):
            sizes = (str(dim.dim_value or dim.dim_param or "?") for dim in dims)
            found.append(f"{each.name} [{','.join(sizes)}]")
    return found


def kernels_of_file(
    path: Path,
    device: Device,
    shapes: Shapes | None = None,
    *,
    is_one_of_many: bool = False,
    folder: Path | None = None,
) -> tuple[dict[str, int], list[str]]:
    """Return how often a file runs each kernel on a device, by signature, and its open sizes.

    What a runtime makes of a file depends on the file, the given sizes and the device: it is kept
    under the hash of these, and asked for once.

    Args:
        path: The ONNX file.
        device: The device.
        shapes: Sizes that the file leaves open.
        is_one_of_many: Whether `shapes` may name inputs of other files.
        folder: Where answers are kept; the user's cache if None.

    Raises:
        UserInputError: As `read_model`.
        DeviceError: The runtime refuses the model.
    """
    try:
        content = path.read_bytes()
    except OSError:
        content = b""  # `read_model` says what is wrong
    settings = [
        device.fingerprint.to_json(),
        device.runtime.config.model_dump(mode="json"),
        sorted((name, list(shape)) for name, shape in (shapes or {}).items()),
    ]
    digest = hashlib.sha256(content)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    key = digest.hexdigest()
    kept = (folder or _cache_folder()) / f"{key}.json"
    try:
        value = json.loads(kept.read_bytes())
        return value["kernels"], value["open_sizes"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not kept yet, or damaged: asked again
    model = read_model(path, shapes, is_one_of_many=is_one_of_many)
    is_whole = not _has_external_data(path)
    counts: dict[str, int] = {}
    for each in device.runtime.kernels(model):
        signature = each.kernel.signature
        counts[signature] = counts.get(signature, 0) + 1
    found = open_sizes(model)
    if is_whole:  # external data is not in the hash
        _keep(kept, {"kernels": counts, "open_sizes": found})
    return counts, found


def _has_external_data(path: Path) -> bool:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hwnas" / "kernels"


def _keep(path: Path, value: object) -> None:
    """Write a file whole or not at all; a cache that cannot be written to is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file)
        Path(name).replace(path)
    except OSError:
        return
