"""Learned maps: phases in order, losses that add, checkpoints and files."""

import json
import math
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn
from torch.utils.data import DataLoader

from tests.helpers import interrupt_at
from torchdr_cne import UMAP, Every, InfoTSNE, LearnedMap, NCVis, NegTSNE, ParametricTSNE, ParametricUMAP, load, losses
from torchdr_cne.affinity import EntropicAffinity, Function, Neighbors, Symmetrize, UMAPAffinity, UnionAffinity
from torchdr_cne.evaluation import knn_accuracy
from torchdr_cne.networks.objective import NetworkObjective, evaluated
from torchdr_cne.parametric import (
    Classification,
    Loss,
    Phase,
    Position,
    PositivePairs,
    Reconstruction,
    Relation,
    WeightedSum,
)
from torchdr_cne.similarities import Cauchy, CosineExp, StudentT

DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS = DIGITS.astype(np.float32)
X, Y = DIGITS[:300], CLASSES[:300]


def make(*phases, method=LearnedMap, **options):
    common = {"random_state": 0, "batch_size": 128, "check_interval": 5}
    return method(**({"phases": list(phases)} if phases else {}), **{**common, **options})


def own_module(seed=1, width=16):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 2)
        return nn.Sequential(*layers)


def assert_same_state(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture
def batch_of(monkeypatch):
    """Return a function that gives a fit's first mini-batch and its losses, in double precision."""

    def first(loss, data=X, labels=None, *, options=None, **phase):
        seen = []

        def spy(terms, batch):
            found = evaluated(terms, batch)
            seen.append((batch, {name: value.item() for name, value in found.items()}))
            return found

        with monkeypatch.context() as patch:
            patch.setattr("torchdr_cne.networks.objective.evaluated", spy)
            settings = {"dtype": "float64", **(options or {})}
            fitted = make(Phase(1, loss, learning_rate=1e-30, **phase), **settings).fit(data, labels)
        batch, found = seen[0]
        for learned in batch.state.learned.values():
            learned.data.zero_()  # as in the step
        return batch, found, fitted

    return first


# ---- phases -----------------------------------------------------------------------------------------------


def test_phases_follow_each_other_with_their_own_optimisers_rates_and_schedules(monkeypatch):
    seen = []
    compute = NetworkObjective.compute_gradients

    def spy(self, state):
        seen.append((state.step, state.phase.optimizer, sorted(self.parameters)[0].split(".")[0]))
        compute(self, state)

    monkeypatch.setattr(NetworkObjective, "compute_gradients", spy)
    phases = [
        Phase(4, Position("pca"), optimizer="SGD", learning_rate=0.1, scheduler="CosineAnnealingLR", report_interval=1),
        Phase(3, Relation("umap"), optimizer="AdamW", optimizer_kwargs={"weight_decay": 0.1}, report_interval=1),
        Phase(5, Relation("negative_sampling"), learning_rate=0.01, report_interval=2),
    ]
    fitted = make(*phases).fit(X)
    assert seen == [(s, "SGD", "encoder") for s in range(4)] + [(s, "AdamW", "encoder") for s in range(4, 7)] + [
        (s, None, "encoder") for s in range(7, 12)
    ]
    history = fitted.history_
    assert history["step"] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]
    cosine = 0.1 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    linear = 1 - np.array([4, 5, 6, 7, 9, 11]) / 12  # the estimator's own schedule spans all phases
    expected = [*cosine, *(3e-3 * linear[:3]), *(0.01 * linear[3:])]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(history["position_loss"]), [False] * 4 + [True] * 6)


