"""Number and names of the columns of the data of a fit."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Columns:
    """Number and names of features, as in scikit-learn.

    Attributes
    ----------
    n_features_in : int or None
        Number of values in a row; None if it is not known.
    feature_names_in : ndarray of str or None
        Names of the columns of a data frame.
    input_shape : tuple of int or None
        Shape of a row if the data come in pairs.
    """

    n_features_in: int | None = None
    feature_names_in: np.ndarray | None = None
    input_shape: tuple[int, ...] | None = None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that are known, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}
