"""Whether distances between rows are those of a single column, because the columns have different units."""

import warnings

import torch

from torchdr_cne.inputs import Rows
from torchdr_cne.inputs.columns import Columns

_ROWS, _MOST, _UNCORRELATED = 4096, 0.95, 0.05
"""Number of rows that are looked at, the fraction of the variance that one column may have, and the greatest
correlation of principal components, of which the first may have almost all of it."""
_ALMOST, _ROUNDED = 1.1, 1e-9
"""Factor by which variances of some rows may ascend where those of all descend, and the fraction of the largest below
which a variance is that of rounding errors."""


def warn_of_unscaled(rows: Rows, metric: str, columns: Columns) -> None:
    """Warn, with its name, of a column that has more than 95 % of the variance, unless it is a principal component.

    Parameters
    ----------
    rows : Rows
        The rows that will be compared; those that stay in their file are not looked at.
    metric : str
        Their distance; only the Euclidean one sums squares of all columns.
    columns : Columns
        Number and names of the columns.
    """
    if metric != "euclidean" or not rows.in_memory or rows.n_columns < 3 or len(rows.share) < 2:
        return
    step = -(-len(rows.share) // _ROWS)
    some = rows.values[::step].double()
    some = some - some.mean(dim=0)
    spread = some.square().sum(dim=0)
    largest, total = int(spread.argmax()), float(spread.sum())
    part = float(spread[largest]) / total if total > 0 else 0.0
    if part <= _MOST or _are_principal_components(some, spread):
        return
    names = columns.feature_names_in
    name = largest if names is None else repr(str(names[largest]))
    warnings.warn(
        f"column {name} of X has {100 * part:.1f} % of the variance, so that distances are almost those in this column "
        "alone; scale the columns, for instance by sklearn.preprocessing.StandardScaler, if their units differ.",
        UserWarning,
        stacklevel=6,
    )


def _are_principal_components(centred: torch.Tensor, spread: torch.Tensor) -> bool:
    """Return whether variances descend, and the first column is correlated with none of the others."""
    if bool((spread[1:] > _ALMOST * spread[:-1] + _ROUNDED * spread[0]).any()):
        return False
    seen = spread[1:] > _ROUNDED * spread[0]
    lengths = (spread[0] * spread[1:][seen]).sqrt()
    correlations = (centred[:, :1] * centred[:, 1:][:, seen]).sum(dim=0) / lengths
    return bool((correlations.abs() < _UNCORRELATED).all())