def test_epochs_are_counted_in_mini_batches_of_items_or_edges():
    items = make(Phase(n_epochs=2, loss=Position("pca"), batch_size=100)).fit(X)
    assert items.n_iter_ == 6
    shorter = make(Phase(n_epochs=2, loss=Position("pca"), batch_size=100, batches_per_epoch=2)).fit(X)
    assert shorter.n_iter_ == 4
    edges = make(Phase(n_epochs=1, loss=Relation("umap"), batch_size=1000)).fit(X)
    assert edges.n_iter_ == math.ceil(edges.graph_.nnz / 1000)


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        (None, {"encoder.0", "encoder.1", "encoder.4", "decoder"}),
        ("encoder", {"encoder.0", "encoder.1", "encoder.4"}),
        ("decoder", {"decoder"}),
        (["encoder.0.weight", "encoder.4"], {"encoder.0", "encoder.4"}),
        (lambda name: name.endswith("bias"), {"encoder.0", "encoder.1", "encoder.4", "decoder"}),
    ],
    ids=["all", "encoder", "decoder", "names", "function"],
)
def test_a_phase_moves_what_it_names_and_nothing_else(trainable, moved):
    module, decoder = own_module(), nn.Linear(2, 64)
    loss = Relation("umap") + Reconstruction()
    fitted = make(Phase(3, loss, trainable=trainable), encoder=module, decoder=decoder).fit(X)
    before = dict(nn.ModuleDict({"encoder": module, "decoder": decoder}).named_parameters())
    networks = nn.ModuleDict({"encoder": fitted.encoder_, "decoder": fitted.decoder_})
    names = {name for name, value in networks.named_parameters() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in names} == moved
    if callable(trainable):
        assert all(name.endswith("bias") for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "n_iter=None and n_epochs=None: give a phase one of the two"),
        ({"n_iter": 3, "n_epochs": 2}, "n_iter=3 and n_epochs=2: give a phase one of the two"),
        ({"n_iter": 0}, "n_iter=0 of a phase must be an integer >= 1"),
        ({"n_iter": 3, "batch_size": 0}, "batch_size=0 of a phase must be an integer >= 1"),
        ({"n_iter": 3, "learning_rate": -1.0}, "learning_rate=-1.0 of a phase must be a number > 0"),
        ({"n_iter": 3, "sampling": "rows"}, "sampling='rows' is unknown; choose one of None, 'edges'"),
        ({"n_iter": 3, "negatives": "none"}, "negatives='none' is unknown"),
    ],
)
def test_phases_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Phase(**options)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (3, r"phases=3 must be a sequence of Phase, such as \[Phase\(500"),
        ([Relation("umap")], r"must be a sequence of Phase"),
        ([Phase(3, "umap")], "the loss of phase 0 is 'umap'; give a Loss such as Relation"),
        ([Phase(3, trainable="decoder")], "phase 0 trains nothing: trainable='decoder' names none of the parameters"),
        ([Phase(3), Phase(3, trainable=lambda name: False)], "phase 1 trains nothing"),
        (
            [Phase(3), Phase(3, trainable=["encoder", "typo"])],
            r"trainable=\['encoder', 'typo'\] of phase 1 names 'typo', and no parameter is called so",
        ),
        ([Phase(3), Phase(3, optimizer="Adamm")], "optimizer='Adamm' is unknown"),
        ([Phase(3), Phase(3, scheduler="Cosine")], "scheduler='Cosine' is unknown"),
        ([Phase(3, Relation("umap") + Relation("kl"))], "need both edges and items; put them into phases of their own"),
        ([Phase(3, Relation("umap"), sampling="items")], "samples items, and its losses need edges; set sampling"),
        ([Phase(3, Relation("kl"), sampling="weighted edges")], "samples weighted edges, and its losses need items"),
        ([Phase(3, Classification())], r"Classification needs labels; call fit\(X, y\)"),
        ([Phase(3, Reconstruction())], "Reconstruction needs a decoder; set decoder='mlp'"),
    ],
)
def test_phases_that_do_not_fit_are_refused_before_any_work(phases, message, monkeypatch):
    monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", lambda *a, **k: pytest.fail("searched"))
    monkeypatch.setattr(NetworkObjective, "compute_gradients", lambda *a, **k: pytest.fail("stepped"))
    with pytest.raises(ValueError, match=message):
        make(phases=phases).fit(X)


# ---- losses add -------------------------------------------------------------------------------------------


def test_losses_add_and_weights_multiply_out():
    a, b, c = Relation("umap"), Classification(), Position("pca")
    total = 0.5 * (a + 2 * b) + c * 3
    assert total == WeightedSum(((0.5, a), (1.0, b), (3.0, c)))
    assert a + b + c == (a + b) + c == a + (b + c)
    assert 2 * a == a * 2 == np.float32(2) * a
    assert a.terms() == ((1.0, a),)


def test_a_sum_has_the_same_value_in_any_order(batch_of):
    parts = Position("pca"), 0.3 * Classification(), 2 * Position(np.zeros((300, 2)) + X[:, 10:12] / 10)
    values = []
    for order in ((0, 1, 2), (2, 0, 1)):
        first, *others = (parts[i] for i in order)
        total = sum(others, start=first)
        batch, found, _ = batch_of(total, labels=Y)
        values.append(found["loss"])
        assert total.bind(batch.training)(batch).item() == pytest.approx(found["loss"], rel=1e-12)
        assert {"position_loss", "classification_loss", "position_2_loss", "loss"} == set(found)
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("weight", [-1, -0.5, math.inf, math.nan])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(ValueError, match=f"a loss was multiplied by {weight!r}; weights must be numbers >= 0"):
        weight * Position("pca")


