"""Accuracy with which a linear classifier predicts classes from features."""

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from torchdr_cne.evaluation._inputs import RandomState, as_classes, as_points

if TYPE_CHECKING:
    from torchdr_cne.evaluation._inputs import Data

_MAX_ITER = 1000


def linear_probe(
    features: "Data",
    labels: "Data",
    *,
    test_features: "Data | None" = None,
    test_labels: "Data | None" = None,
    n_folds: int = 5,
    random_state: RandomState = 0,
) -> float:
    """Return the accuracy of a logistic regression on standardised features, for rows it was not fitted to.

    Parameters
    ----------
    features : array or tensor of shape (n, f)
        Features, such as the output of an encoder, of any real dtype.
    labels : array or tensor of shape (n,)
        Classes: integers, strings, booleans or whole floats, none missing.
    test_features : array or tensor of shape (m, f), optional
        Rows on which the classifier is judged, and to which it is not fitted. Without them, `features` are judged
        by cross-validation.
    test_labels : array or tensor of shape (m,), optional
        Classes of the test rows, each of which occurs in `labels`.
    n_folds : int, default=5
        Number of folds of the cross-validation, shuffled and stratified; every class needs at least as many rows.
        It is not used with a test set.
    random_state : int, numpy.random.Generator or None, default=0
        Source of the shuffle. It is not used with a test set, where nothing is random.

    Returns
    -------
    float
        Fraction of rows whose class is predicted, in the test set or as the mean over the folds.

    Raises
    ------
    ValueError
        If lengths or widths do not match, values are not finite, labels are missing, fractions or all the
        same, a class has fewer rows than there are folds, or a class of the test set is not in `labels`.

    Notes
    -----
    The classifier is `sklearn.linear_model.LogisticRegression` with its default penalty (C = 1) and at most 1000
    iterations, after a `StandardScaler` that is fitted to the same rows.
    """
    points = as_points(features, "features").astype(np.float64, copy=False)
    classes, codes = as_classes(labels, len(points), "labels", "features")
    if len(classes) < 2:
        raise ValueError(f"labels has {len(classes)} classes, {classes.tolist()}; a probe needs at least 2")
    if (test_features is None) != (test_labels is None):
        given, lacking = ("test_labels", "test_features") if test_features is None else ("test_features", "test_labels")
        raise ValueError(f"{given} is given without {lacking}; pass both, or neither for cross-validation")
    if test_features is None:
        return _cross_validated(points, codes, classes, operator.index(n_folds), random_state)
    test_points = as_points(test_features, "test_features").astype(np.float64, copy=False)
    if test_points.shape[1] != points.shape[1] or len(test_points) == 0:
        raise ValueError(
            f"test_features has shape {test_points.shape} and features {points.shape}; "
            "pass at least one test row, with the same columns"
        )
    test_codes = _codes_among(classes, test_labels, len(test_points))
    return float(_classifier().fit(points, codes).score(test_points, test_codes))


def _cross_validated(
    points: np.ndarray, codes: np.ndarray, classes: np.ndarray, n_folds: int, random_state: RandomState
) -> float:
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    if n_folds < 2:
        raise ValueError(f"n_folds={n_folds} leaves nothing to judge; it must be at least 2")
    counts = np.bincount(codes)
    if counts.min() < n_folds:
        smallest = classes.tolist()[counts.argmin()]
        raise ValueError(
            f"n_folds={n_folds} needs {n_folds} rows of each class and class {smallest!r} has {counts.min()}; "
            "lower n_folds, drop the class, or pass test_features and test_labels"
        )
    is_seed = isinstance(random_state, int | np.integer)
    seed = random_state if is_seed else int(np.random.default_rng(random_state).integers(2**31))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return float(cross_val_score(_classifier(), points, codes, cv=folds, error_score="raise").mean())


def _codes_among(classes: np.ndarray, test_labels: Any, m: int) -> np.ndarray:
    """Return the positions (m,) of the test labels among the classes; raise a ValueError if one is not there."""
    test_classes, test_codes = as_classes(test_labels, m, "test_labels", "test_features")
    code_of = {label: code for code, label in enumerate(classes.tolist())}
    unknown = [label for label in test_classes.tolist() if label not in code_of]
    if unknown:
        raise ValueError(
            f"test_labels has classes that labels has not, {unknown[:5]}, and labels has {classes.tolist()[:5]}…; "
            "drop these test rows, or write the classes alike"
        )
    return np.array([code_of[label] for label in test_classes.tolist()])[test_codes]


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITER))
