"""Parameters and fitted attributes as JSON, in which all other types are tagged and arrays are set aside."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne import catalogue
from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors import KeptRows
from torchdr_cne.storable import Storable
from torchdr_cne.storage.folders import FormatError

Classes = Mapping[str, type] | Iterable[type]
"""The user's own classes that a file may name."""

_CSR_PARTS = ("data", "indices", "indptr")
_ROW_PARTS = ("values", "scale", "centre", "is_constant")
_SINGLE = ("float", "tuple", "dict", "device", "type", "rows", "strings", "array", "tensor")
_TAGS = {frozenset([tag]) for tag in _SINGLE} | {frozenset(["class", "parameters"]), frozenset(["csr", *_CSR_PARTS])}
"""The keys that a tagged value has."""


def to_plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON from which `from_plain` makes an equal value.

    Parameters
    ----------
    value : Any
        None, a bool, number, string, list, tuple or dict with string keys; a NumPy scalar (a Python number
        afterwards); an array, tensor or ``csr_array``; a torch device; an optimiser or scheduler class; an
        affinity, one of its transforms, a similarity, a `FaissConfig`, a phase, a loss or a method (dataclasses); the
        rows of a fit.
    name : str
        Name of the value in error messages, and of tensors that are set aside.
    tensors : dict of str to Tensor
        Receives arrays and tensors, which share their memory with the value if possible.

    Raises
    ------
    ValueError
        If a part of the value has another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case list():
            return [to_plain(part, f"{name}.{i}", tensors) for i, part in enumerate(value)]
        case tuple():
            return {"tuple": to_plain(list(value), name, tensors)}
        case Mapping() if all(isinstance(key, str) for key in value):
            return {"dict": {key: to_plain(part, f"{name}.{key}", tensors) for key, part in value.items()}}
        case torch.device():
            return {"device": str(value)}
        case type() if issubclass(value, (Optimizer, LRScheduler)):
            return {"type": _class_name(value)}
        case Storable() if is_dataclass(value):
            return object_to_plain(value, f"{name}.", tensors)
        case KeptRows():
            parts = {part: getattr(value.rows, part) for part in _ROW_PARTS}
            return {"rows": {part: to_plain(own, f"{name}.{part}", tensors) for part, own in parts.items()}}
        case scipy.sparse.csr_array():
            parts = {part: to_plain(getattr(value, part), f"{name}.{part}", tensors) for part in _CSR_PARTS}
            return {"csr": list(value.shape), **parts}
        case np.ndarray() if value.ndim == 1 and value.dtype.kind in "OU" and all(isinstance(v, str) for v in value):
            return {"strings": value.tolist()}
        case np.ndarray() if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            # Native byte order, and writable, as torch warns about arrays that are not.
            native = np.require(np.asarray(value), value.dtype.newbyteorder("="), ["C", "W"])
            return {"array": _put_aside(torch.from_numpy(native), name, tensors)}
        case Tensor() if value.layout == torch.strided and not value.is_complex():
            return {"tensor": _put_aside(value.detach(), name, tensors)}
    raise ValueError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved; use plain numbers, "
        "strings, lists, dicts with string keys, real arrays or tensors, or dataclasses that are affinities or "
        "similarities."
    )


def from_plain(plain: Any, tensors: Mapping[str, Tensor], classes: Classes = ()) -> Any:
    """Return the value that `to_plain` turned into JSON; tensors stay on their device.

    Class names refer to classes of this library and of torch.optim, and to those in ``classes``; nothing is imported
    by name.

    Raises
    ------
    ValueError
        If a class is unknown or refuses its parameters; as its subclass FormatError if `to_plain` gives no such value.
    """
    if isinstance(plain, dict) and frozenset(plain) not in _TAGS:
        raise FormatError(f"{str(plain)[:80]} is not a value that torchdr_cne writes.")
    match plain:
        case None | bool() | int() | float() | str():
            return plain
        case list():
            return [from_plain(part, tensors, classes) for part in plain]
        case {"float": "inf" | "-inf" | "nan" as text}:
            return float(text)
        case {"tuple": list(parts)}:
            return tuple(from_plain(parts, tensors, classes))
        case {"dict": dict(parts)}:
            return {key: from_plain(part, tensors, classes) for key, part in parts.items()}
        case {"device": str(text)}:
            return torch.device(text)
        case {"type": str(name)}:
            return _find_class(name, classes)
        case {"class": str(name), "parameters": dict(parts)}:
            parameters = {key: from_plain(part, tensors, classes) for key, part in parts.items()}
            return _make(_find_class(name, classes), parameters)
        case {"csr": list(shape)}:
            return _sparse(tuple(from_plain(plain[part], tensors) for part in _CSR_PARTS), shape)
        case {"rows": dict(parts)} if set(parts) == {*_ROW_PARTS}:
            own = {part: from_plain(parts[part], tensors) for part in _ROW_PARTS}
            if not isinstance(own["values"], Tensor) or not isinstance(own["centre"], Tensor):
                raise FormatError("rows have no values or no centre.")
            return KeptRows(Rows(**own))
        case {"strings": list(strings)}:
            return np.array(strings, dtype=object)
        case {"array": str(key)}:
            return tensors[key].numpy()
        case {"tensor": str(key)}:
            return tensors[key]
    raise FormatError(f"{str(plain)[:80]} is not a value that torchdr_cne writes.")


