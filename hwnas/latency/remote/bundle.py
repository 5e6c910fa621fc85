"""Writes a bundle: all that a device without hwnas needs to measure itself.

A zip file with one small ONNX model for each kernel, some whole networks, ``manifest.json``,
and the two Python files of `hwnas/latency/remote/target`. Weights are not stored: the manifest says
how the device draws each, so hundreds of kernels take a few hundred kilobytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hwnas
from hwnas.errors import DeviceError, UserInputError
from hwnas.export.onnx import to_onnx
from hwnas.latency._rebuild import WEIGHT_SCALE
from hwnas.latency.decompose import Decomposer
from hwnas.latency.device import Device
from hwnas.latency.kernels import Kernel
from hwnas.latency.profiler import sample_networks, space_name
from hwnas.latency.table import short_id
from hwnas.latency.timing import Protocol, anchor_kernel, nothing
from hwnas.spaces import SearchSpace

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

FORMAT = "hwnas-bundle"
SCHEMA_VERSION = 1
#: Floats up to this many are stored: they are limits and scales, whose values matter.
STORED = 16
#: A date that is the same in every bundle: equal contents are equal files.
_DATE = (1980, 1, 1, 0, 0, 0)
_TARGET = Path(__file__).parent / "target"


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        path: The zip file.
        kernels: Kernel models in it.
        networks: Whole networks in it.
        unmeasurable: Signatures of kernels that cannot be measured alone.
        size: Bytes of the file.
        sha256: Of its manifest: what results refer to.
    """

    path: Path
    kernels: int
    networks: int
    unmeasurable: tuple[str, ...]
    size: int
    sha256: str


def write_bundle(
    path: Path,
    space: SearchSpace,
    device: Device,
    *,
    networks: int = 100,
    calibration_networks: int = 30,
    protocol: Protocol | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Bundle:
    """Write a bundle of a space's kernels and of some of its networks.

    Args:
        path: The zip file to write.
        space: The space.
        device: This machine: its runtime says which kernels there are.
        networks: Networks to take kernels from.
        calibration_networks: How many of them are measured as a whole too.
        protocol: How to time.
        seed: Decides which networks are sampled.
        progress: Told how far the work is.

    Raises:
        UserInputError: The file cannot be written, or the runtime is not ONNX Runtime.
        DeviceError: The runtime refuses a network.
    """
    if device.fingerprint.runtime != "onnxruntime":
        raise UserInputError(
            f"a bundle is for ONNX Runtime, not for {device.fingerprint.runtime}",
            "leave out --device",
        )
    decomposer = Decomposer(device.runtime)
    sampled = sample_networks(space, networks, seed)
    counts: dict[str, Counter[str]] = {}
    for done, (identity, graph) in enumerate(sampled.items(), 1):
        numbers = decomposer.learn(graph).kernels
        counts[identity] = Counter(decomposer.signatures[each] for each in numbers)
        if progress is not None:
            progress("kernels", done, len(sampled))
    files: dict[str, bytes] = {}
    fixed = (("anchor", anchor_kernel()), ("nothing", nothing()))
    items = [_item(files, kind, each.to_model(), _kernel_recipe) for kind, each in fixed]
    unmeasurable = []
    for signature in sorted({each for counter in counts.values() for each in counter}):
        try:
            model = Kernel.parse(signature).to_model()
        except DeviceError:
            unmeasurable.append(signature)
            continue
        item = _item(files, "kernel", model, _kernel_recipe)
        items.append({**item, "signature": signature})
    chosen = list(sampled)[:calibration_networks]
    for each in chosen:
        kernels = {short_id(s): n for s, n in sorted(counts[each].items())}
        item = _item(files, "network", to_onnx(sampled[each]), _network_recipe)
        items.append({**item, "space": space_name(space), "id": each, "kernels": kernels})
    about = device.fingerprint
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "hwnas_version": hwnas.__version__,
        "made_with": {"runtime_version": about.runtime_version, "isa": list(about.isa)},
        "runtime": {"provider": about.provider, "threads": about.threads},
        "protocol": (protocol or Protocol()).model_dump(),
        "space": {
            "space": space_name(space),
            "space_config": space.config.model_dump(mode="json"),
            "input_shape": list(space.input_shape),
            "classes": space.classes,
            "seed": seed,
            "sampled_networks": len(sampled),
        },
        "unmeasurable": unmeasurable,
        "items": items,
    }
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    files["manifest.json"] = text.encode()
    for name in ("run.py", "machine.py"):
        files[name] = (_TARGET / name).read_bytes()
    _write(path, files)
    return Bundle(
        path, len(items) - len(fixed) - len(chosen), len(chosen), tuple(unmeasurable),
        path.stat().st_size, hashlib.sha256(files["manifest.json"]).hexdigest(),
    )  # fmt: skip


def read_manifest(path: Path) -> bytes:
    """Return the manifest of a bundle; nothing is unpacked.

    Raises:
        UserInputError: The file is no bundle.
    """
    limit = 64 * 2**20
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("manifest.json").file_size > limit:
                raise UserInputError(f"the manifest of {path} is larger than 64 MiB")
            with archive.open("manifest.json") as file:
                content = file.read(limit + 1)  # a header may lie about the size
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserInputError(f"{path} is not a bundle: {error}", "give a --bundle file") from error
    if len(content) > limit:
        raise UserInputError(f"the manifest of {path} is larger than 64 MiB")
    return content


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(files.items()):
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = 0o644 << 16
                archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserInputError(f"cannot write {path}: {error.strerror or error}") from error


def _item(
    files: dict[str, bytes],
    kind: str,
    model: ModelProto,
    recipe: Callable[[np.ndarray[Any, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Enter a model, its large weights replaced by recipes for them."""
    from onnx import numpy_helper

    weights = []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype.kind != "f" or value.size <= STORED:
            continue
        weights.append(
            {
                "name": tensor.name, "dtype": str(value.dtype), "shape": list(value.shape),
                **recipe(value),
            }
        )  # fmt: skip
        _leave_out(tensor)
    content = model.SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    files[f"{digest[:16]}.onnx"] = content
    return {"kind": kind, "file": f"{digest[:16]}.onnx", "sha256": digest, "weights": weights}


def _leave_out(tensor: TensorProto) -> None:
    """Say that the values lie elsewhere: the runtime is given them in memory."""
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = tensor.external_data.add()
    place.key, place.value = "location", "none"


def _kernel_recipe(_value: np.ndarray[Any, Any]) -> dict[str, Any]:
    """As `Kernel.to_model` draws them."""
    return {"positive": True, "scale": WEIGHT_SCALE, "shift": 1e-3}


def _network_recipe(value: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return mean and deviation of the real weights: activations keep their size."""
    scale, shift = float(value.std()), float(value.mean())
    return {"positive": False, "scale": scale, "shift": shift}
