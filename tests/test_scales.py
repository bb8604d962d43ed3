"""A column in other units, which distances would be made of alone, gives one warning; ordinary tables give none."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from torchdr_cne import NegTSNE
from torchdr_cne.fitting.scales import warn_of_unscaled
from torchdr_cne.inputs import as_rows
from torchdr_cne.inputs.columns import Columns

WINE = datasets.load_wine()
SHARE = r"has 99\.8 % of the variance, so that distances are almost those in this column alone; scale the columns, for"


def check(X, metric="euclidean", names=None):
    columns = Columns(X.shape[1], names)
    warn_of_unscaled(as_rows(np.ascontiguousarray(X), center=metric != "cosine"), metric, columns)


def fitted(X, **options):
    return NegTSNE(**{"max_iter": 2, "n_neighbors": 12, "random_state": 0, **options}).fit(X)


def test_the_column_is_named_once_by_its_number_or_its_name():
    with pytest.warns(UserWarning, match=f"column 12 of X {SHARE}") as caught:
        fitted(WINE.data)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=f"column 'proline' of X {SHARE}"):
        fitted(pd.DataFrame(WINE.data, columns=WINE.feature_names))
    with pytest.warns(UserWarning, match=f"column 12 of X {SHARE}"):
        fitted(torch.from_numpy(WINE.data))


def test_scaled_columns_and_other_distances_and_graphs_that_are_given_say_nothing():
    fitted(StandardScaler().fit_transform(WINE.data))
    fitted(WINE.data, metric="cosine")
    with pytest.warns(UserWarning, match="StandardScaler"):
        graph = fitted(WINE.data).graph_
    NegTSNE(max_iter=2, random_state=0).fit(WINE.data, graph=graph)


@pytest.mark.parametrize(
    "X",
    [
        datasets.load_digits().data,
        datasets.load_iris().data,
        datasets.load_breast_cancer().data,
        datasets.load_diabetes().data,
        datasets.make_swiss_roll(500, random_state=0)[0],
        datasets.make_s_curve(500, random_state=0)[0],
        datasets.make_blobs(500, 5, random_state=0)[0],
        np.ones((50, 5)),
        np.random.default_rng(0).normal(size=(500, 2)) * [100, 1],
        np.eye(40),
    ],
    ids=lambda X: str(X.shape),
)
def test_ordinary_tables_give_no_warning(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(X)


@pytest.mark.parametrize("n", [178, 20_000])
def test_principal_components_may_have_almost_all_variance_in_the_first(n):
    rng = np.random.default_rng(0)
    scores = PCA().fit_transform(WINE.data if n == 178 else rng.normal(size=(n, 30)) * 0.2 ** np.arange(30) * 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(scores)
    with pytest.warns(UserWarning, match="column 3 of X"):
        check(np.roll(scores, 3, axis=1))
