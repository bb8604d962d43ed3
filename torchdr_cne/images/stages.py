"""The stages of a fit: their numbers of epochs, learning rates, warm-up and gradient clipping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchdr_cne.checks import COUNT, NOT_NEGATIVE, POSITIVE, check_choice

_CLIP = 4.0
_VALUE, _ALGORITHM = "gradient_clip_val", "gradient_clip_algorithm"


@dataclass(frozen=True)
class Stage:
    """One stage: its epochs, the peak of its learning rate, and the epochs in which the rate grows to the peak."""

    epochs: int
    rate: float
    warmup: int


def read_stages(estimator: Any, allowed: Sequence[int]) -> list[Stage]:
    """Return the stages that ``total_epochs``, ``lr`` and ``warmup`` of an estimator describe, checked.

    Parameters
    ----------
    estimator : ImageMap
        The estimator, which also determines the meaning of "auto".
    allowed : sequence of int
        Numbers of stages that are allowed.
    """
    epochs = _by_stage("total_epochs", estimator.total_epochs, None)
    n = len(epochs)
    if n not in allowed:
        raise ValueError(
            f"total_epochs={estimator.total_epochs!r} has {n} stages; {type(estimator).__name__} has "
            f"{' or '.join(map(str, allowed))}."
        )
    if not all(COUNT.admits(value) for value in epochs):
        raise ValueError(f"total_epochs={estimator.total_epochs!r} must be {COUNT}, or such numbers.")
    automatic = isinstance(estimator.lr, str) and estimator.lr == "auto_batch"
    rates = _by_stage("lr", estimator._auto_rates(n) if automatic else estimator.lr, n)
    if not all(POSITIVE.admits(rate) for rate in rates):
        raise ValueError(f"lr={estimator.lr!r} must be 'auto_batch', {POSITIVE}, or such numbers.")
    automatic = isinstance(estimator.warmup, str) and estimator.warmup == "auto"
    warmups = _by_stage("warmup", estimator._auto_warmups(epochs) if automatic else estimator.warmup, n)
    for count, warm in zip(epochs, warmups, strict=True):
        if not NOT_NEGATIVE.admits(warm) or int(warm) != warm or warm >= count:
            raise ValueError(
                f"warmup={estimator.warmup!r} must be 'auto' or whole numbers of epochs, fewer than those of the "
                f"stage, which are {epochs}."
            )
    return [Stage(int(e), float(r), int(w)) for e, r, w in zip(epochs, rates, warmups, strict=True)]


def _by_stage(name: str, value: Any, n: int | None) -> list[Any]:
    found = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else [value]
    found = found * n if n is not None and len(found) == 1 else found
    if n is not None and len(found) != n:
        raise ValueError(f"{name}={value!r} has {len(found)} values for {n} stages; give one, or one a stage.")
    return found


def clipping(options: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return the clipping of a `Phase` that ``trainer_kwargs`` ask for."""
    given = dict(options or {})
    unknown = sorted(set(given) - {_VALUE, _ALGORITHM})
    if unknown:
        raise ValueError(
            f"trainer_kwargs has {', '.join(unknown)}; this loop knows {_VALUE} and {_ALGORITHM}. device, verbose, "
            "callbacks and checkpoint_dir are parameters, and ranks come from torchrun."
        )
    value, algorithm = given.get(_VALUE, _CLIP), given.get(_ALGORITHM) or "value"
    check_choice(_ALGORITHM, algorithm, ("value", "norm"))
    if value is not None and not POSITIVE.admits(value):
        raise ValueError(f"{_VALUE}={value!r} must be {POSITIVE} or None.")
    return {f"clip_{algorithm}": value}