@pytest.mark.parametrize("other", [3, "umap", None])
def test_only_losses_add(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        Position("pca") + other


@pytest.mark.parametrize("loss", ["tsne", 3, None, UMAP])
def test_an_unknown_relation_is_refused_with_the_choices(loss):
    with pytest.raises(
        ValueError, match=r"is unknown; choose one of \(.*'umap', .*'cross_entropy'\), or pass a sampled"
    ):
        Relation(loss)


@pytest.mark.parametrize(
    ("make_loss", "message"),
    [
        (lambda: Relation("umap", affinity="umap"), r"affinity='umap' of a Relation must be an Affinity such as"),
        (lambda: Relation("umap", similarity="cauchy"), r"similarity='cauchy' of a Relation must be a Similarity"),
        (lambda: Relation("umap", n_negatives=0), r"n_negatives=0 of a Relation must be an integer >= 1 or None"),
        (lambda: Position("tsne"), r"Position\(target='tsne'\) is unknown; choose 'pca' or 'spectral', or give"),
    ],
)
def test_losses_check_their_parameters_where_they_are_given(make_loss, message):
    with pytest.raises(ValueError, match=message):
        make_loss()


def test_a_function_as_affinity_belongs_to_all_pairs():
    with pytest.raises(ValueError, match="a function as affinity is one of all pairs; choose loss='kl'"):
        Relation("umap", affinity=lambda rows: rows @ rows.T)


class Shrinking(Loss):
    """A loss of one's own: the mean squared distance from the origin."""

    name = "shrinking"

    def bind(self, training):
        return lambda batch: batch.z.square().mean()


def test_a_loss_of_one_s_own_is_three_lines():
    wide = make(Phase(60, Position("pca"))).fit(X)
    narrow = make(Phase(60, Position("pca") + 5 * Shrinking())).fit(X)
    assert narrow.embedding_.std() < 0.5 * wide.embedding_.std()
    assert "shrinking_loss" in narrow.history_


# ---- relations by edges -----------------------------------------------------------------------------------


def numpy_pairs(batch, similarity="cauchy", a=1.0, b=1.0, floor=0.0):
    """Return log q of edges (E,) and of negatives (E, M), −inf where an end meets itself or the other."""
    z, draw = batch.z.detach().numpy(), batch.draw
    heads, tails, negatives, ids = (value.numpy() for value in (draw.heads, draw.tails, draw.negatives, draw.ids))
    negatives = np.broadcast_to(negatives, (len(heads), negatives.shape[-1]))

    def log_q(first, second):
        d2 = np.square(first - second).sum(axis=-1) + floor
        return -np.log1p(a * d2**b)

    found = log_q(z[heads][:, None], z[negatives])
    same = (ids[negatives] == ids[heads][:, None]) | (ids[negatives] == ids[tails][:, None])
    found[same] = -np.inf
    return log_q(z[heads], z[tails]), found, draw.weights.numpy()


def per_edge(attraction, repulsion, negatives, weights, n_negatives):
    """Return the mean over edges of w (attraction + n_negatives · mean repulsion over the negatives met)."""
    n_met = np.isfinite(negatives).sum(axis=1)
    total = weights * (attraction + n_negatives / n_met * np.where(np.isfinite(negatives), repulsion, 0).sum(axis=1))
    return total.mean()


def expected_losses(batch):
    """Return the named methods' losses, written out."""
    q, negatives, weights = numpy_pairs(batch)
    with np.errstate(divide="ignore"):
        negative_sampling = per_edge(-np.log(expit(q)), -np.log(expit(-negatives)), negatives, weights, 5)
        odds = np.log(5)
        contrastive = per_edge(-np.log(expit(q - odds)), -np.log(expit(odds - negatives)), negatives, weights, 5)
    n_met = np.isfinite(negatives).sum(axis=1)
    totals = np.exp(q) + 256 / n_met * np.exp(negatives).sum(axis=1)
    curve = UMAP()._similarity
    q_umap, negatives_umap, _ = numpy_pairs(batch, a=curve.a, b=curve.b, floor=1e-6)
    with np.errstate(divide="ignore"):
        fuzzy = per_edge(-q_umap, -0.5 * np.log(-np.expm1(negatives_umap)), negatives, weights, 5)
    return {
        "umap": fuzzy,
        "negative_sampling": negative_sampling,
        "noise_contrastive": contrastive,
        "info_nce": (weights * (-q + np.log(totals))).mean(),
    }


@pytest.mark.parametrize("negatives", ["batch", "uniform"])
@pytest.mark.parametrize("name", ["umap", "negative_sampling", "noise_contrastive", "info_nce"])
def test_a_named_relation_is_the_definition(name, negatives, batch_of):
    batch, found, _ = batch_of(Relation(name), negatives=negatives)
    assert found["loss"] == pytest.approx(expected_losses(batch)[name], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "method"),
    [("umap", UMAP), ("negative_sampling", NegTSNE), ("noise_contrastive", NCVis), ("info_nce", InfoTSNE)],
)
def test_a_named_relation_is_the_method_s_own_loss_on_the_same_batch(name, method, batch_of):
    batch, found, _ = batch_of(Relation(name))
    of_method = Relation(method()).bind(batch.training)(batch)
    assert of_method.item() == found["loss"]
    of_estimator = method()._batch_loss().bind(batch.training)(batch)
    assert of_estimator.item() == found["loss"]


def umap_by_hand(log_q_edges, log_q_negatives):
    return -log_q_edges, -0.5 * losses.log_one_minus(log_q_negatives)


