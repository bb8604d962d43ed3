"""A fitted estimator to a folder and back."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchdr_cne.persistence import folders
from torchdr_cne.persistence.plain import from_plain, object_to_plain, to_plain


def save_model(estimator: Any, path: str | Path) -> None:
    """Save a fitted estimator, parameters and results, as a folder at ``path``; a model there is replaced.

    Parameters
    ----------
    estimator : AffinityMatcher
        ``callbacks``, and a ``random_state`` that is a generator, are left out with a warning.
    path : str or Path
        The folder; its parent must exist.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it was not fitted.
    ValueError
        If a parameter or attribute is of a kind that cannot be saved.
    FileExistsError
        If ``path`` holds anything but a model.
    OSError
        If it cannot be written; a model that was there is left as it was.
    """
    path = Path(path)
    _refuse_to_overwrite(path)
    tensors, manifest = model_state(estimator)
    left_out = _unsavable_parameters(estimator)
    if left_out:
        warnings.warn(
            f"{' and '.join(left_out)} of {type(estimator).__name__} cannot be saved and will be None in the loaded "
            "estimator; set_params sets them again.",
            UserWarning,
            stacklevel=2,
        )
    described = object_to_plain(estimator, "", tensors, left_out)
    folders.write_folder(path, tensors, {"kind": "model", **described, **manifest})


def load(path: str | Path, *, classes: Iterable[type] = ()) -> Any:
    """Load an estimator that was saved; nothing in the folder can run code.

    Parameters
    ----------
    path : str or Path
        The folder.
    classes : iterable of class, default=()
        Estimators, affinities, similarities, optimisers and schedulers of your own that it may need.

    Returns
    -------
    AffinityMatcher
        The fitted estimator; tensors are on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    DamagedError
        If the folder is damaged.
    FormatError
        If it is no model, or of a later version of the format.
    ValueError
        If a class has to be passed in ``classes``, or refuses the saved parameters.
    """
    path, classes = Path(path), list(classes)
    tensors, manifest = folders.read_folder(path)
    if manifest.get("kind") != "model":
        raise folders.FormatError(f"{path} holds a {manifest.get('kind')}, not a saved estimator.")
    try:
        described = {name: manifest[name] for name in ("class", "parameters")}
        estimator = from_plain(described, tensors, classes)
        restore_model(estimator, tensors, manifest, classes=classes)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise folders.FormatError(f"{path} is not a model that torchdr_cne writes ({error!r}).") from error
    return estimator


def model_state(estimator: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what fitting gave: all attributes that end in an underscore.

    Returns
    -------
    tensors : dict of str to Tensor
        Arrays and tensors, in the estimator's memory and on its device.
    manifest : dict
        ``{"fitted": …}``, JSON that refers to the tensors.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it was not fitted.
    ValueError
        If an attribute is of a kind that cannot be saved.
    """
    check_is_fitted(estimator, "embedding_")
    tensors: dict[str, Tensor] = {}
    fitted = {name: to_plain(value, name, tensors) for name, value in _fitted(estimator).items()}
    return tensors, {"fitted": fitted}


def restore_model(
    estimator: Any, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], *, classes: Iterable[type] = ()
) -> None:
    """Give ``estimator`` the fitted attributes of `model_state` in place of its own; the parameters stay."""
    fitted = {name: from_plain(plain, tensors, classes) for name, plain in manifest["fitted"].items()}
    for name in _fitted(estimator):
        delattr(estimator, name)
    for name, value in fitted.items():
        setattr(estimator, name, value)


def _fitted(estimator: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}


def _unsavable_parameters(estimator: Any) -> list[str]:
    """Name the parameters that are None after loading."""
    generators = (np.random.RandomState, np.random.Generator)
    left_out = ["callbacks"] if estimator.callbacks is not None else []
    return left_out + (["random_state"] if isinstance(estimator.random_state, generators) else [])


def _refuse_to_overwrite(path: Path) -> None:
    """Raise unless ``path`` is free, an empty folder, or a model with nothing beside it."""
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    ours = path.is_dir() and names <= {folders.MANIFEST, folders.STATE}
    try:
        ours = ours and (not names or folders.read_manifest(path).get("kind") == "model")
    except ValueError:
        ours = False
    if not ours:
        raise FileExistsError(f"{path} exists and is not just a saved model; choose another path, or delete it.")
