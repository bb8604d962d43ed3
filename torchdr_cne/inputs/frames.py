"""What is no table of numbers is refused by name, before anything tries to convert it."""

import sys
from typing import Any

import numpy as np

from torchdr_cne.checks import check_unmasked


def check_container(X: Any) -> None:
    """Raise a TypeError or ValueError, with what to pass, if ``X`` holds a table but is none, or holds no numbers.

    Raises
    ------
    TypeError
        If ``X`` is an annotated table such as AnnData, a path, a mapping, or a set.
    ValueError
        If entries of a masked array are masked, or a column of a data frame is not of numbers.
    """
    if hasattr(X, "obsm") and hasattr(X, "X"):
        raise TypeError(
            f"X is {type(X).__name__}, which holds several tables; pass the one to embed, for instance "
            "adata.obsm['X_pca'] or adata.X."
        )
    if isinstance(X, (str, bytes)) or hasattr(X, "__fspath__"):
        raise TypeError(f"X is the path {X!r} and no table; pass torchdr_cne.open_rows({str(X)!r}), or an array.")
    if isinstance(X, (dict, set, frozenset)) and not hasattr(X, "shape"):  # SciPy has a sparse matrix that is a dict
        raise TypeError(f"X is a {type(X).__name__}; pass an array or a data frame of rows and columns.")
    check_unmasked(X, "X", "fill them with X.filled(…), or drop their rows")
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(X, pandas.DataFrame):
        _check_frame(X, pandas)
    if polars is not None and isinstance(X, polars.DataFrame):
        for name, dtype in X.schema.items():
            if not (dtype.is_numeric() or dtype == polars.Boolean):
                raise ValueError(
                    f"column {name!r} of X has dtype {dtype} and holds no numbers; leave it out with X.drop({name!r}), "
                    "or turn it into numbers."
                )


def _check_frame(X: Any, pandas: Any) -> None:
    """Raise a ValueError that names the first column of a pandas data frame that is not of numbers."""
    for place, name in enumerate(X.columns):
        column = X.iloc[:, place]
        if pandas.api.types.is_numeric_dtype(column.dtype) and isinstance(column.dtype, np.dtype):
            continue
        what = "no numbers"
        if isinstance(column.dtype, (pandas.CategoricalDtype, pandas.IntervalDtype)):
            bad, what = pandas.Series(True, column.index), "categories"
        elif pandas.api.types.is_datetime64_any_dtype(column.dtype) or column.dtype.kind == "m":
            bad, what = pandas.Series(True, column.index), "dates or times"
        else:
            bad = column.isna() | pandas.to_numeric(column, errors="coerce").isna()
            what = "empty" if bool(column.isna()[bad].all()) else "no numbers"
        if not bool(bad.any()):
            continue
        row = int(np.nonzero(bad.to_numpy())[0][0])
        whole = what in ("categories", "dates or times")
        found = f"holds {what}" if whole else f"has {int(bad.sum())} value(s) that are {what}"
        cell = column.iloc[row]
        shown = cell.item() if isinstance(cell, np.generic) else cell
        raise ValueError(
            f"column {name!r} of X (dtype {column.dtype}) {found}, first in row {row}: {shown!r}; leave it "
            f"out with X.drop(columns=[{name!r}]), or turn it into numbers."
        )