@pytest.mark.parametrize(
    ("function", "method", "similarity"),
    [
        (losses.negative_sampling, NegTSNE(), None),
        (losses.noise_contrastive, NCVis(), None),
        (umap_by_hand, UMAP(), UMAP()._similarity),
        (lambda q, m: losses.negative_sampling(q, m, nu=0.2), NegTSNE(nu=0.2), StudentT(3.0)),
    ],
    ids=["negative_sampling", "noise_contrastive", "umap", "nu and Student"],
)
def test_functions_of_log_similarities_are_the_methods_losses(function, method, similarity, batch_of):
    batch, found, _ = batch_of(Relation(function, similarity=similarity, n_negatives=5))
    assert batch.draw.negatives.shape == (len(batch.draw.heads), 5)
    batch.state.learned["log_z"] = torch.zeros((), dtype=torch.float64)
    of_method = Relation(method, similarity=similarity).bind(batch.training)(batch)
    assert found["loss"] == pytest.approx(of_method.item(), rel=1e-9)


def test_info_nce_as_a_function_is_the_normalised_similarity_of_the_edge(batch_of):
    batch, found, _ = batch_of(Relation(losses.info_nce, n_negatives=20), negatives="uniform")
    q, negatives, weights = numpy_pairs(batch)
    scale = 20 / np.isfinite(negatives).sum(axis=1)
    totals = np.log(np.exp(q) + np.exp(negatives).sum(axis=1))
    assert found["loss"] == pytest.approx((weights * (-q + scale * totals)).mean(), rel=1e-9)


def test_exaggeration_and_the_number_of_negatives_of_a_phase_count(batch_of):
    batch, found, _ = batch_of(Relation("negative_sampling"), exaggeration=3.0, negative_sample_rate=11)
    q, negatives, weights = numpy_pairs(batch)
    with np.errstate(divide="ignore"):
        expected = per_edge(-3 * np.log(expit(q)), -np.log(expit(-negatives)), negatives, weights, 11)
    assert found["loss"] == pytest.approx(expected, rel=1e-9)


def test_a_relation_has_its_own_similarity(batch_of):
    batch, found, fitted = batch_of(Relation("info_nce", similarity=CosineExp(0.2)))
    z = batch.z.detach().numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    q = (np.sum(unit[batch.draw.heads] * unit[batch.draw.tails], axis=1).clip(-1, 1 - 1e-7) - 1) / 0.2
    attraction = -(batch.draw.weights.numpy() * q).mean()
    assert found["loss"] > attraction
    assert fitted.history_["temperature"] == [0.2]


# ---- relations by items -----------------------------------------------------------------------------------


def normalised(P):
    P = P - np.diag(np.diag(P))
    return P / P.sum()


def numpy_q(z):
    q = 1 / (1 + np.square(z[:, None] - z[None]).sum(axis=2))
    np.fill_diagonal(q, 0)
    return q


def kl(P, z):
    Q = numpy_q(z)
    Q /= Q.sum()
    related = P > 0
    return (xlogy(P, P) - P * np.log(np.where(related, Q, 1))).sum()


@pytest.mark.parametrize(
    "affinity",
    [None, EntropicAffinity(perplexity=10), Neighbors(12) | Function(lambda d: (-d / 50).exp()) | Symmetrize("mean")],
    ids=["the estimator's", "entropic", "composed"],
)
def test_kl_of_all_rows_is_the_divergence_of_the_two_distributions(affinity, batch_of):
    batch, found, fitted = batch_of(Relation("kl", affinity=affinity), batch_size=300)
    ids = batch.draw.ids.numpy()
    assert len(ids) == 300
    if affinity is None:
        P = fitted.graph_
    else:
        P = make(Phase(1, Relation("umap")), affinity_in=affinity, dtype="float64").fit(X).graph_
    P = normalised(P.toarray().astype(np.float64)[ids][:, ids])
    assert found["loss"] == pytest.approx(kl(P, batch.z.detach().numpy()), rel=1e-6)
    assert found["loss"] >= 0


def test_kl_of_a_mini_batch_is_normalised_over_its_own_pairs(batch_of):
    batch, found, fitted = batch_of(Relation("kl"), batch_size=100)
    ids = batch.draw.ids.numpy()
    P = normalised(fitted.graph_.toarray().astype(np.float64)[ids][:, ids])
    assert found["loss"] == pytest.approx(kl(P, batch.z.detach().numpy()), rel=1e-6)


def test_cross_entropy_of_all_pairs_is_that_of_fuzzy_sets(batch_of):
    loss = Relation("cross_entropy", affinity=UMAPAffinity())
    batch, found, _ = batch_of(loss, batch_size=300)
    ids = batch.draw.ids.numpy()
    graph = make(Phase(1, Relation("umap")), affinity_in=UMAPAffinity(), dtype="float64").fit(X).graph_
    P = graph.toarray().astype(np.float64)[ids][:, ids]
    q = numpy_q(batch.z.detach().numpy())
    np.fill_diagonal(q, 0.5)
    terms = -P * np.log(q) - (1 - P) * np.log(1 - q.clip(max=math.exp(-1e-6)))
    np.fill_diagonal(terms, 0)
    assert found["loss"] == pytest.approx(terms.sum() / 300, rel=1e-6)


def gaussian(rows):
    return torch.exp(-torch.cdist(rows, rows).square() / 500)


def test_affinities_may_be_a_function_of_the_mini_batch_s_rows(batch_of):
    batch, found, fitted = batch_of(Relation("kl", affinity=gaussian), batch_size=100)
    P = normalised(gaussian(batch.draw.x.double()).numpy())
    assert found["loss"] == pytest.approx(kl(P, batch.z.detach().numpy()), rel=1e-6)
    assert not hasattr(fitted, "graph_")


