"""Functions that save a fitted estimator as a folder and load it again."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchdr_cne.encoders.building import rebuild
from torchdr_cne.persistence.checking import check_names, check_networks, check_results
from torchdr_cne.storage import folders
from torchdr_cne.storage.plain import Classes, depth_of, from_plain, named_classes, object_to_plain, to_plain
from torchdr_cne.storage.replacing import looks_like_ours

_DEEPEST, _SHOWN = 100, 500
_OF_THE_RUN = ("checkpoint_dir", "callbacks")
"""Parameters that are a place on the machine of the fit, or functions; they are neither saved nor loaded."""


def save_model(estimator: Any, path: str | Path) -> None:
    """Save a fitted estimator with its parameters and results as a folder; a model at ``path`` is replaced.

    Parameters
    ----------
    estimator : AffinityMatcher
        The fitted estimator. ``callbacks``, and a ``random_state`` that is a generator, are left out with a warning,
        and ``checkpoint_dir`` without one. Of your own encoder or decoder only the weights are saved, and `load` asks
        for the module.
    path : str or Path
        The folder; its parent must exist.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator was not fitted.
    ValueError
        If a parameter or attribute is of a kind that cannot be saved.
    FileExistsError
        If there is anything other than a model at ``path``.
    OSError
        If the folder cannot be written; a model that was there is left as it was.
    """
    path = Path(path)
    _refuse_to_overwrite(path)
    tensors, manifest = model_state(estimator)
    left_out, own = _unsavable_parameters(estimator), _own_modules(estimator)
    if left_out:
        warnings.warn(
            f"{' and '.join(left_out)} of {type(estimator).__name__} cannot be saved and will be None in the loaded "
            "estimator; set_params sets them again.",
            UserWarning,
            stacklevel=2,
        )
    described = object_to_plain(estimator, "", tensors, [*left_out, *own, *_OF_THE_RUN])
    folders.write_folder(path, tensors, {"kind": "model", **described, **manifest, "modules": own})


def load(path: str | Path, *, classes: Classes = (), modules: Mapping[str, nn.Module] | None = None) -> Any:
    """Load a saved estimator; nothing in the folder can run code or name a path.

    Parameters
    ----------
    path : str or Path
        The folder.
    classes : mapping of str to class, or iterable of class, default=()
        Your own estimators, affinities, similarities, losses, optimisers and schedulers that the model may need, by
        the names that the folder gives them; those in `torchdr_cne.catalogue` need not be passed.
    modules : dict of str to torch.nn.Module, default=None
        Those of ``{"encoder": …, "decoder": …}`` that are your own modules, with the architecture that was saved; the
        fitted networks are copies of them with the saved weights.

    Returns
    -------
    AffinityMatcher
        The fitted estimator, with its tensors on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    DamagedError
        If the folder is damaged.
    FormatError
        If the folder is not a model, or if it has a later version of the format.
    ValueError
        If a class is missing from ``classes`` or a module from ``modules``, or if one of them refuses the saved values.
    """
    path, classes = Path(path), named_classes(classes)
    tensors, manifest = folders.read_folder(path)
    if manifest.get("kind") != "model":
        raise folders.FormatError(f"{path} holds a {_brief(manifest.get('kind'))[:60]}, not a saved estimator.")
    if depth_of(manifest) > _DEEPEST:
        raise folders.FormatError(f"{path} is not a model that torchdr_cne writes (values in {_DEEPEST} others).")
    try:
        described = {name: manifest[name] for name in ("class", "parameters")}
        estimator = from_plain(described, tensors, classes)
        if not hasattr(estimator, "n_components"):
            raise folders.FormatError(f"{type(estimator).__name__} is no estimator.")
        vars(estimator).update({name: None for name in _OF_THE_RUN if hasattr(estimator, name)})
        _take_modules(estimator, manifest.get("modules", {}), modules or {}, path)
        restore_model(estimator, tensors, manifest, classes=classes)
    except folders.FormatError as error:
        raise folders.FormatError(f"{path} is not a model that torchdr_cne writes: {_brief(error)}") from error
    except ValueError as error:  # with advice
        raise ValueError(_brief(error)) from error
    except Exception as error:  # whatever Python, NumPy or torch make of values that no model has
        reason = f"{type(error).__name__}: {error}"
        raise folders.FormatError(f"{path} is not a model that torchdr_cne writes ({_brief(reason)}).") from error
    return estimator


def _brief(text: object) -> str:
    """Return a reason in one line without characters that a terminal would obey."""
    line = " ".join(str(text).split())[:_SHOWN]
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def model_state(estimator: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the results of fitting: all attributes that end in an underscore.

    Returns
    -------
    tensors : dict of str to Tensor
        Arrays and tensors; they share the estimator's memory and are on its device.
    manifest : dict
        ``{"fitted": …}``, JSON that refers to the tensors.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator was not fitted.
    ValueError
        If an attribute is of a kind that cannot be saved.
    """
    check_is_fitted(estimator, "embedding_")
    return fitted_state(results_of(estimator))