def _sparse(arrays: tuple[Any, ...], shape: list[Any]) -> scipy.sparse.csr_array:
    """Return a sparse matrix of which all ids have been checked, as SciPy's kernels trust them."""
    try:
        if any(ids.dtype.kind != "i" for ids in arrays[1:]):  # SciPy would round other numbers
            raise TypeError("its ids are no whole numbers")
        matrix = scipy.sparse.csr_array(arrays, shape=tuple(shape))
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise FormatError(f"a sparse matrix is damaged: {error}.") from error
    return matrix


def depth_of(plain: Any) -> int:
    """Return how deeply lists and dicts are nested in a JSON value, without recursion."""
    depth, level = 0, [plain]
    while level := [part for part in level if isinstance(part, (list, dict))]:
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
        depth += 1
    return depth


def object_to_plain(value: Any, prefix: str, tensors: dict[str, Tensor], leave_out: Collection[str] = ()) -> Any:
    """Return the class name and the parameters of a dataclass; ``prefix`` goes before the names of parameters."""
    names = [field.name for field in fields(value) if field.init and field.name not in leave_out]
    parameters = {name: to_plain(getattr(value, name), prefix + name, tensors) for name in names}
    return {"class": _class_name(type(value)), "parameters": parameters}


def _torch_class(module: str, bare: str) -> type | None:
    """Return the optimiser or scheduler of torch that a file names; None if there is none."""
    for home, base in ((torch.optim, Optimizer), (lr_scheduler, LRScheduler)):
        found = getattr(home, bare, None) if home.__name__ == module else None
        if isinstance(found, type) and issubclass(found, base):
            return found
    return None


def _put_aside(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    """Add a tensor under ``name``, or under a name made from it if that is taken; return the name used."""
    key = name if name not in tensors else f"{name}#{len(tensors)}"
    tensors[key] = tensor
    return key


def _class_name(cls: type) -> str:
    """Return the name of ``cls`` in files; classes of others have their module, so they never pass for ours."""
    for home in (torch.optim, lr_scheduler):
        if getattr(home, cls.__name__, None) is cls:
            return f"{home.__name__}.{cls.__name__}"
    return catalogue.stored_name(cls)


def _find_class(name: str, classes: Classes) -> Any:
    """Return the class that a file names; a class of another module is found in ``classes`` by its bare name."""
    module, _, bare = name.rpartition(".")
    found = _torch_class(module, bare) or catalogue.find_stored(name)
    if found is None and module:
        found = named_classes(classes).get(bare)
    if found is None:
        raise ValueError(f"class {name} is not one of torchdr_cne's; import it and pass classes=[{bare}].")
    return found


def named_classes(classes: Classes) -> dict[str, type]:
    """Return the user's classes by name, from a mapping or from the classes themselves."""
    return dict(classes) if isinstance(classes, Mapping) else {cls.__name__: cls for cls in classes}


def _make(cls: Any, parameters: dict[str, Any]) -> Any:
    """Return an object with the given parameters; parameters of earlier versions must have their defaults."""
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise FormatError(f"{cls.__name__} is no class with parameters.")
    for name, default in getattr(cls, "_former_parameters", {}).items():
        if name in parameters and name not in {field.name for field in fields(cls)}:
            value = parameters.pop(name)
            if value != default:
                raise ValueError(
                    f"{cls.__name__} was saved with {name}={value!r}, a parameter that this version does not have."
                )
    try:
        return cls(**parameters)
    except TypeError as error:
        raise ValueError(f"{cls.__name__} does not take the saved parameters: {error}.") from error