def test_affinities_of_a_wrong_shape_are_refused():
    loss = Relation("kl", affinity=lambda rows: rows)
    with pytest.raises(
        ValueError, match=r"the affinity function gives shape \(100, 64\) for 100 rows; \(100, 100\) is"
    ):
        make(Phase(1, loss, batch_size=100)).fit(X)


def test_a_function_of_all_pairs_sees_distributions_and_log_similarities(batch_of):
    seen = []

    def loss(P, log_q):
        seen.append((float(P.sum()), P.shape, log_q.shape))
        return -(P * log_q).sum()

    batch, found, fitted = batch_of(Relation(loss, all_pairs=True), batch_size=100)
    assert seen[0] == (pytest.approx(1), (100, 100), (100, 100))
    ids = batch.draw.ids.numpy()
    P = normalised(fitted.graph_.toarray().astype(np.float64)[ids][:, ids])
    q = numpy_q(batch.z.detach().numpy())
    np.fill_diagonal(q, 1)
    assert found["loss"] == pytest.approx(-(P * np.log(q)).sum(), rel=1e-6)


def test_a_relation_may_have_an_affinity_of_its_own():
    own = make(Phase(5, Relation("umap", affinity=UnionAffinity(n_neighbors=25)))).fit(X)
    assert not hasattr(own, "graph_")
    elsewhere = make(Phase(5, Relation("umap")), n_neighbors=25).fit(X)
    np.testing.assert_allclose(own.embedding_, elsewhere.embedding_, atol=1e-3)


# ---- methods ----------------------------------------------------------------------------------------------


def test_positions_alone_lead_to_the_principal_components():
    fitted = make(Phase(150, Position("pca")), batch_size=256).fit(DIGITS)
    expected = PCA(2).fit_transform(DIGITS)
    for column in range(2):
        assert abs(np.corrcoef(fitted.embedding_[:, column], expected[:, column])[0, 1]) > 0.99
    assert fitted.embedding_.std(axis=0).max() == pytest.approx(1, abs=0.1)
    assert not hasattr(fitted, "graph_")


def test_positions_may_be_given():
    places = PCA(4).fit_transform(X)[:, 2:] / 20
    fitted = make(Phase(150, Position(places))).fit(X)
    assert fitted.history_["position_loss"][-1] < 0.1 * np.square(places).mean()
    with pytest.raises(ValueError, match=r"n_components\) = \(300, 2\); they have shape \(300, 3\)"):
        make(Phase(3, Position(X[:, :3]))).fit(X)


@pytest.mark.parametrize("method", [ParametricTSNE, ParametricUMAP])
def test_parametric_methods_separate_digits_after_a_phase_of_positions(method):
    fitted = method(random_state=0, batch_size=256, pretrain_iter=100, max_iter=350, check_interval=50).fit(DIGITS)
    assert knn_accuracy(fitted.embedding_, CLASSES, n_neighbors=15) >= 0.95
    history = fitted.history_
    assert list(np.isnan(history["position_loss"])) == [False] * 2 + [True] * 7
    assert list(np.isnan(history["relation_loss"])) == [True] * 2 + [False] * 7
    assert history["position_loss"][1] < history["position_loss"][0]


@pytest.mark.parametrize("method", [ParametricTSNE, ParametricUMAP])
def test_parametric_methods_can_leave_the_first_phase_out(method):
    fitted = make(method=method, pretrain_iter=0, max_iter=10).fit(X)
    assert fitted.n_iter_ == 10
    assert "position_loss" not in fitted.history_


SAME = {
    "UMAP": (
        lambda: make(method=UMAP, encoder="mlp", max_iter=12),
        lambda: make(Phase(12, Relation("umap")), affinity_in=UMAPAffinity()),
    ),
    "NegTSNE": (
        lambda: make(method=NegTSNE, encoder="mlp", max_iter=12, nu=0.3, early_exaggeration_iter=0),
        lambda: make(Phase(12, Relation(NegTSNE(nu=0.3)))),
    ),
    "NCVis": (
        lambda: make(method=NCVis, encoder="mlp", max_iter=12),
        lambda: make(Phase(12, Relation("noise_contrastive"))),
    ),
    "InfoTSNE": (
        lambda: make(method=InfoTSNE, encoder="mlp", max_iter=12, early_exaggeration_iter=4),
        lambda: make(
            Phase(4, Relation("info_nce"), exaggeration=4.0),
            Phase(8, Relation("info_nce")),
            affinity_in=UnionAffinity(),
        ),
    ),
    "weighted edges, uniform negatives": (
        lambda: make(method=UMAP, encoder="mlp", max_iter=12, sampling="weighted edges", negatives="uniform"),
        lambda: make(
            Phase(12, Relation("umap"), sampling="weighted edges", negatives="uniform"), affinity_in=UMAPAffinity()
        ),
    ),
    "a batch size of the phase": (
        lambda: make(method=NegTSNE, encoder="mlp", max_iter=12, batch_size=77),
        lambda: make(Phase(12, Relation("negative_sampling"), batch_size=77)),
    ),
    "ParametricUMAP": (
        lambda: make(method=ParametricUMAP, pretrain_iter=6, max_iter=12),
        lambda: make(
            Phase(6, Position("spectral")),
            Phase(12, Relation(UMAP())),
            affinity_in=ParametricUMAP()._default_affinity(),
        ),
    ),
    "ParametricTSNE": (
        lambda: make(method=ParametricTSNE, pretrain_iter=6, max_iter=12, perplexity=20),
        lambda: make(Phase(6, Position("pca")), Phase(12, Relation("kl")), affinity_in=EntropicAffinity(perplexity=20)),
    ),
    "LearnedMap": (lambda: make(max_iter=12), lambda: make(Phase(12, Relation("umap")))),
}


