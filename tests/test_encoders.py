"""Embeddings that a network computes, as their user sees them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchdr_cne import UMAP, InfoTSNE, LearnedMap, NCVis, NegTSNE, ParametricTSNE
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.encoders import Jitter, Standardize, Unstandardize, mlp
from torchdr_cne.evaluation import knn_accuracy
from torchdr_cne.inputs import open_rows
from torchdr_cne.inputs.sources import ArraySource
from torchdr_cne.networks.loss import Batch
from torchdr_cne.networks.objective import NetworkObjective
from torchdr_cne.parametric import Classification, Phase, Position, PositivePairs, Reconstruction, Relation
from torchdr_cne.similarities import CosineExp

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE]
each_method = pytest.mark.parametrize("method", METHODS)
DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS = DIGITS.astype(np.float32)
X, Y = DIGITS[:400], CLASSES[:400]
ROWS = torch.from_numpy(X)


def make(method=NegTSNE, **options):
    return method(**{"encoder": "mlp", "random_state": 0, "max_iter": 25, "batch_size": 128, **options})


def own_module(seed=1, n_components=2):
    """Return a network with batch normalisation and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, n_components)
        return nn.Sequential(*layers)


def noisy_pairs(seed=0, batch_size=64, **options):
    """Return a loader of two noisy views of each digit."""

    class Views(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return ROWS[i] + 2 * torch.randn(64), ROWS[i] + 2 * torch.randn(64)

    return DataLoader(Views(), batch_size=batch_size, shuffle=True, **options)


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class Recorder(nn.Module):
    """A network that notes what it is called with; copies write into the same list."""

    def __init__(self, inner, seen):
        super().__init__()
        self.inner, self.seen = inner, seen

    def __deepcopy__(self, memo):
        return Recorder(copy.deepcopy(self.inner, memo), self.seen)

    def forward(self, x):
        self.seen.append((self.training, len(x)))
        return self.inner(x)


# ---- what an encoder is -----------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("encoder", ["mlp", (32,), [16, 24], own_module()], ids=["mlp", "one", "two", "own"])
def test_every_method_trains_every_kind_of_encoder(method, encoder):
    fitted = make(method, encoder=encoder).fit(X)
    assert fitted.embedding_.shape == (400, 2)
    assert np.isfinite(fitted.embedding_).all()
    assert (fitted.embedding_.std(axis=0) > 0).all()
    assert not fitted.encoder_.training
    assert fitted.n_iter_ == 25


def test_sizes_are_those_of_the_hidden_layers():
    encoder = make(encoder=(16, 24), max_iter=1, n_components=3).fit(X).encoder_
    shapes = [(layer.in_features, layer.out_features) for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(64, 16), (16, 24), (24, 3)]


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_module_of_one_s_own_is_copied_and_never_changed(role):
    module = own_module() if role == "encoder" else nn.Linear(2, 64)
    before = state_of(module)
    fitted = make(**{role: module}).fit(X)
    assert_same_state(state_of(module), before)
    assert all(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert getattr(fitted, role) is module
    assert getattr(fitted, f"{role}_") is not module


def test_a_module_of_one_s_own_begins_with_its_weights():
    module = own_module()
    fitted = make(encoder=module, max_iter=1, learning_rate=1e-12).fit(X)
    for name, parameter in fitted.encoder_.named_parameters():
        torch.testing.assert_close(parameter, dict(module.named_parameters())[name], rtol=0, atol=1e-9)


def test_training_never_sees_more_rows_at_once_than_the_mini_batch():
    seen = []
    for options, most in (({}, 256), ({"negatives": "uniform"}, 256 + 128)):
        seen.clear()
        make(encoder=Recorder(own_module(), seen), **options).fit(DIGITS)
        trained = [rows for training, rows in seen if training]
        assert len(trained) == 25
        assert max(trained) <= most


def test_standardising_keeps_the_digits_of_far_data_and_unstandardising_gives_them_back():
    data = torch.from_numpy(X.astype(np.float64) / 17 + 1e6)
    mean, scale = data.mean(dim=0), float((data - data.mean(dim=0)).square().mean() ** 0.5)
    layer = Standardize(mean, scale).to(torch.float32)
    expected = ((data - mean) / scale).float()
    assert layer(data).dtype == torch.float32
    torch.testing.assert_close(layer(data), expected, rtol=1e-6, atol=1e-7)
    back = Unstandardize(mean, scale).double()(layer(data).double())
    torch.testing.assert_close(back, data, rtol=1e-7, atol=0)


def test_noise_is_added_in_training_only():
    layer = Jitter(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = layer.train()(torch.zeros(20_000))
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert torch.equal(layer.eval()(ROWS), ROWS)
    assert repr(layer) == "Jitter(strength=0.5)"


def test_a_perceptron_has_the_asked_layers():
    kinds = [type(layer).__name__ for layer in mlp(4, 2, (8, 9))]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in mlp(4, 2, (8,), normalise=False)] == ["Linear", "ReLU", "Linear"]


# ---- transform --------------------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_transform_of_the_training_rows_is_the_embedding(method, form):
    fitted = make(method).fit(form(X))
    assert type(fitted.transform(form(X))) is type(fitted.embedding_)
    np.testing.assert_array_equal(fitted.transform(form(X)), fitted.embedding_)


def test_fit_transform_is_the_embedding():
    np.testing.assert_array_equal(make().fit_transform(X), make().fit(X).embedding_)


def test_a_row_s_place_does_not_depend_on_the_rows_beside_it():
    fitted = make(encoder=own_module()).fit(X[:300])
    together = fitted.transform(X[300:])
    alone = np.concatenate([fitted.transform(row[None]) for row in X[300:]])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)


def test_transform_leaves_the_network_as_it_is():
    fitted = make(encoder=own_module()).fit(X)
    fitted.encoder_[3].train()  # a mode that its owner has set
    before = state_of(fitted.encoder_)
    first = fitted.transform(X[:50] * 3)
    np.testing.assert_array_equal(fitted.transform(X[:50] * 3), first)
    assert_same_state(state_of(fitted.encoder_), before)
    assert [module.training for module in fitted.encoder_] == [False, False, False, True, False]


def test_normalisation_and_dropout_are_at_work_in_training_only():
    modes = []

    class Watched(nn.Dropout):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    module = own_module()
    module[3] = Watched(0.5)
    fitted = make(encoder=module).fit(X)
    assert modes.count(True) == 25
    assert int(fitted.encoder_[1].num_batches_tracked) == 25
    assert not torch.equal(fitted.encoder_[1].running_mean, module[1].running_mean)
    modes.clear()
    fitted.transform(X)
    assert modes == [False]


def test_held_out_digits_are_placed_among_their_class():
    fitted = NegTSNE(encoder="mlp", random_state=0, max_iter=200).fit(DIGITS[:1200])
    from sklearn.neighbors import KNeighborsClassifier

    nearest = KNeighborsClassifier(15).fit(fitted.embedding_, CLASSES[:1200])
    assert nearest.score(fitted.transform(DIGITS[1200:]), CLASSES[1200:]) > 0.85


# ---- freezing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("trainable", ["encoder.4", ["encoder.4"], lambda name: name.startswith("encoder.4.")])
def test_what_a_phase_freezes_keeps_every_bit_of_parameters_and_statistics(affine, trainable):
    module = own_module()
    module[1] = nn.BatchNorm1d(32, affine=affine)
    fitted = make(LearnedMap, encoder=module, phases=[Phase(10, Relation("umap"), trainable=trainable)]).fit(X)
    for number in range(4):
        assert_same_state(state_of(fitted.encoder_[number]), state_of(module[number]))
    assert not torch.equal(fitted.encoder_[4].weight, module[4].weight)
    assert all(parameter.requires_grad for parameter in fitted.encoder_.parameters())


def test_a_frozen_encoder_is_in_evaluation_mode_beside_a_decoder_that_learns():
    module = own_module()
    phases = [Phase(10, Reconstruction(), trainable="decoder")]
    fitted = make(LearnedMap, encoder=module, decoder="mlp", phases=phases).fit(X)
    assert_same_state(state_of(fitted.encoder_), state_of(module))


def test_what_one_phase_has_frozen_moves_in_the_next():
    module = own_module()
    phases = [Phase(5, Relation("umap"), trainable="encoder.4"), Phase(5, Relation("umap"))]
    fitted = make(LearnedMap, encoder=module, phases=phases).fit(X)
    assert not torch.equal(fitted.encoder_[0].weight, module[0].weight)
    assert int(fitted.encoder_[1].num_batches_tracked) == 5


# ---- reproducibility --------------------------------------------------------------------------------------


@each_method
def test_a_seed_decides_every_bit(method):
    first, again = make(method, encoder=own_module()).fit(X), make(method, encoder=own_module()).fit(X)
    np.testing.assert_array_equal(again.embedding_, first.embedding_)
    assert_same_state(state_of(again.encoder_), state_of(first.encoder_))
    assert not np.array_equal(make(method, encoder=own_module(), random_state=1).fit(X).embedding_, first.embedding_)


@pytest.mark.parametrize("encoder", ["mlp", own_module()], ids=["mlp", "own"])
def test_global_random_numbers_neither_matter_nor_change(encoder):
    found = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        found.append(make(encoder=encoder, decoder="mlp").fit(X).transform(X))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    np.testing.assert_array_equal(*found)


def test_a_shuffling_loader_of_random_views_follows_the_seed_and_leaves_the_global_one():
    found = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        fitted = make(encoder=own_module()).fit(PositivePairs(noisy_pairs()))
        assert torch.equal(torch.get_rng_state(), before)
        found.append(fitted.embedding_)
    np.testing.assert_array_equal(*found)


class Sampling(nn.Module):
    """A network that draws numbers whenever it is called."""

    def __init__(self):
        super().__init__()
        self.inner = own_module()

    def forward(self, x):
        return self.inner(x) + 0.1 * torch.randn(len(x), 2)


def test_a_network_that_always_draws_numbers_leaves_the_global_ones_and_places_rows_the_same():
    module = Sampling()
    before = torch.get_rng_state()
    fitted = make(encoder=module).fit(X)
    np.testing.assert_array_equal(fitted.transform(X), fitted.embedding_)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_estimators_share_nothing_and_a_second_fit_begins_anew():
    module = own_module()
    first, second = make(encoder=module), make(encoder=module)
    embedding = first.fit(X).embedding_
    weights = state_of(first.encoder_)
    np.testing.assert_array_equal(second.fit(X).embedding_, embedding)
    second.set_params(max_iter=40).fit(X)
    assert_same_state(state_of(first.encoder_), weights)
    np.testing.assert_array_equal(first.fit(X).embedding_, embedding)


def test_without_its_encoder_an_estimator_places_points_and_has_no_network_left():
    estimator = make(decoder="mlp").fit(X).set_params(encoder=None, decoder=None).fit(X)
    assert not hasattr(estimator, "encoder_")
    assert not hasattr(estimator, "decoder_")
    expected = make(encoder=None).fit(X)
    np.testing.assert_array_equal(estimator.embedding_, expected.embedding_)
    np.testing.assert_array_equal(estimator.transform(X[:9]), expected.transform(X[:9]))
    with pytest.raises(ValueError, match="fitted without a decoder; set encoder and decoder"):
        estimator.inverse_transform(estimator.embedding_)


def test_a_fit_that_needs_no_graph_leaves_none_of_an_earlier_fit():
    estimator = make(LearnedMap, phases=[Phase(2, Relation("umap"))]).fit(X)
    assert estimator.graph_.shape == (400, 400)
    estimator.set_params(phases=[Phase(2, Position("pca"))]).fit(X)
    assert not hasattr(estimator, "graph_")
    assert not hasattr(estimator, "n_connected_components_")


# ---- data -------------------------------------------------------------------------------------------------


def test_float64_reaches_network_and_embedding():
    fitted = make(dtype="float64").fit(X)
    assert fitted.embedding_.dtype == np.float64
    assert fitted.transform(X).dtype == np.float64
    assert {parameter.dtype for parameter in fitted.encoder_.parameters()} == {torch.float64}


FORMS = {
    "as they are": lambda X: X,
    "a sixteenth": lambda X: X / 16,
    "a thousandfold": lambda X: X * 1000,
    "far away": lambda X: X.astype(np.float64) / 17 + 1e6,
    "integers": lambda X: X.astype(np.int64),
    "bytes": lambda X: X.astype(np.uint8),
}


@pytest.fixture(scope="module")
def plain_accuracy():
    """What an encoder reaches on the digits as they are, after 100 mini-batches."""
    fitted = NegTSNE(encoder="mlp", random_state=0, max_iter=100).fit(DIGITS)
    return knn_accuracy(fitted.embedding_, CLASSES, n_neighbors=15)


@pytest.mark.parametrize("form", FORMS)
def test_scale_offset_and_kind_of_the_data_do_not_matter(form, plain_accuracy):
    data = FORMS[form](DIGITS)
    fitted = NegTSNE(encoder="mlp", random_state=0, max_iter=100).fit(data)
    assert knn_accuracy(fitted.embedding_, CLASSES, n_neighbors=15) == pytest.approx(plain_accuracy, abs=0.02)
    assert plain_accuracy > 0.85
    np.testing.assert_array_equal(fitted.transform(data), fitted.embedding_)


@pytest.mark.parametrize(
    "form",
    [
        lambda X: X[::-1],
        lambda X: X[:, ::-1],
        np.asfortranarray,
        lambda X: X.astype(">f4"),
        lambda X: X.astype(np.longdouble),
        lambda X: X.tolist(),
        lambda X: torch.from_numpy(X).bfloat16(),
    ],
    ids="backward mirrored fortran big-endian long-double list bfloat16".split(),
)
def test_rows_may_lie_in_memory_in_any_way(form):
    fitted = make(max_iter=2).fit(form(X))
    np.testing.assert_array_equal(fitted.transform(form(X)), fitted.embedding_)


def test_rows_that_must_not_be_written_to_are_read():
    frozen = X.copy()
    frozen.setflags(write=False)
    fitted = make(max_iter=2).fit(frozen)
    np.testing.assert_array_equal(fitted.transform(frozen), make(max_iter=2).fit(X).embedding_)


def test_a_data_set_a_loader_a_source_and_a_memmap_are_as_good_as_an_array(tmp_path):
    expected = make().fit(X).embedding_
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for data in (TensorDataset(ROWS), DataLoader(TensorDataset(ROWS), batch_size=70), ArraySource(X, "X"), mapped):
        fitted = make().fit(data)
        np.testing.assert_allclose(fitted.embedding_, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(fitted.transform(data), fitted.embedding_)


def test_rows_that_are_streamed_make_an_embedding_as_good(tmp_path):
    np.save(tmp_path / "X.npy", DIGITS)
    source = open_rows(tmp_path / "X.npy")
    fitted = make(max_iter=100, memory_budget=200_000, decoder="mlp", extra_loss=0.1 * Reconstruction()).fit(source)
    assert knn_accuracy(fitted.embedding_, CLASSES, n_neighbors=15) > 0.85
    np.testing.assert_array_equal(fitted.transform(source), fitted.embedding_)


def test_a_given_graph_stands_for_the_search():
    graph = UMAP(max_iter=1, random_state=0).fit(X).graph_
    expected = make(UMAP).fit(X)
    np.testing.assert_array_equal(make(UMAP).fit(X, graph=graph).embedding_, expected.embedding_)
    np.testing.assert_array_equal(make(NegTSNE).fit(X, graph=graph).transform(X[:5]).shape, (5, 2))


@pytest.mark.filterwarnings("ignore:the input graph has 10 connected components")
def test_labels_change_the_graph_of_umap_and_the_map():
    parted = make(UMAP, max_iter=60, target_weight=1.0).fit(X, Y)
    assert not (parted.graph_.toarray() > 0)[Y[:, None] != Y].any()
    assert not np.array_equal(parted.embedding_, make(UMAP, max_iter=60).fit(X).embedding_)


@pytest.mark.filterwarnings("ignore:n_neighbors=15 needs more than")
@each_method
@pytest.mark.parametrize("n", [2, 3, 10])
def test_each_of_a_handful_of_rows_has_a_place_of_its_own_where_transform_finds_it_again(method, n):
    fitted = make(method, max_iter=5).fit(X[:n])
    placed = fitted.transform(X[:40])
    assert np.isfinite(placed).all()
    assert len(np.unique(placed, axis=0)) == 40
    np.testing.assert_allclose(placed[:n], fitted.embedding_, rtol=1e-5, atol=1e-5)


@each_method
def test_equal_rows_have_equal_finite_places(method):
    fitted = make(method, max_iter=5).fit(np.full((60, 3), 0.1))
    assert np.isfinite(fitted.embedding_).all()
    assert len(np.unique(fitted.embedding_, axis=0)) == 1


def test_standardize_in_one_s_own_module_sees_the_same_rows_in_fit_and_transform():
    data = X.astype(np.float64) / 17 + 1e6
    module = nn.Sequential(Standardize(torch.from_numpy(data.mean(axis=0)), float(data.std())), mlp(64, 2, (32,)))
    fitted = make(encoder=module).fit(data)
    np.testing.assert_array_equal(fitted.transform(data), fitted.embedding_)


def test_data_frames_keep_their_names_and_give_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    fitted = make().set_output(transform="pandas").fit(frame)
    placed = fitted.transform(frame)
    assert list(placed.columns) == ["negtsne0", "negtsne1"]
    np.testing.assert_array_equal(placed.to_numpy(), fitted.embedding_)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(frame.rename(columns={"pixel 0": "other"}))


def test_estimators_with_networks_are_cloned_and_pickled():
    module = own_module()
    fitted = make(encoder=module, decoder="mlp", extra_loss=0.5 * Reconstruction()).fit(X)
    twin = clone(fitted)
    assert not hasattr(twin, "encoder_")
    assert twin.get_params()["extra_loss"] == 0.5 * Reconstruction()
    np.testing.assert_array_equal(twin.fit(X).embedding_, fitted.embedding_)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(loaded.inverse_transform(X[:5, :2]), fitted.inverse_transform(X[:5, :2]))


# ---- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_components", [1, 3])
def test_an_encoder_gives_as_many_components_as_asked(n_components):
    fitted = make(n_components=n_components).fit(X)
    assert fitted.embedding_.shape == fitted.transform(X).shape == (400, n_components)
    assert (fitted.embedding_.std(axis=0) > 0).all()


def test_cosine_similarity_in_eight_dimensions_keeps_classes_together():
    fitted = InfoTSNE(
        encoder="mlp", similarity=CosineExp(0.5), n_components=8, metric="cosine", random_state=0, max_iter=150
    ).fit(DIGITS)
    unit = fitted.embedding_ / np.linalg.norm(fitted.embedding_, axis=1, keepdims=True)
    assert knn_accuracy(unit, CLASSES, n_neighbors=15) > 0.9
    assert set(fitted.history_["temperature"]) == {0.5}


@each_method
@pytest.mark.parametrize("options", [{"negatives": "uniform"}, {"sampling": "weighted edges"}], ids=str)
def test_other_samplings_make_another_embedding_that_is_as_good(method, options):
    fitted = make(method, max_iter=100, **options).fit(DIGITS)
    assert knn_accuracy(fitted.embedding_, CLASSES, n_neighbors=15) > 0.8
    assert not np.array_equal(make(method, **options).fit(X).embedding_, make(method).fit(X).embedding_)


@pytest.mark.parametrize("negatives", ["batch", "uniform"])
@pytest.mark.parametrize("own_affinity", [False, True])
def test_discarded_neighbours_are_never_among_the_negatives(own_affinity, negatives, monkeypatch):
    found = []
    pairs_of = Batch.pairs

    def spy(self, *arguments, **options):
        pairs = pairs_of(self, *arguments, **options)
        found.append((self.draw, torch.isfinite(pairs.log_q_negatives)))
        return pairs

    monkeypatch.setattr(Batch, "pairs", spy)
    graph = make(discard_neighbors=True, negatives=negatives, max_iter=1).fit(X).graph_
    found.clear()
    if own_affinity:
        loss = Relation(NegTSNE(discard_neighbors=True), affinity=UnionAffinity())
        make(LearnedMap, phases=[Phase(25, loss, negatives=negatives)]).fit(X)
    else:
        make(discard_neighbors=True, negatives=negatives).fit(X)
    related = torch.from_numpy(graph.toarray() > 0)
    n_negatives = 0
    for draw, is_negative in found:
        heads, negatives_of = draw.ids[draw.heads], draw.ids[draw.negatives]
        forbidden = related[heads][:, negatives_of] | (heads.unsqueeze(1) == negatives_of)
        assert not bool((forbidden & is_negative).any())
        n_negatives += int(is_negative.sum())
    assert n_negatives > 10_000


def test_neighbours_are_discarded_for_the_loss_that_asks_and_not_for_the_one_beside_it(monkeypatch):
    from torchdr_cne import losses

    found, pairs_of = [], Batch.pairs

    def spy(self, *arguments, without_neighbors=False, **options):
        pairs = pairs_of(self, *arguments, without_neighbors=without_neighbors, **options)
        found.append((without_neighbors, self.draw, torch.isfinite(pairs.log_q_negatives)))
        return pairs

    monkeypatch.setattr(Batch, "pairs", spy)
    both = Relation(NegTSNE(discard_neighbors=True)) + Relation(losses.umap)
    related = torch.from_numpy(make(LearnedMap, phases=[Phase(5, both)]).fit(X).graph_.toarray() > 0)
    n_met, n_neighbors = {True: 0, False: 0}, {True: 0, False: 0}
    for asked, draw, is_negative in found:
        are_neighbors = related[draw.ids[draw.heads].unsqueeze(1), draw.ids[draw.negatives]]
        n_met[asked] += int(is_negative.sum())
        n_neighbors[asked] += int((is_negative & are_neighbors).sum())
    assert min(n_met.values()) > 10_000
    assert n_neighbors[True] == 0
    assert n_neighbors[False] > 100


# ---- decoder ----------------------------------------------------------------------------------------------


def test_the_decoder_gives_rows_back_in_the_kind_of_the_places():
    fitted = make(decoder="mlp").fit(X)
    assert fitted.inverse_transform(fitted.embedding_[:7]).shape == (7, 64)
    assert isinstance(fitted.inverse_transform(torch.zeros(3, 2)), torch.Tensor)
    assert isinstance(fitted.inverse_transform([[0.0, 1.0]]), np.ndarray)
    assert fitted.inverse_transform(np.zeros((0, 2))).shape == (0, 64)


def test_places_that_are_none_are_refused():
    with pytest.raises(NotFittedError):
        make(decoder="mlp").inverse_transform(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="fitted without a decoder; set encoder and decoder"):
        make().fit(X).inverse_transform(np.zeros((3, 2)))
    fitted = make(decoder="mlp").fit(X)
    for places in (np.zeros((3, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"Z must have shape \(m, 2\), as the embedding, got"):
            fitted.inverse_transform(places)
    with pytest.raises(ValueError, match="Z contains NaN or infinity; give points as transform"):
        fitted.inverse_transform(np.array([[0, np.nan]]))


# ---- labels -----------------------------------------------------------------------------------------------


def test_a_classifier_that_learned_from_few_labels_tells_the_other_rows_classes():
    few = np.full(len(DIGITS), -1)
    few[:300] = CLASSES[:300]
    fitted = make(max_iter=150, n_components=4, extra_loss=Classification()).fit(DIGITS, few)
    scores = fitted.classifier_(torch.from_numpy(fitted.embedding_[300:])).detach().numpy()
    assert np.mean(scores.argmax(axis=1) == CLASSES[300:]) > 0.8


def test_rows_without_label_do_not_count():
    loss = Classification()
    labels = torch.tensor([0, 1, -1, 2, -1])

    class Draw:
        ids = torch.arange(5)

    class Training:
        pass

    Training.labels = labels
    classifier, z = nn.Linear(2, 3), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch(z, Draw, {"classifier": classifier}, None, Training)
    known = labels >= 0
    expected = nn.functional.cross_entropy(classifier(z[known]), labels[known])
    torch.testing.assert_close(loss.bind(Training)(batch), expected)
    Training.labels = torch.full((5,), -1)
    assert loss.bind(Training)(batch).item() == 0


def test_mini_batches_without_a_label_do_not_end_the_fit():
    few = np.full(len(X), -1)
    few[:4] = range(4)
    phases = [Phase(50, Classification(), batch_size=32, report_interval=1)]
    fitted = make(LearnedMap, phases=phases).fit(X, few)
    assert fitted.n_iter_ == 50
    assert 0.0 in fitted.history_["classification_loss"]


@pytest.mark.parametrize("kind", [np.int32, np.int64, str, torch.tensor, list])
def test_labels_of_any_kind_make_the_same_bits(kind):
    labels = Y.astype(kind) if isinstance(kind, type) and kind is not list else kind(Y)
    fitted = make(extra_loss=Classification()).fit(X, labels)
    np.testing.assert_array_equal(fitted.embedding_, make(extra_loss=Classification()).fit(X, Y).embedding_)


@each_method
def test_histories_of_the_parts_add_up_to_the_loss(method):
    extra = 0.3 * Classification() + 2 * Reconstruction()
    options = {"extra_loss": extra, "decoder": "mlp", "check_interval": 5}
    if method is UMAP:
        options["target_weight"] = 0.0
    history = make(method, **options).fit(X, Y).history_
    parts = ["relation_loss", "classification_loss", "reconstruction_loss"]
    assert [name for name in history if name.endswith("_loss")] == parts
    np.testing.assert_allclose(sum(np.array(history[part]) for part in parts), history["loss"], rtol=1e-5)


def test_a_part_that_a_phase_lacks_is_nan_in_its_history():
    phases = [Phase(10, Position("pca")), Phase(10, Relation("umap") + Position("pca"))]
    history = make(LearnedMap, phases=phases, check_interval=5).fit(X).history_
    assert history["step"] == [5, 10, 15, 20]
    np.testing.assert_array_equal(np.isnan(history["relation_loss"]), [True, True, False, False])
    assert not np.isnan(history["position_loss"]).any()
    total = np.nan_to_num(history["relation_loss"]) + np.array(history["position_loss"])
    np.testing.assert_allclose(total, history["loss"], rtol=1e-5)


# ---- pairs from a loader ----------------------------------------------------------------------------------


@each_method
def test_two_views_of_a_digit_come_closer_than_two_digits(method):
    fitted = make(method, max_iter=150).fit(PositivePairs(noisy_pairs()))
    generator = torch.Generator().manual_seed(5)
    first, second = (fitted.transform(ROWS + 2 * torch.randn(X.shape, generator=generator)) for _ in range(2))
    within = (first - second).norm(dim=1)
    between = (first - second.roll(1, dims=0)).norm(dim=1)
    assert float((within < between).float().mean()) > 0.85
    assert fitted.embedding_.shape == (400, 2)


def test_pairs_need_no_neighbour_search_and_may_be_images(monkeypatch):
    monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", lambda *a, **k: pytest.fail("searched"))
    images = ROWS.reshape(-1, 1, 8, 8)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    pairs = [(images[start : start + 50], images[start : start + 50] + 1) for start in range(0, 400, 50)]
    fitted = make(encoder=module).fit(PositivePairs(pairs))
    assert fitted.embedding_.shape == (400, 2)
    assert not hasattr(fitted, "graph_")
    np.testing.assert_array_equal(fitted.transform(images).numpy(), fitted.embedding_)
    with pytest.raises(ValueError, match=r"X must have shape \(m, 1, 8, 8\), as in the fit, got \(3, 64\)"):
        fitted.transform(X[:3])
    bad = images[:4].clone()
    bad[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity: 1 value\(s\), first in row 2"):
        fitted.transform(bad)


def test_a_data_set_may_make_the_batches_of_pairs_itself():
    batches = [(ROWS[start : start + 50], ROWS[start : start + 50] + 1) for start in range(0, 400, 50)]
    fitted = make().fit(PositivePairs(DataLoader(batches, batch_size=None)))
    np.testing.assert_array_equal(fitted.embedding_, make().fit(PositivePairs(batches)).embedding_)


# ---- what cannot be ---------------------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    """Let any search of neighbours, and any step, fail the test."""
    monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", lambda *a, **k: pytest.fail("searched"))
    monkeypatch.setattr(NetworkObjective, "compute_gradients", lambda *a, **k: pytest.fail("stepped"))


def with_nan():
    module = nn.Linear(64, 2)
    nn.init.constant_(module.weight, torch.nan)
    return module


@each_method
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoder": "mpl"},
            r"encoder='mpl' is no network; pass 'mlp', 'residual_mlp', the sizes .* or a torch.nn.Module",
        ),
        ({"encoder": 3}, "encoder=3 is no network"),
        ({"encoder": ()}, r"encoder=\(\) is no network"),
        ({"encoder": (100, 0)}, r"encoder=\(100, 0\) is no network"),
        ({"decoder": "mpl"}, "decoder='mpl' is no network"),
        ({"encoder": nn.Linear(64, 3)}, r"the encoder gives \(8, 3\) for 8 rows where \(8, 2\) is needed; change"),
        ({"encoder": nn.Linear(60, 2)}, r"the encoder cannot take rows of shape \(8, 64\).*its first layer must fit"),
        ({"encoder": with_nan()}, "the encoder gives NaN or infinity for the first rows before any training"),
        ({"encoder": nn.Flatten(0)}, r"the encoder gives \(512,\) for 8 rows"),
        ({"decoder": nn.Linear(2, 63)}, r"the decoder gives \(8, 63\) for 8 rows where \(8, 64\) is needed"),
        ({"decoder": nn.Linear(3, 64)}, r"the decoder cannot take rows of shape \(8, 2\).*embeddings of 2 columns"),
        ({"encoder": None, "decoder": "mlp"}, "decoder cannot be without an encoder; set encoder='mlp' or leave"),
        ({"encoder": None, "extra_loss": Reconstruction()}, "extra_loss cannot be without an encoder"),
        ({"extra_loss": "classification"}, "extra_loss='classification' must be None or a Loss such as"),
        ({"extra_loss": Reconstruction()}, "Reconstruction needs a decoder; set decoder='mlp'"),
        ({"extra_loss": Classification()}, r"Classification needs labels; call fit\(X, y\)"),
        ({"extra_loss": Relation("kl")}, "need both edges and items; put them into phases of their own"),
        ({"encoder": nn.Flatten(), "n_components": 64}, "phase 0 trains nothing"),
        ({"batch_size": 0}, "batch_size=0 must be an integer >= 1"),
        ({"sampling": "items"}, "sampling='items' is unknown; choose one of 'edges', 'weighted edges'"),
        ({"negatives": "all"}, "negatives='all' is unknown; choose one of 'batch', 'uniform'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(method, options, message, no_work):
    with pytest.raises(ValueError, match=message):
        make(method, **options).fit(X)


@each_method
def test_an_encoder_needs_rows_and_not_only_affinities(method, no_work):
    affinities = np.ones((9, 9)) - np.eye(9)
    with pytest.raises(ValueError, match="an encoder needs rows; pass X with graph= instead"):
        make(method, affinity_in="precomputed").fit(affinities)


@each_method
def test_labels_of_another_length_are_refused(method, no_work):
    with pytest.raises(ValueError, match=r"y has 399 labels but X has 400 rows"):
        make(method, extra_loss=Classification()).fit(X, Y[:-1])


def test_transform_needs_a_fit_and_rows_like_those_of_the_fit():
    with pytest.raises(NotFittedError):
        make().transform(X)
    fitted = make(max_iter=1).fit(X)
    with pytest.raises(ValueError, match="X has 63 features, but NegTSNE is expecting 64"):
        fitted.transform(X[:, :-1])
    bad = X[:3].copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity: 1 value\(s\), first in row 1"):
        fitted.transform(bad)


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], ValueError, "the loader of pairs is empty; it needs at least one batch"),
        (3, TypeError, "PositivePairs needs a loader that can be gone through again and has a length, got int"),
        (iter([]), TypeError, "has a length, got list_iterator"),
        ([(ROWS[:3], ROWS[:4])], ValueError, r"two tensors of the same shape.*\[\(3, 64\), \(4, 64\)\]"),
        ([ROWS[:3]], ValueError, "must start with two tensors of the same shape .*got Tensor"),
        ([(ROWS[:3],)], ValueError, "must start with two tensors of the same shape"),
        ([(ROWS[0], ROWS[1])], ValueError, "must start with two tensors of the same shape"),
    ],
)
def test_loaders_without_pairs_are_refused(loader, error, message, no_work):
    with pytest.raises(error, match=message):
        make().fit(PositivePairs(loader))


def test_pairs_with_nan_are_refused(no_work):
    bad = torch.cat([ROWS[:100], ROWS[:1] * torch.nan])
    with pytest.raises(ValueError, match="the pairs contain NaN or infinity; drop or impute such rows"):
        make().fit(PositivePairs([(ROWS[:100], ROWS[:100]), (bad, bad)]))


def test_a_loader_that_ends_before_its_length_is_told_so():
    class Short(list):
        def __len__(self):
            return 5

    with pytest.raises(ValueError, match="has ended after 2 batches, and its length is 5"):
        make().fit(PositivePairs(Short([(ROWS[:100], ROWS[:100])] * 2)))


def test_pairs_need_an_encoder_and_no_graph(no_work):
    pairs = PositivePairs([(ROWS, ROWS)])
    with pytest.raises(ValueError, match="PositivePairs need an encoder, such as encoder='mlp'"):
        make(encoder=None).fit(pairs)
    with pytest.raises(ValueError, match="and no graph="):
        make().fit(pairs, graph=np.ones((400, 400)))


@pytest.mark.parametrize("loss", [Position("pca"), Relation("kl"), Classification()], ids=lambda loss: loss.name)
def test_losses_of_numbered_rows_are_refused_for_pairs(loss, no_work):
    with pytest.raises(ValueError, match=f"{type(loss).__name__} cannot be computed on PositivePairs.*pass the rows"):
        make(LearnedMap, phases=[Phase(3, Relation("umap")), Phase(3, loss)]).fit(PositivePairs([(ROWS, ROWS)]), Y)


def test_a_parametric_method_cannot_do_without_its_encoder(no_work):
    with pytest.raises(ValueError, match="encoder=None leaves a LearnedMap nothing to train"):
        ParametricTSNE(encoder=None).fit(X)


def test_parameters_that_come_frozen_stay_so_unless_a_phase_names_them():
    module = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    module[0].requires_grad_(False)
    fitted = make(encoder=module).fit(X)
    assert torch.equal(fitted.encoder_[0].weight, module[0].weight)
    assert not fitted.encoder_[0].weight.requires_grad
    assert not torch.equal(fitted.encoder_[2].weight, module[2].weight)
    named = LearnedMap(encoder=module, phases=[Phase(10, Relation("umap"), trainable="encoder.0")]).fit(X)
    assert not torch.equal(named.encoder_[0].weight, module[0].weight)


def test_an_encoder_without_anything_that_may_move_is_refused_before_any_work(no_work):
    module = nn.Linear(64, 2).requires_grad_(False)
    with pytest.raises(
        ValueError, match="phase 0 trains nothing: trainable=None names none of the parameters that may"
    ):
        make(encoder=module).fit(X)


def test_a_single_item_is_no_mini_batch():
    with pytest.raises(ValueError, match="batch_size=1 items make no pair"):
        LearnedMap(encoder="mlp", batch_size=1, phases=[Phase(3, Relation("kl"))]).fit(X)
