"""scikit-learn's own estimator checks, for every method, with no expected failure.

One method of each base class is checked by `make test`: what the checks look at, its methods inherit.
"""

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

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}:UserWarning")
    for start in (
        "n_neighbors=.* needs more than",
        "perplexity=.* needs more than",
        "all rows of X are equal",
        "the input graph has .* connected components",
    )
]


@parametrize_with_checks(
    [
        UMAP(max_iter=10),
        PACMAP(max_iter=10),
        TSNE(max_iter=10),
        NegTSNE(encoder=(16,), max_iter=10),
        LearnedMap(encoder=(16,), max_iter=10),
        SupervisedContrastive(encoder=(16,), n_epochs=1, n_components=4),
    ]
)
def test_a_method_of_each_base_class_keeps_the_contract_of_estimators(estimator, check):
    check(estimator)


@pytest.mark.repetition
@parametrize_with_checks(
    [
        NegTSNE(max_iter=40),
        NCVis(max_iter=40),
        InfoTSNE(max_iter=40),
        LargeVis(max_iter=40),
        SNE(max_iter=40),
        COSNE(max_iter=20),
        TSNEkhorn(max_iter=20),
        ParametricUMAP(encoder=(16,), max_iter=10, pretrain_iter=5),
        ParametricTSNE(encoder=(16,), max_iter=10, pretrain_iter=5, perplexity=5),
    ]
)
def test_every_other_method_keeps_the_contract_of_estimators(estimator, check):
    check(estimator)