@pytest.mark.parametrize("name", SAME)
def test_a_method_and_its_building_blocks_give_the_same_bits(name):
    by_class, by_blocks = (of() for of in SAME[name])
    by_class.fit(X), by_blocks.fit(X)
    np.testing.assert_array_equal(by_blocks.embedding_, by_class.embedding_)
    assert getattr(by_blocks, "log_z_", None) == getattr(by_class, "log_z_", None)
    assert by_blocks.history_["loss"] == by_class.history_["loss"]


# ---- callbacks --------------------------------------------------------------------------------------------


def test_a_callback_at_intervals_sees_the_fit_as_it_is():
    seen = []

    def look(estimator, step):
        seen.append(
            (step, estimator.n_iter_, estimator.log_z_, estimator.embedding_.copy(), estimator.history_["step"][:])
        )

    fitted = make(method=NCVis, encoder="mlp", max_iter=20, callbacks=Every(8, look)).fit(X)
    assert [step for step, *_ in seen] == [n_iter for _, n_iter, *_ in seen] == [8, 16]
    assert [steps for *_, steps in seen] == [[5], [5, 10, 15]]
    assert seen[0][2] != seen[1][2] != fitted.log_z_
    assert not np.array_equal(seen[0][3], seen[1][3])
    np.testing.assert_array_equal(fitted.embedding_, make(method=NCVis, encoder="mlp", max_iter=20).fit(X).embedding_)


def test_a_callback_places_rows_by_the_network_as_it_is():
    placed = []

    def look(estimator, step):
        np.testing.assert_array_equal(estimator.transform(X[:20]), estimator.embedding_[:20])
        assert estimator.inverse_transform(estimator.embedding_[:3]).shape == (3, 64)
        placed.append(estimator.embedding_)

    options = {"method": NegTSNE, "encoder": own_module(), "decoder": "mlp", "max_iter": 20}
    watched, expected = make(**options, callbacks=Every(8, look)), make(**options).fit(X)
    for _ in range(2):
        np.testing.assert_array_equal(watched.fit(X).embedding_, expected.embedding_)
    assert len(placed) == 4
    np.testing.assert_array_equal(placed[0], placed[2])
    assert not np.array_equal(placed[0], placed[1])


def test_the_embedding_is_computed_for_the_calls_only(monkeypatch):
    computed = []
    embedding = NetworkObjective.embedding
    monkeypatch.setattr(NetworkObjective, "embedding", lambda self: computed.append(0) or embedding(self))
    make(Phase(20, Relation("umap")), callbacks=[Every(10, lambda *_: None), Every(20, lambda *_: None)]).fit(X)
    assert len(computed) == 3  # two calls' and the last


def test_a_callback_at_intervals_that_returns_true_stops_the_fit():
    stopped = make(Phase(20, Relation("umap")), Phase(20, Relation("umap")), callbacks=Every(8, lambda *_: True)).fit(X)
    assert stopped.n_iter_ == 8
    for encoder in (None, "mlp"):
        fitted = make(method=NegTSNE, encoder=encoder, max_iter=20, callbacks=Every(7, lambda e, step: step == 14)).fit(
            X
        )
        assert fitted.n_iter_ == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, print), "every=0 must be an integer >= 1"), ((5, 3), "callback=3 must be a callable")],
)
def test_callbacks_at_intervals_need_both(arguments, message):
    with pytest.raises(ValueError, match=message):
        Every(*arguments)


# ---- checkpoints ------------------------------------------------------------------------------------------


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 300

    def __getitem__(self, i):
        row = torch.from_numpy(X[i])
        return row + torch.randn(64), row + torch.randn(64)


TWO = [
    Phase(11, Position("pca")),
    Phase(13, Relation("noise_contrastive") + 0.2 * Classification(), learning_rate=0.01),
]
RESUMED = {
    "NCVis": (NCVis, {"encoder": "mlp", "max_iter": 24}),
    "InfoTSNE with dropout": (InfoTSNE, {"encoder": own_module(), "max_iter": 24}),
    "weighted edges, SGD": (
        UMAP,
        {"encoder": "mlp", "max_iter": 24, "sampling": "weighted edges", "optimizer": "SGD", "target_weight": 0.0},
    ),
    "decoder": (NegTSNE, {"encoder": (32,), "decoder": (32,), "max_iter": 24, "negatives": "uniform"}),
    "two phases": (LearnedMap, {"phases": TWO, "encoder": own_module()}),
    "frozen at first": (LearnedMap, {"phases": [Phase(11, trainable="encoder.4"), Phase(13)], "encoder": own_module()}),
    "parametric t-SNE": (ParametricTSNE, {"pretrain_iter": 11, "max_iter": 13}),
}


