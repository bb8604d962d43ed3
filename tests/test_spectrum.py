"""The attraction–repulsion spectrum of any method."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from torchdr_cne import TSNE, UMAP, AffinityMatcher, InfoTSNE, LargeVis, NCVis, NegTSNE, spectrum

X, Y = load_digits(return_X_y=True)
X, Y = X[:600], Y[:600]


@pytest.mark.parametrize("method", [NegTSNE(n_negatives=1), InfoTSNE(), NCVis(), UMAP(), TSNE()])
def test_more_attraction_makes_a_smaller_map(method):
    maps = spectrum.sweep(method.set_params(random_state=0, max_iter=150), X, s=(0, 1, 2))
    # The median: under a 16-fold attraction t-SNE leaves single digits, without close neighbours, far outside.
    centred = [maps[s].embedding_ - np.median(maps[s].embedding_, axis=0) for s in (0, 1, 2)]
    spread = [np.median(np.linalg.norm(z, axis=1)) for z in centred]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 1.2 * spread[-1]


def test_s_is_the_exaggeration_four_to_the_s_where_a_method_has_no_other():
    maps = spectrum.sweep(LargeVis(perplexity=10, max_iter=5, random_state=0), X, s=(0.5,))
    assert maps[0.5].exaggeration == 2.0
    alone = LargeVis(perplexity=10, max_iter=5, random_state=0, exaggeration=2.0).fit(X)
    np.testing.assert_array_equal(maps[0.5].embedding_, alone.embedding_)


@pytest.mark.parametrize("given", [{"s": 0.3}, {"exaggeration": 2.0}])
def test_where_on_the_spectrum_a_method_stood_before_does_not_matter(given):
    settings = {"max_iter": 3, "random_state": 0}
    (swept,) = spectrum.sweep(InfoTSNE(**given, **settings), X, s=(1,)).values()
    np.testing.assert_array_equal(swept.embedding_, InfoTSNE(exaggeration=4.0, **settings).fit(X).embedding_)


def test_one_graph_serves_all_places_and_the_method_itself_is_not_fitted():
    method = NegTSNE(n_negatives=1, max_iter=3, random_state=0)
    maps = spectrum.sweep(method, X, s=(0, 1))
    assert (maps[0].graph_ != maps[1].graph_).nnz == 0
    assert not hasattr(method, "embedding_")
    assert method.s is None


def test_the_pictures_are_one_row_with_a_title_each():
    maps = spectrum.sweep(NegTSNE(n_negatives=1, max_iter=3, random_state=0), X, s=(0, 0.5, 1))
    figure = spectrum.pictures(maps, Y)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["s = 0", "s = 0.5", "s = 1"]
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes[:3]}) == 1


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(TypeError, match="AffinityMatcher has no attraction and repulsion to weigh; pass"):
        spectrum.sweep(AffinityMatcher(), X)
    with pytest.raises(ValueError, match="s is empty; pass at least one"):
        spectrum.sweep(NegTSNE(), X, s=())
