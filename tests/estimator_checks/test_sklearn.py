"""scikit-learn's own estimator checks, for every method, with no expected failure."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from torchdr_cne import (
    COSNE,
    PACMAP,
    SNE,
    TSNE,
    UMAP,
    InfoTSNE,
    LargeVis,
    LearnedMap,
    NCVis,
    NegTSNE,
    ParametricTSNE,
    ParametricUMAP,
    SupervisedContrastive,
    TSNEkhorn,
)


@pytest.mark.filterwarnings("ignore:n_neighbors=.* needs more than:UserWarning")
@pytest.mark.filterwarnings("ignore:perplexity=.* needs more than:UserWarning")
@pytest.mark.filterwarnings("ignore:all rows of X are equal:UserWarning")
@pytest.mark.filterwarnings("ignore:the input graph has .* connected components:UserWarning")
@parametrize_with_checks(
    [
        UMAP(max_iter=40),
        NegTSNE(max_iter=40),
        NCVis(max_iter=40),
        InfoTSNE(max_iter=40),
        LargeVis(max_iter=40),
        PACMAP(max_iter=40),
        TSNE(max_iter=40),
        SNE(max_iter=40),
        COSNE(max_iter=20),
        TSNEkhorn(max_iter=20),
        NegTSNE(encoder=(16,), max_iter=10),
        LearnedMap(encoder=(16,), max_iter=10),
        ParametricUMAP(encoder=(16,), max_iter=10, pretrain_iter=5),
        ParametricTSNE(encoder=(16,), max_iter=10, pretrain_iter=5, perplexity=5),
        SupervisedContrastive(encoder=(16,), n_epochs=1, n_components=4),
    ]
)
def test_estimator_contract(estimator, check):
    check(estimator)