def fitted_state(attributes: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return fitted attributes as tensors and JSON, as `model_state` does."""
    tensors: dict[str, Tensor] = {}
    fitted = {
        name: {"network": to_plain(dict(value.state_dict()), name, tensors)}
        if isinstance(value, nn.Module)
        else to_plain(value, name, tensors)
        for name, value in attributes.items()
    }
    return tensors, {"fitted": fitted}


def fitted_attributes(
    tensors: Mapping[str, Tensor],
    manifest: Mapping[str, Any],
    specs: Mapping[str, Any],
    n_components: int,
    *,
    classes: Classes = (),
) -> dict[str, Any]:
    """Return the attributes that `fitted_state` took; ``specs`` are what networks are built from, by role."""
    known: Mapping[str, Any] = manifest["fitted"]
    fitted = {}
    for name, plain in known.items():
        if _is_network(plain):
            state = from_plain(plain["network"], tensors, classes)
            role = name.removesuffix("_")
            shape = from_plain(known.get("input_shape_", [known.get("n_features_in_")]), tensors, classes)
            fitted[name] = rebuild(role, specs.get(role), state, shape, n_components)
        else:
            fitted[name] = from_plain(plain, tensors, classes)
    return fitted


def _is_network(plain: Any) -> bool:
    return isinstance(plain, dict) and set(plain) == {"network"}


def restore_model(
    estimator: Any, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], *, classes: Classes = ()
) -> None:
    """Replace the fitted attributes of ``estimator`` by those of `model_state`; its parameters stay."""
    specs = {role: getattr(estimator, role, None) for role in ("encoder", "decoder")}
    plain = manifest["fitted"]
    check_names(type(estimator), plain)
    others = {name: value for name, value in plain.items() if not _is_network(value)}
    fitted = fitted_attributes(tensors, {"fitted": others}, specs, estimator.n_components, classes=classes)
    check_results(fitted, estimator.n_components)  # before networks of these sizes are made
    if len(others) < len(plain):
        fitted = fitted_attributes(tensors, manifest, specs, estimator.n_components, classes=classes)
        check_networks(fitted)
    for name in results_of(estimator):
        delattr(estimator, name)
    for name, value in fitted.items():
        setattr(estimator, name, value)


def results_of(estimator: Any) -> dict[str, Any]:
    """Return the fitted attributes of an estimator: all that end in an underscore."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}


def _unsavable_parameters(estimator: Any) -> list[str]:
    """Return the names of the parameters that will be None after loading."""
    generators = (np.random.RandomState, np.random.Generator)
    left_out = ["callbacks"] if estimator.callbacks is not None else []
    return left_out + (["random_state"] if isinstance(estimator.random_state, generators) else [])


def _own_modules(estimator: Any) -> dict[str, str]:
    """Return the parameters that are modules: name → name of the class."""
    return {
        name: type(value).__name__
        for name, value in estimator.get_params(deep=False).items()
        if isinstance(value, nn.Module)
    }


def _take_modules(estimator: Any, own: Mapping[str, str], given: Mapping[str, nn.Module], path: Path) -> None:
    """Give the estimator the modules that were parameters of the saved estimator."""
    missing, unknown = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing:
        wanted = ", ".join(f'"{name}": {own[name]}(…)' for name in missing)
        raise ValueError(f"{path} was saved with modules of its owner's; pass load(…, modules={{{wanted}}}).")
    if unknown:
        raise ValueError(f"{path} has no {' and '.join(unknown)} of its own; leave it out of modules=.")
    for name, module in given.items():
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"modules[{name!r}] is a {type(module).__name__}; pass a torch.nn.Module like {own[name]}."
            )
    estimator.set_params(**given)


def _refuse_to_overwrite(path: Path) -> None:
    """Raise unless ``path`` does not exist, is an empty folder, or holds a model and nothing else."""
    if not path.exists():
        return
    ours = looks_like_ours(path.resolve())
    try:
        ours = ours and (not any(path.iterdir()) or folders.read_manifest(path).get("kind") == "model")
    except ValueError:
        ours = False
    if not ours:
        raise FileExistsError(f"{path} exists and is not just a saved model; choose another path, or delete it.")
