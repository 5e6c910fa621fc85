"""Finds a user's model class in a file, and makes models of it."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError, UserInputError, nearest

if TYPE_CHECKING:
    from torch import nn

_HERE = str(Path(__file__).parents[2])


def load_class(model: str) -> type[nn.Module]:
    """Return the class at ``path/to/file.py:Class``; the file is run, as an import would.

    Raises:
        UserInputError: There is no such file or class, it cannot be imported, or is no Module.
    """
    from torch import nn

    file, _, name = model.rpartition(":")
    module = _import(Path(file).expanduser())
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, each in vars(module).items() if isinstance(each, type)]
        raise UserInputError(f"{file} has no {name!r}", nearest(name, classes))
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise UserInputError(
            f"{model} is not a torch.nn.Module", "name a class that inherits from torch.nn.Module"
        )
    return found


def reference(model: type) -> str:
    """Return ``/path/to/file.py:Class`` of a class.

    Raises:
        UserInputError: It is not at the top level of a file.
    """
    try:
        file = inspect.getsourcefile(model)
    except (TypeError, OSError):
        file = None
    if file is None or not Path(file).is_file() or "." in model.__qualname__:
        raise UserInputError(
            f"{model.__qualname__} is not at the top level of a Python file",
            "move the class to a file: worker processes and later runs load it from there",
        )
    return f"{Path(file).resolve()}:{model.__qualname__}"


def make(
    model: type[nn.Module], settings: Mapping[str, Any], given: Mapping[str, Any]
) -> nn.Module:
    """Make a model; the generators of random numbers are left as they were.

    Args:
        model: The class.
        settings: Arguments of its constructor.
        given: Further ones, passed on if the constructor names them.

    Raises:
        UserInputError: The constructor refuses its arguments or fails.
    """
    import torch

    known = inspect.signature(model.__init__).parameters
    further = {name: value for name, value in given.items() if name in known}
    takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())
    unknown = sorted(set(settings) - set(known))
    if unknown and not takes_all:
        names = [name for name in known if name != "self"]
        raise UserInputError(
            f"{model.__name__} takes no setting {unknown[0]!r}", nearest(unknown[0], names)
        )
    try:
        with torch.random.fork_rng(devices=[]):
            return model(**{**further, **settings})
    except HwnasError:
        raise
    except Exception as error:
        raise UserInputError(
            f"{_place(error)}: {model.__name__} cannot be made: {type(error).__name__}: {error}",
            "it must be possible with every answer to its choices",
        ) from error


def _import(path: Path) -> ModuleType:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserInputError(
            f"{path} cannot be read: {error.strerror}",
            f"relative paths start at {Path.cwd()}; write model: path/to/file.py:Class",
        ) from error
    path = path.resolve()
    # A changed file is another module: runs of one process may follow edits of the file.
    name = f"hwnas_model_{hashlib.sha256(bytes(path) + text).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserInputError(f"{path} is not a Python file", "write model: path/to/file.py:Class")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # it may import its neighbours, as a script may
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserInputError(
            f"{_place(error)}: {path.name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _place(error: BaseException) -> str:
    """Return the innermost line that is neither ours nor of a package."""
    own = [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if not each.filename.startswith((_HERE, "<")) and "site-packages" not in each.filename
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else "the model"
