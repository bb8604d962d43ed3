"""What is easily got wrong beside networks: functions that look alike, decoders nobody trains, calls from callbacks."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from torchdr_cne import InfoTSNE, LearnedMap, NegTSNE, Phase
from torchdr_cne.affinity import Function, Neighbors, Symmetrize, UnionAffinity
from torchdr_cne.parametric import Classification, Loss, Position, PositivePairs, Relation

X, Y = load_digits(return_X_y=True)
X, Y = X[:300], Y[:300]


def learned(*phases, **options):
    return LearnedMap(phases=phases, encoder=(16,), random_state=0, **options)


def own_affinity(function):
    return Neighbors(10) | Function(function) | Symmetrize("mean")


def test_affinities_whose_functions_differ_have_graphs_of_their_own():
    def embedding(second):
        first = Phase(10, Relation(affinity=own_affinity(lambda d: torch.exp(-d / 20))))
        return learned(first, Phase(10, Relation(affinity=own_affinity(second)))).fit_transform(X)

    same, other = embedding(lambda d: torch.exp(-d / 20)), embedding(lambda d: (d < 15).float() + 1e-3)
    assert not np.array_equal(same, other)
    both = Relation(affinity=own_affinity(lambda d: 1 / (1 + d))) + Relation(
        affinity=own_affinity(lambda d: 1 / (2 + d))
    )
    with pytest.raises(ValueError, match="draws its edges from one graph"):
        learned(Phase(10, both)).fit(X)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: [Phase(20, Relation(affinity=own_affinity(lambda d: 1 / (k + d))))],
        lambda k: [Phase(20, Relation(lambda a, r: (-a, k * r.exp())))],
        lambda k: [Phase(20, Position("pca"), trainable=lambda name: name.endswith("weight") or k > 1)],
    ],
)
def test_a_checkpoint_tells_functions_within_phases_apart(make, tmp_path):
    def stop(estimator, step):
        return step == 10

    learned(*make(1), checkpoint_dir=tmp_path, checkpoint_every=5, callbacks=stop).fit(X)
    with pytest.raises(ValueError, match="phases"):
        learned(*make(2), checkpoint_dir=tmp_path, checkpoint_every=5).fit(X)


def test_a_checkpoint_tells_pairs_of_other_data_apart(tmp_path):
    rows = torch.from_numpy(X).float()
    options = {"encoder": (16,), "max_iter": 10, "random_state": 0, "checkpoint_dir": tmp_path}
    InfoTSNE(**options).fit(PositivePairs([(rows, rows)]))
    with pytest.raises(ValueError, match="other data"):
        InfoTSNE(**options).fit(PositivePairs([(rows + 1, rows + 1)]))


def test_a_decoder_is_trained_whatever_else_is_added():
    fitted = NegTSNE(encoder=(16,), decoder=(16,), extra_loss=0.1 * Classification(), max_iter=20).fit(X, Y)
    assert "reconstruction_loss" in fitted.history_
    with pytest.raises(ValueError, match="no phase trains the decoder; add Reconstruction"):
        learned(Phase(5, Relation("umap")), decoder=(16,)).fit(X)


def test_an_extra_loss_beside_phases_with_losses_is_refused():
    with pytest.raises(ValueError, match="all phases have theirs; add it to these"):
        learned(Phase(5, Relation("umap")), extra_loss=Classification()).fit(X, Y)


def test_a_callback_that_calls_the_network_does_not_change_the_fit():
    rows, modes = torch.from_numpy(X), []

    def look(estimator, step):
        estimator.encoder_(rows)
        modes.append(estimator.encoder_.training)

    options = {"encoder": (16,), "max_iter": 20, "random_state": 0}
    watched = NegTSNE(**options, callbacks=look).fit_transform(X)
    np.testing.assert_array_equal(watched, NegTSNE(**options).fit_transform(X))
    assert not any(modes)


def test_a_relation_of_a_method_has_its_place_on_the_spectrum():
    losses = {
        name: learned(Phase(5, Relation(method))).fit(X).history_["loss"]
        for name, method in {"s=0": InfoTSNE(), "s=1": InfoTSNE(s=1), "as s=1": InfoTSNE(exaggeration=4.0)}.items()
    }
    assert losses["s=1"] == losses["as s=1"]
    assert losses["s=1"] != losses["s=0"]


def test_a_method_that_cannot_be_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match=r"nu=-1.0 must be a number > 0"):
        Relation(NegTSNE(nu=-1.0))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("options", [{"encoder": (16,)}, {"gradient": "autograd"}])
def test_a_fit_does_not_mind_where_gradients_are_off(context, options):
    with context():
        inside = NegTSNE(max_iter=5, random_state=0, **options).fit_transform(X)
    np.testing.assert_array_equal(inside, NegTSNE(max_iter=5, random_state=0, **options).fit_transform(X))


class Squares(Loss):
    """A loss that is not reduced."""

    def bind(self, training):
        return lambda batch: batch.z.square().sum(dim=1)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase(5, Squares()), r"the loss 'own' gives \(\d+,\) where a tensor without dimensions is needed"),
        (Phase(5, Relation(lambda a, r: -a)), "must return attraction of shape"),
        (Phase(5, Relation(lambda a, r: (-a.sum(), r.sum()))), "do not reduce them"),
    ],
)
def test_losses_of_another_shape_are_told_what_is_needed(phase, message):
    with pytest.raises(ValueError, match=message):
        learned(phase).fit(X)


def test_a_loss_that_does_not_depend_on_what_is_trained_is_refused():
    phase = Phase(5, Position("pca"), trainable="decoder")
    with pytest.raises(ValueError, match=r"the loss \(position\) does not depend on what the phase trains"):
        LearnedMap(encoder=(16,), decoder=(16,), phases=[phase, Phase(5)]).fit(X)


def test_places_without_a_negative_do_not_count_in_a_function():
    """A function that gives NaN there fits the same map as one that gives 0."""
    n_without = []

    def careless(attracted, repelled):
        repulsion = repelled.exp() * repelled
        n_without.append(int(repulsion.isnan().sum()))
        return -attracted, repulsion

    def careful(attracted, repelled):
        return -attracted, torch.where(repelled == -torch.inf, 0.0, repelled.exp() * repelled.clamp_min(-1e6))

    fitted, expected = (learned(Phase(5, Relation(function))).fit(X) for function in (careless, careful))
    assert min(n_without) > 0
    assert np.isfinite(expected.embedding_).all()
    np.testing.assert_allclose(fitted.embedding_, expected.embedding_, rtol=1e-5)
    np.testing.assert_allclose(fitted.history_["loss"], expected.history_["loss"], rtol=1e-5)


def test_an_affinity_computed_in_mini_batches_sees_floating_point_rows():
    seen = set()

    def near(rows):
        seen.add(rows.dtype)
        return torch.exp(-torch.cdist(rows.float(), rows.float()) / 20)

    phase = Phase(5, Relation("kl", affinity=near))
    of_bytes, of_floats = (learned(phase).fit(X.astype(kind)).embedding_ for kind in (np.uint8, np.float32))
    assert seen == {torch.float32}
    np.testing.assert_allclose(of_bytes, of_floats, rtol=1e-4, atol=1e-5)


class Sizes(Loss):
    """A loss of nothing that notes how many items each mini-batch has."""

    def __init__(self):
        self.seen = []

    def bind(self, training):
        def loss(batch):
            self.seen.append(len(batch.z))
            return 0 * batch.z.sum()

        return loss


@pytest.mark.parametrize(("n", "expected"), [(3, {3}), (5, {2, 3}), (7, {2, 3})])
def test_no_mini_batch_has_a_single_item_and_an_epoch_has_them_all(n, expected):
    sizes = Sizes()
    phase = Phase(n_epochs=4, loss=Position("pca") + sizes, batch_size=2, sampling="items")
    learned(phase, affinity_in=UnionAffinity(n_neighbors=min(2, n // 2))).fit(X[:n])
    assert set(sizes.seen) == expected
    assert sum(sizes.seen) == 4 * n


def test_losses_are_summed_by_sum():
    assert sum([Relation("umap"), Classification()]).terms() == (Relation("umap") + Classification()).terms()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Position(np.zeros(300)), "must be an array"),
        (
            lambda: Position(np.zeros((299, 2))),
            r"shape \(n_samples, n_components\) = \(300, 2\); they have shape \(299, 2\)",
        ),
        (lambda: Position(np.full((300, 2), np.nan)), "must be finite"),
    ],
)
def test_places_that_are_none_are_refused_as_such(make, message):
    with pytest.raises(ValueError, match=message):
        learned(Phase(5, make())).fit(X)
