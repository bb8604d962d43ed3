"""The losses and their gradients against numbers computed by an independent implementation in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch

from torchdr_cne import losses
from torchdr_cne.similarities import Cauchy, CosineExp, StudentT, fit_umap_curve, squared_distance

ORACLE = np.load(Path(__file__).parent / "data" / "contrastive_losses.npz")
CASES = sorted({name.rsplit("/", 1)[0] for name in ORACLE.files if name.endswith("/loss")})


def _loss(case, log_q_positive, log_q_negative, log_z):
    if case == "umap":
        return losses.umap(log_q_positive, log_q_negative)
    if case.startswith("neg_nu"):
        return losses.negative_sampling(log_q_positive, log_q_negative, nu=float(case.removeprefix("neg_nu")))
    if case.startswith("nce_logz"):
        return losses.noise_contrastive(log_q_positive, log_q_negative, log_z=log_z)
    if case == "infonce_alt":
        return losses.info_nce(log_q_positive, log_q_negative, include_positive=False)
    return losses.info_nce(log_q_positive, log_q_negative, exaggeration=float(case.removeprefix("infonce_rho")))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_the_oracle_to_1e_10(name):
    case, metric = name.split("/")
    features = torch.from_numpy(ORACLE["features"]).requires_grad_(True)
    start = float(case.removeprefix("nce_logz")) if case.startswith("nce_logz") else 0.0
    log_z = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    # The oracle's cosine similarity is exp(cos/τ) without our −1, which only rescales q.
    offset = 0.0 if metric == "euclidean" else 1 / 0.5
    similarity = Cauchy() if metric == "euclidean" else CosineExp(0.5)
    anchors, positives = features[:64], features[64:]
    log_q_positive = similarity(anchors, positives) + offset
    log_q_negative = similarity(anchors.unsqueeze(1), features[torch.from_numpy(ORACLE["negatives"])]) + offset

    attraction, repulsion = _loss(case, log_q_positive, log_q_negative, log_z)
    total = attraction.sum() + repulsion.sum()
    total.backward()

    assert attraction.shape == repulsion.shape == (64,)
    assert float(total.detach()) == pytest.approx(float(ORACLE[f"{name}/loss"]), rel=1e-10)
    expected = ORACLE[f"{name}/grad"]
    assert np.abs(features.grad.numpy() - expected).max() <= 1e-10 * np.abs(expected).max()
    if f"{name}/grad_log_z" in ORACLE.files:
        assert float(log_z.grad) == pytest.approx(float(ORACLE[f"{name}/grad_log_z"]), rel=1e-10)


def test_the_oracle_covers_all_losses_in_both_metrics():
    assert len(CASES) == 15


def test_a_pair_infinitely_far_apart_adds_nothing_and_has_zero_gradient():
    near = torch.tensor([[-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    padded = torch.cat([near, torch.full((1, 1), -torch.inf, dtype=torch.float64)], dim=1)
    for loss in (
        losses.log_normaliser,
        lambda log_q: losses.classified_as_noise(log_q, 0.3).sum(-1),
        lambda log_q: -losses.log_one_minus(log_q).sum(-1),
    ):
        with_padding = torch.autograd.grad(loss(padded).sum(), near)[0]
        without = torch.autograd.grad(loss(near).sum(), near)[0]
        assert torch.equal(loss(padded), loss(near))
        assert torch.equal(with_padding, without)


def test_a_row_without_negatives_has_normaliser_zero_and_no_gradient():
    log_q = torch.full((2, 3), -torch.inf, requires_grad=True)
    total = losses.log_normaliser(log_q)
    assert torch.equal(total.detach(), torch.full((2,), -torch.inf))
    positive = torch.tensor([-1.0, -0.5], requires_grad=True)
    value = losses.log_add_positive(positive, total).sum()
    value.backward()
    assert torch.equal(log_q.grad, torch.zeros(2, 3))
    assert torch.equal(positive.grad, torch.ones(2))


@pytest.mark.parametrize("similarity", [Cauchy(), Cauchy(1.6, 0.9), StudentT(1.0), StudentT(0.5), CosineExp(0.5)])
def test_similarities_are_symmetric_at_most_one_and_differentiable_at_duplicates(similarity):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    z[1] = z[0]
    z.requires_grad_(True)
    log_q = similarity(z.unsqueeze(0), z.unsqueeze(1))
    torch.testing.assert_close(log_q, log_q.T, rtol=1e-13, atol=1e-13)
    assert float(log_q.detach().max()) <= 1e-12
    off_diagonal = ~torch.eye(40, dtype=torch.bool)
    value = losses.log_one_minus(log_q[off_diagonal] - 1e-9).sum() + log_q.sum()
    assert torch.isfinite(torch.autograd.grad(value, z)[0]).all()


def test_student_with_one_degree_of_freedom_is_cauchy():
    x, y = torch.randn(2, 10, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(StudentT()(x, y), Cauchy()(x, y))


def test_the_umap_curve_passes_through_its_definition():
    a, b = fit_umap_curve(0.1, 1.0)
    z = torch.tensor([[0.7, 0.0]], dtype=torch.float64)
    q = float(Cauchy(a, b)(z, torch.zeros_like(z)).exp())
    d2 = float(squared_distance(z, torch.zeros_like(z)))
    assert q == pytest.approx(1 / (1 + a * d2**b), rel=1e-5)


def test_a_minimal_distance_beyond_the_spread_is_refused():
    with pytest.raises(ValueError, match="min_dist=2"):
        fit_umap_curve(2, 1.0)
