"""scikit-learn's own estimator checks, for every method, with no expected failure."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from torchdr_cne import UMAP, InfoTSNE, NCVis, NegTSNE


@pytest.mark.filterwarnings("ignore:n_neighbors=.* needs more than:UserWarning")
@pytest.mark.filterwarnings("ignore:all rows of X are equal:UserWarning")
@pytest.mark.filterwarnings("ignore:the input graph has .* connected components:UserWarning")
@parametrize_with_checks([UMAP(max_iter=40), NegTSNE(max_iter=40), NCVis(max_iter=40), InfoTSNE(max_iter=40)])
def test_estimator_contract(estimator, check):
    check(estimator)
