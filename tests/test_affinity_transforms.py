"""Affinities composed with ``|``: what the named ones give, every order, functions of the user's own."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from tests.helpers import on_threads
from torchdr_cne import UMAP, NegTSNE, load
from torchdr_cne.affinity import (
    Affinity,
    Binary,
    ComposedAffinity,
    Connectivity,
    EntropicAffinity,
    Function,
    Neighbors,
    Normalize,
    Perplexity,
    Symmetrize,
    UMAPAffinity,
    UnionAffinity,
)
from torchdr_cne.affinity.transforms import _BLOCK
from torchdr_cne.neighbors import FaissConfig, kneighbors
from torchdr_cne.similarities import Cauchy, CosineExp, StudentT

X = load_digits().data[:600].astype(np.float32)
SCALES = pytest.mark.parametrize("scale", [1.0, 1 / 16, 1000.0], ids=["raw", "over-16", "times-1000"])
# Results of torch's pow differ by a bit within and behind whole vectors: a hard case for symmetry.
KERNEL = Function(lambda d: 1 / (1 + (d / 10) ** 2.2))
OWN = Neighbors(15) | KERNEL | Symmetrize("mean") | Normalize()
COMPOSED = {
    "entropic": Neighbors(30) | Perplexity(10) | Symmetrize("mean") | Normalize(),
    "fuzzy": Neighbors(14) | Connectivity() | Symmetrize("union"),
    "mixture": Neighbors(14) | Connectivity(1.5) | Symmetrize("union", set_op_mix_ratio=0.4) | Normalize("rows"),
    "union": Neighbors(15) | Binary() | Symmetrize("union"),
    "own": OWN,
    "own-of-a-graph": Neighbors(15) | Connectivity() | Symmetrize("mean") | Function(lambda w: w**1.3),
    "own-of-weights": Neighbors(30) | Perplexity(5) | Function(torch.sqrt) | Symmetrize("mean"),
}
each_composed = pytest.mark.parametrize("affinity", COMPOSED.values(), ids=COMPOSED)


def dense(graph):
    return graph.to_scipy().toarray()


def assert_same_bits(found, expected):
    assert torch.equal(found.indptr, expected.indptr)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.weights, expected.weights)


@SCALES
class TestNamedAffinities:
    @pytest.mark.parametrize(
        ("composed", "named"),
        [
            (COMPOSED["fuzzy"], UMAPAffinity(n_neighbors=15)),
            (
                Neighbors(9) | Connectivity(1.5) | Symmetrize("union", set_op_mix_ratio=0.4),
                UMAPAffinity(n_neighbors=10, local_connectivity=1.5, set_op_mix_ratio=0.4),
            ),
            (COMPOSED["union"], UnionAffinity(n_neighbors=15)),
            (Neighbors(14, "cosine") | Connectivity() | Symmetrize(), UMAPAffinity(metric="cosine")),
        ],
        ids=["fuzzy", "mixture", "union", "cosine"],
    )
    def test_compositions_give_their_graphs_bit_for_bit(self, scale, composed, named):
        assert_same_bits(composed(X * np.float32(scale)), named(X * np.float32(scale)))

    def test_the_entropic_one_divides_by_n_and_the_composition_by_the_sum(self, scale):
        found, expected = COMPOSED["entropic"](X * scale), EntropicAffinity(perplexity=10)(X * scale)
        assert torch.equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-13)

    def test_every_row_has_the_perplexity(self, scale):
        affinity = Neighbors(90) | Perplexity(30) | Symmetrize("mean")
        p = affinity.directed_weights(kneighbors(X * scale, 90))
        np.testing.assert_allclose(torch.special.entr(p).sum(dim=1).exp(), 30, rtol=1e-4)


@each_composed
class TestEveryComposition:
    def test_the_graph_is_symmetric_to_the_bit_and_positive(self, affinity):
        graph = affinity(X)
        weights = dense(graph)
        np.testing.assert_array_equal(weights, weights.T)
        assert (graph.weights > 0).all()
        assert torch.isfinite(graph.weights).all()
        assert (weights.diagonal() == 0).all()

    def test_it_is_pure(self, affinity):
        neighbors = kneighbors(X, affinity.n_neighbors)
        distances = neighbors.distances.clone()
        first = affinity(X)
        affinity(X[::2] + 1)
        affinity.directed_weights(neighbors)
        assert_same_bits(affinity.from_neighbors(neighbors), first)
        assert torch.equal(neighbors.distances, distances)

    def test_any_number_of_threads_gives_the_same_bits(self, affinity):
        data = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
        neighbors = kneighbors(data, affinity.n_neighbors)
        graphs = on_threads(lambda: affinity.from_neighbors(neighbors))
        for graph in graphs[1:]:
            assert_same_bits(graph, graphs[0])

    def test_it_is_an_affinity_as_scikit_learn_knows_estimators(self, affinity):
        copy = clone(affinity)
        assert isinstance(copy, Affinity)
        assert copy.get_params() == affinity.get_params()
        copy.set_params(metric="cosine", n_neighbors=9)
        assert (affinity.metric, repr(affinity) == repr(copy)) == ("euclidean", False)
        directed = kneighbors(X, 9, metric="cosine").indices.long()
        neighbors = torch.zeros(600, 600, dtype=torch.bool).scatter_(1, directed, True)
        edges = torch.from_numpy(dense(copy(X)) > 0)
        assert bool((neighbors | neighbors.T)[edges].all())

    def test_a_fit_uses_its_graph(self, affinity):
        graph = NegTSNE(affinity_in=affinity, max_iter=1, random_state=0).fit(X).graph_
        assert abs(graph - affinity(X).to_scipy()).max() == 0


class TestSteps:
    def test_the_mean_and_the_union_are_their_formulas(self):
        neighbors = kneighbors(X, 14)
        directed = np.zeros((600, 600), dtype=np.float32)
        weights = COMPOSED["fuzzy"].directed_weights(neighbors).numpy()
        np.put_along_axis(directed, neighbors.indices.numpy().astype(int), weights, axis=1)
        mean = Neighbors(14) | Connectivity() | Symmetrize("mean")
        mixture = Neighbors(14) | Connectivity() | Symmetrize("union", set_op_mix_ratio=0.25)
        both = directed * directed.T
        np.testing.assert_array_equal(dense(mean(X)), (directed + directed.T) / 2)
        np.testing.assert_allclose(dense(COMPOSED["fuzzy"](X)), directed + directed.T - both, atol=1e-6)
        np.testing.assert_allclose(dense(mixture(X)), 0.25 * (directed + directed.T - both) + 0.75 * both, atol=1e-6)

    def test_normalized_weights_sum_to_1_or_rows_do_in_the_mean(self):
        fuzzy = COMPOSED["fuzzy"]
        assert dense((fuzzy | Normalize())(X)).sum(dtype=float) == pytest.approx(1, abs=1e-6)
        rows = dense((fuzzy | Normalize("rows"))(X)).sum(axis=1, dtype=float)
        assert rows.mean() == pytest.approx(1, abs=1e-6)
        assert rows.std() > 0.1

    @pytest.mark.parametrize(
        ("similarity", "formula"),
        [
            (Cauchy(), lambda d: 1 / (1 + d**2)),
            (StudentT(0.5), lambda d: (1 + d**2 / 0.5) ** -0.5),
            (Cauchy(1.5, 0.9, floor=0), lambda d: 1 / (1 + 1.5 * d**1.8)),
        ],
        ids="cauchy student-t own-cauchy".split(),
    )
    def test_a_similarity_of_the_embedding_serves_as_a_function_of_distances(self, similarity, formula):
        neighbors = kneighbors(X / 16, 15)
        found = (Neighbors(15) | Function(similarity) | Symmetrize()).directed_weights(neighbors)
        np.testing.assert_allclose(found, formula(neighbors.distances.double()), rtol=1e-5)

    def test_a_function_says_which_neighbors_are_near(self):
        ball = Neighbors(15) | Function(lambda d: d < 20) | Symmetrize()
        distances = np.linalg.norm(X[:, None] - X[None], axis=2)
        rows, columns = ball(X).to_scipy().nonzero()
        assert (distances[rows, columns] < 20.001).all()
        assert 0 < len(rows) < UnionAffinity()(X).n_edges

    def test_transforms_of_symmetric_weights_are_taken_once_they_are_symmetric(self):
        fuzzy = COMPOSED["fuzzy"]
        squared = fuzzy | Function(torch.square)
        np.testing.assert_allclose(dense(squared(X)), dense(fuzzy(X)) ** 2, rtol=1e-6)
        neighbors = kneighbors(X, 14)
        assert torch.equal(squared.directed_weights(neighbors), fuzzy.directed_weights(neighbors))

    def test_all_equal_rows_have_equal_weights_and_rows_too_far_from_each_other_none(self):
        weights = OWN(np.full((60, 3), 0.1)).weights
        assert weights.max() <= 2 * weights.min()
        with pytest.raises(ValueError, match="gives no edge any weight; let its function be above 0 for some"):
            OWN(X.astype(np.float64) * 1e200)

    def test_too_few_rows_are_told_with_the_users_parameter(self):
        with pytest.warns(UserWarning, match="n_neighbors=15 needs more than 15 samples, got 6; all 5"):
            assert OWN(X[:6]).n_edges == 30


class TestComposition:
    def test_it_is_associative_and_chains_are_kept_for_several_sources(self):
        a, b, c, d = Neighbors(15), KERNEL, Symmetrize("mean"), Normalize()
        forms = [((a | b) | c) | d, a | (b | (c | d)), (a | b) | (c | d), a | ((b | c) | d), (a | (b | c)) | d]
        for form in forms:
            assert isinstance(form, ComposedAffinity)
            assert form.get_params() == forms[0].get_params()
            assert_same_bits(form(X), forms[0](X))
        rescale = Connectivity() | Symmetrize("union")
        assert_same_bits((Neighbors(14) | rescale)(X), UMAPAffinity()(X))
        assert_same_bits((Neighbors(14, metric="manhattan") | rescale)(X), UMAPAffinity(metric="manhattan")(X))

    def test_it_reads_as_it_was_written(self):
        composed = Neighbors(14) | Connectivity() | Function(torch.sqrt) | Symmetrize()
        assert repr(composed) == (
            "Neighbors(n_neighbors=14, metric='euclidean', backend='auto') | Connectivity(local_connectivity=1.0) | "
            "Function(sqrt) | Symmetrize(rule='union', set_op_mix_ratio=1.0)"
        )
        assert eval(repr(composed).replace("sqrt", "torch.sqrt")).get_params() == composed.get_params()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: Connectivity() | Symmetrize() | Perplexity(),
                r"Perplexity.* cannot follow Symmetrize",
            ),
            (lambda: Neighbors() | Neighbors(), "Neighbors.* cannot follow Neighbors.* it takes rows of data"),
            (lambda: OWN | Neighbors(), "Neighbors.* cannot follow Normalize"),
            (lambda: OWN | OWN, "Neighbors.* cannot follow Normalize"),
            (lambda: OWN | Symmetrize(), "takes directed weights and gets a symmetric graph; the order is Neighbors"),
            (lambda: Neighbors() | Symmetrize(), "takes directed weights and gets distances"),
            (lambda: Neighbors() | Normalize(), "takes a symmetric graph and gets distances"),
            (lambda: Perplexity() | Connectivity(), "takes distances of neighbours and gets directed weights"),
            (lambda: (Binary() | Symmetrize()) | (Binary() | Symmetrize()), "Binary.* cannot follow Symmetrize"),
        ],
        ids="calibrated-late two-sources source-last whole-twice twice no-weights unsymmetric twice-calibrated".split()
        + ["chains"],
    )
    def test_an_order_without_sense_is_refused_when_it_is_composed(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        ("part", "remedy"),
        [
            (Neighbors() | Binary(), r"gives directed weights of rows of data; end with Symmetrize\(…\)"),
            (Binary() | Symmetrize(), r"a symmetric graph of distances of neighbours; begin with Neighbors\(…\)"),
            (ComposedAffinity(transforms=(Binary(),)), r"end with Symmetrize\(…\)"),
            (ComposedAffinity(transforms=(Symmetrize(), Binary())), "each step has to take what the one before gives"),
        ],
        ids=["no-end", "no-source", "parameters", "order-of-parameters"],
    )
    def test_a_part_is_no_affinity(self, part, remedy, monkeypatch):
        monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", lambda *a, **k: pytest.fail("searched"))
        with pytest.raises(ValueError, match=f"is not an affinity: .*{remedy}"):
            part(X)
        with pytest.raises(ValueError, match=r"is not an affinity|from Neighbors\(…\) to Symmetrize\(…\)"):
            UMAP(affinity_in=part).fit(X)

    def test_only_steps_are_joined(self):
        with pytest.raises(TypeError, match="unsupported operand"):
            Neighbors() | torch.sqrt

    def test_transforms_are_frozen(self):
        with pytest.raises(AttributeError, match="cannot assign to field 'perplexity'"):
            Perplexity(30).perplexity = 5

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Perplexity(1), "perplexity=1 must be greater than 1"),
            (lambda: Connectivity(-1), "local_connectivity=-1 must be at least 0"),
            (lambda: Symmetrize("max"), "rule='max' is unknown; choose 'union' or 'mean'"),
            (lambda: Symmetrize(set_op_mix_ratio=2), r"set_op_mix_ratio=2 must lie in \[0, 1\]"),
            (lambda: Symmetrize("mean", set_op_mix_ratio=0.5), "set_op_mix_ratio=0.5 is for rule='union'"),
            (lambda: Normalize("max"), "to='max' is unknown; choose 'total' or 'rows'"),
            (lambda: Function(3), "function=3 is no function of one tensor"),
            (lambda: Function(CosineExp()), "CosineExp.* is no function of one tensor"),
            (lambda: (Neighbors(0) | Binary() | Symmetrize())(X), "n_neighbors=0 must be an integer of at least 1"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_impossible_parameters_are_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestFunctions:
    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda d: -d, r"Function\(<lambda>\) gives -.* for .*; weights must be finite and >= 0"),
            (lambda d: torch.where(d > 20, torch.nan, 1.0), "gives nan for 2"),
            (lambda d: 1 / (d - d), "gives inf for"),
            (lambda d: d.sum(), r"returned shape \(\) for a tensor of shape \(4096,\)"),
            (lambda d: d[:-1], r"returned shape \(4095,\)"),
            (lambda d: d.tolist(), "returned list for a tensor"),
            (lambda d: d + 1j, r"returned shape \(4096,\).*one real weight"),
            (lambda d: (-d / d.mean()).exp(), "gives a value another weight among other values"),
            (lambda d: d / d.max(), "gives a value another weight among other values"),
            (lambda d: 0 * d, "gives no edge any weight"),
        ],
        ids="negative nan infinite sum shorter list complex mean maximum zero".split(),
    )
    def test_what_is_no_weight_is_refused(self, function, message):
        with pytest.raises(ValueError, match=message):
            (Neighbors(15) | Function(function) | Symmetrize("mean"))(X)

    def test_the_union_takes_weights_of_at_most_1(self):
        with pytest.raises(ValueError, match=r"Symmetrize\('union'\) takes weights of at most 1, got .*; use"):
            (Neighbors(15) | Function(lambda d: d) | Symmetrize())(X)

    def test_it_may_change_its_argument_and_learn_nothing(self):
        layer = torch.nn.Hardtanh(0, 1, inplace=True)
        affinity = Neighbors(15) | Function(layer) | Symmetrize()
        neighbors = kneighbors(X / 16, 15)
        before = neighbors.distances.clone()
        np.testing.assert_array_equal(affinity.directed_weights(neighbors), before.clamp(0, 1))
        assert torch.equal(neighbors.distances, before)

    def test_equal_values_have_equal_weights_wherever_they_are(self):
        first = 3 * torch.rand(2 * _BLOCK, generator=torch.Generator().manual_seed(0))
        power = Function(lambda d: d**2.2)
        found = power.apply(torch.cat([first, first[:7]]), kneighbors(X, 3))
        assert torch.equal(found[-7:], found[:7])
        alone = torch.cat([power.apply(value, kneighbors(X, 3)) for value in first[:100].split(1)])
        assert torch.equal(found[:100], alone)


class TestKeeping:
    @pytest.mark.parametrize(
        "affinity",
        [
            Neighbors(20, "cosine", FaissConfig(recall=0.9)) | Perplexity(6.5) | Symmetrize("mean") | Normalize("rows"),
            Neighbors(8) | Connectivity(1.5) | Symmetrize("union", set_op_mix_ratio=0.3),
            Neighbors(8) | Function(StudentT(0.5)) | Symmetrize(),
        ],
        ids=["entropic", "fuzzy", "student"],
    )
    def test_a_saved_estimator_comes_back_with_it(self, affinity, tmp_path):
        UMAP(affinity_in=affinity, max_iter=2, random_state=0).fit(X).save(tmp_path / "model")
        loaded = load(tmp_path / "model").affinity_in
        assert type(loaded) is ComposedAffinity
        assert loaded.get_params() == affinity.get_params()
        assert_same_bits(loaded(X), affinity(X))

    def test_a_function_of_ones_own_cannot_be_saved(self, tmp_path):
        estimator = UMAP(affinity_in=OWN, max_iter=2, random_state=0).fit(X)
        with pytest.raises(ValueError, match=r"affinity_in.transforms.0.function is a builtins.function, which cannot"):
            estimator.save(tmp_path / "model")

    def test_a_checkpoint_knows_a_function_by_its_values(self, tmp_path):
        def fit(function, **parameters):
            affinity = Neighbors(15) | Function(function) | Symmetrize("mean")
            options = {"max_iter": 10, "random_state": 0, "checkpoint_dir": tmp_path, **parameters}
            return NegTSNE(affinity_in=affinity, **options).fit(X)

        first = fit(lambda d: 1 / (1 + d))
        again = fit(lambda d: (1 + d) ** -1.0)
        np.testing.assert_array_equal(again.embedding_, first.embedding_)
        with pytest.raises(ValueError, match="affinity_in"):
            fit(lambda d: 1 / (1 + d**2))