def fit_in_pieces(build, data, labels, steps):
    for step in steps:
        with pytest.warns(UserWarning, match=f"interrupted after {step} iterations"):
            build(callbacks=interrupt_at(step)).fit(data, labels)
    return build().fit(data, labels)


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(case, tmp_path):
    method, options = RESUMED[case]

    def build(**more):
        return make(method=method, checkpoint_every=4, **options, **more)

    expected = build().fit(X, Y)
    resumed = fit_in_pieces(lambda **more: build(checkpoint_dir=tmp_path, **more), X, Y, [3, 11, 12, 23])
    np.testing.assert_array_equal(resumed.embedding_, expected.embedding_)
    assert_same_state(resumed.encoder_, expected.encoder_)
    assert resumed.n_iter_ == 24
    assert getattr(resumed, "log_z_", None) == getattr(expected, "log_z_", None)
    assert resumed.history_["step"] == expected.history_["step"]
    assert resumed.history_["learning_rate"] == expected.history_["learning_rate"]
    again = build(checkpoint_dir=tmp_path).fit(X, Y)
    np.testing.assert_array_equal(again.embedding_, expected.embedding_)
    assert_same_state(again.encoder_, expected.encoder_)


def test_a_fit_by_pairs_goes_on_in_the_middle_of_the_loader(tmp_path):
    def build(**more):
        return make(method=NegTSNE, encoder=own_module(), max_iter=24, checkpoint_every=4, **more)

    pairs = PositivePairs(DataLoader(Noisy(), batch_size=32, shuffle=True))
    expected = build().fit(pairs)
    resumed = fit_in_pieces(lambda **more: build(checkpoint_dir=tmp_path, **more), pairs, None, [3, 10, 13])
    np.testing.assert_array_equal(resumed.embedding_, expected.embedding_)


def test_a_fit_without_a_seed_goes_on_with_the_seed_it_drew(tmp_path):
    seen = []

    def build(**more):
        return make(method=NegTSNE, encoder="mlp", max_iter=24, checkpoint_every=4, random_state=None, **more)

    def interrupt(estimator, step):
        seen.append((step, estimator.embedding_))
        if step == 14:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 14"):
        build(checkpoint_dir=tmp_path / "one", callbacks=Every(7, interrupt)).fit(X)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "step-14")  # goes on from the checkpoint before
    with pytest.warns(UserWarning, match="interrupted after 14"):
        build(checkpoint_dir=tmp_path / "two", callbacks=Every(14, interrupt)).fit(X)
    np.testing.assert_array_equal(seen[1][1], seen[2][1])
    embeddings = [build(checkpoint_dir=tmp_path / name).fit(X).embedding_ for name in ("one", "two")]
    np.testing.assert_array_equal(*embeddings)


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        ({"encoder": own_module(seed=2)}, Y, "encoder"),
        ({"encoder": own_module(width=17)}, Y, "encoder"),
        ({"encoder": "mlp"}, Y, "encoder"),
        ({"phases": TWO[:1]}, Y, "phases"),
        ({"phases": [TWO[0], Phase(12, TWO[1].loss, learning_rate=0.01)]}, Y, "phases"),
        ({"phases": [Phase(11, Position(X[:, 10:12])), TWO[1]]}, Y, "phases"),
        ({"decoder": "mlp"}, Y, "decoder"),
        ({"batch_size": 64}, Y, "batch_size"),
        ({}, (Y + 1) % 10, "labels"),
        ({}, np.where(np.arange(300) < 200, Y, -1), "labels"),
    ],
)
def test_another_fit_in_the_folder_is_refused_with_what_differs(change, labels, message, tmp_path):
    options = {"phases": TWO, "encoder": own_module(), "checkpoint_dir": tmp_path}
    with pytest.warns(UserWarning, match="interrupted after 3"):
        make(**options, callbacks=interrupt_at(3)).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        make(**{**options, **change}).fit(X, labels)


# ---- files ------------------------------------------------------------------------------------------------

BUILT_IN = {
    "mlp": (NegTSNE, {"encoder": "mlp", "max_iter": 3}),
    "sizes": (UMAP, {"encoder": (16, 24), "max_iter": 3, "n_components": 3}),
    "decoder": (NCVis, {"encoder": "mlp", "decoder": (24, 16), "max_iter": 3}),
    "float64": (NegTSNE, {"encoder": "mlp", "decoder": "mlp", "dtype": "float64", "max_iter": 3}),
    "classifier": (InfoTSNE, {"encoder": "mlp", "extra_loss": 0.5 * Classification(), "max_iter": 3}),
    "phases": (LearnedMap, {"phases": [Phase(2, Position("pca"), trainable="encoder"), Phase(2, Relation(UMAP()))]}),
    "own affinity": (
        LearnedMap,
        {"phases": [Phase(2, Relation("kl", affinity=EntropicAffinity(), similarity=Cauchy(2.0, 0.8)))]},
    ),
    "positions": (LearnedMap, {"phases": (Phase(2, Position(X[:, 10:12])),)}),
    "parametric UMAP": (ParametricUMAP, {"pretrain_iter": 2, "max_iter": 2, "decoder": "mlp"}),
}


