"""Groups of parameters: dataclasses that document their fields and check their values."""

import inspect
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from torchdr_cne.checks import Bound, check_bounds
from torchdr_cne.parameters.documentation import documented

_REPLACED = "_replaced_parameters"


class ParameterGroup:
    """Base class of groups, which define `_bounds` for their own fields and check what bounds cannot express.

    Groups are joined by inheritance. All fields are keyword-only.
    """

    _bounds: ClassVar[dict[str, Bound]] = {}
    """Bounds of the class's own fields; the bounds of its bases hold as well."""

    def _check_parameters(self) -> None:
        """Raise a ValueError for values that cannot work; overriding methods call ``super()``."""
        bounds: dict[str, Bound] = {}
        for base in reversed(type(self).__mro__):
            bounds |= vars(base).get("_bounds", {})
        names = parameter_names(type(self))
        check_bounds(self, {name: bound for name, bound in bounds.items() if name in names})
        for field in fields(self):  # type: ignore[arg-type]  # each estimator is a dataclass
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{field.name}={value!r} must be True or False.")


def group(cls: type) -> type:
    """Turn a class into a group of keyword-only parameters."""
    return dataclass(kw_only=True, eq=False, repr=False)(cls)


def parameter_names(cls: Any) -> set[str]:
    """Return the names of a class's parameters."""
    return {field.name for field in fields(cls) if field.init}


def declare(cls: Any, replaces: tuple[str, ...] = ()) -> None:
    """Make a subclass of an estimator a dataclass whose docstring has all its parameters.

    Parameters
    ----------
    cls : type
        The class, whose annotated attributes become keyword-only parameters.
    replaces : tuple of str
        Parameters of its bases that it replaces by hooks or parameters of its own.

    Raises
    ------
    TypeError
        If a parameter of a base is overridden without an annotation, which a dataclass would ignore.
    """
    inherited = {
        name for base in cls.__mro__[1:] if hasattr(base, "__dataclass_fields__") for name in _all_fields(base)
    }
    annotations = inspect.get_annotations(cls)
    bare = sorted(inherited & set(vars(cls)) - set(annotations))
    if bare:
        raise TypeError(
            f"{cls.__name__} overrides {', '.join(bare)} without a type annotation, which a dataclass would "
            f"ignore; write for instance `{bare[0]}: type = value`."
        )
    replaced = {name for base in cls.__bases__ for name in getattr(base, _REPLACED, ())} | set(replaces)
    setattr(cls, _REPLACED, replaced - set(annotations))
    cls.__annotations__ = {**annotations, **dict.fromkeys(getattr(cls, _REPLACED), ClassVar[None])}
    group(cls)
    cls.__doc__ = documented(cls)


def _all_fields(base: Any) -> set[str]:
    return {field.name for field in fields(base)}
