"""Which hooks of a method a subclass has defined anew, so that what was derived from them no longer holds."""

_DEFINING = (
    "_compute_attractive_loss",
    "_compute_repulsive_loss",
    "_compute_loss",
    "_loss_of_pairs",
    "_make_pairs",
    "_similarity",
    "_default_similarity",
    "_learned_scalars",
    "_force_parameters",
)
"""What the declared forces are derived from."""


def overridden(cls: type, base: type, *names: str) -> list[str]:
    """Return those of the methods that a class defined anew between itself and ``base``."""
    return [name for name in names if _defined_at(cls, name) < cls.__mro__.index(base)]


def newer_than_forces(cls: type) -> list[str]:
    """Return the hooks that are defined below the class that declares the pair forces."""
    return [name for name in _DEFINING if _defined_at(cls, name) < _defined_at(cls, "_pair_forces")]


def _defined_at(cls: type, name: str) -> int:
    """Return the position in the method resolution order of the class that defines ``name``."""
    return next(depth for depth, base in enumerate(cls.__mro__) if name in vars(base))