@pytest.mark.parametrize("case", BUILT_IN)
def test_a_loaded_map_places_rows_with_the_same_bits(case, tmp_path, monkeypatch):
    method, options = BUILT_IN[case]
    fitted = make(method=method, **options).fit(X, Y)
    monkeypatch.setattr(pickle, "dumps", lambda *a, **k: pytest.fail("pickled"))
    monkeypatch.setattr(torch, "save", lambda *a, **k: pytest.fail("pickled"))
    fitted.save(tmp_path / "model")
    assert sorted(path.suffix for path in (tmp_path / "model").iterdir()) == [".json", ".safetensors"]
    monkeypatch.setattr(pickle, "loads", lambda *a, **k: pytest.fail("pickled"))
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.embedding_, fitted.embedding_)
    np.testing.assert_array_equal(loaded.transform(DIGITS), fitted.transform(DIGITS))
    assert not loaded.encoder_.training
    if hasattr(fitted, "decoder_"):
        places = fitted.embedding_[:9]
        np.testing.assert_array_equal(loaded.inverse_transform(places), fitted.inverse_transform(places))
    assert hasattr(loaded, "classifier_") == hasattr(fitted, "classifier_")
    if hasattr(fitted, "classifier_"):
        assert_same_state(loaded.classifier_, fitted.classifier_)
    assert loaded.get_params().keys() == fitted.get_params().keys()
    np.testing.assert_array_equal(loaded.fit(X, Y).embedding_, fitted.embedding_)


def test_a_module_of_one_s_own_is_asked_for_and_gets_the_saved_weights(tmp_path):
    fitted = make(method=NegTSNE, encoder=own_module(), decoder=nn.Linear(2, 64), max_iter=5).fit(X)
    fitted.save(tmp_path / "model")
    other, decoder = own_module(seed=9), nn.Linear(2, 64)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    loaded = load(tmp_path / "model", modules={"encoder": other, "decoder": decoder})
    np.testing.assert_array_equal(loaded.transform(DIGITS), fitted.transform(DIGITS))
    assert_same_state(loaded.decoder_, fitted.decoder_)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert loaded.encoder is other


def test_modules_that_are_missing_unknown_or_of_another_kind_are_refused(tmp_path):
    make(method=NegTSNE, encoder=own_module(), max_iter=3).fit(X).save(tmp_path / "model")
    message = 'was saved with modules of its owner\'s; pass load(…, modules={"encoder": Sequential(…)})'
    with pytest.raises(ValueError, match=re.escape(message)):
        load(tmp_path / "model")
    with pytest.raises(ValueError, match="has no decoder of its own; leave it out of modules="):
        load(tmp_path / "model", modules={"encoder": own_module(), "decoder": nn.Linear(2, 64)})
    with pytest.raises(ValueError, match="the saved encoder does not fit Sequential: .*size mismatch"):
        load(tmp_path / "model", modules={"encoder": own_module(width=17)})
    with pytest.raises(ValueError, match="the saved encoder does not fit Linear"):
        load(tmp_path / "model", modules={"encoder": nn.Linear(64, 2)})
    with pytest.raises(ValueError, match=r"modules\['encoder'\] is a str; pass a torch.nn.Module like Sequential"):
        load(tmp_path / "model", modules={"encoder": "mlp"})
    make(method=NegTSNE, encoder="mlp", max_iter=3).fit(X).save(tmp_path / "built in")
    with pytest.raises(ValueError, match="has no encoder of its own"):
        load(tmp_path / "built in", modules={"encoder": own_module()})


def test_what_is_saved_of_a_map_is_its_weights_and_plain_words(tmp_path):
    fitted = make(Phase(2, Relation("umap")), encoder=own_module()).fit(X)
    fitted.save(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["modules"] == {"encoder": "Sequential"}
    assert b"pickle" not in (tmp_path / "model" / "state.safetensors").read_bytes()


@pytest.mark.parametrize("phase", [Phase(2, Relation(losses.umap)), Phase(2, trainable=lambda name: True)])
def test_functions_in_phases_cannot_be_saved_and_the_error_says_so(phase, tmp_path):
    fitted = make(phase).fit(X)
    with pytest.raises(ValueError, match=r"phases\.0\.\w+.* is a builtins.function, which cannot be saved"):
        fitted.save(tmp_path / "model")


def test_a_map_learned_from_pairs_is_saved(tmp_path):
    fitted = make(method=NegTSNE, encoder="mlp", max_iter=3)
    fitted.fit(PositivePairs([(torch.from_numpy(X), torch.from_numpy(X) + 1)])).save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
