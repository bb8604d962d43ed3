"""Networks that ranks train together: the same everywhere, by the mean of their gradients."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from tests.distributed import cases, encoder_cases
from tests.distributed.harness import found_by_ranks
from torchdr_cne.evaluation import knn_accuracy
from torchdr_cne.networks.batches import Draw

CASES = "tests.distributed.encoder_cases"


def test_ranks_end_with_the_same_encoder_as_good_as_that_of_one_process(tmp_path):
    found = found_by_ranks(2, tmp_path, f"{CASES}:encoders", str(tmp_path / "checkpoints"))
    for name, value in found[0].items():  # weights, running statistics, places
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)
    names = set(found[0])
    assert {"own 1.running_mean", "mlp 2.1.running_var", "alone 2.0.weight", "own alone 0.weight"} <= names
    for name in names:
        if name.startswith("own "):
            np.testing.assert_array_equal(found[0].get(name.replace("own", "resumed"), found[0][name]), found[0][name])
    classes = load_digits().target
    for name in ("mlp", "own", "parametric", "spectral", "images", "alone", "own alone"):
        np.testing.assert_allclose(found[0][f"{name} placed"], found[0][f"{name} embedding"], atol=1e-5)
    for name in ("parametric", "spectral"):
        assert knn_accuracy(found[0][f"{name} embedding"], classes, n_neighbors=15) > 0.75
    alone = cases.make("NegTSNE", encoder="mlp", decoder="mlp", max_iter=120, batch_size=256).fit(cases.digits())
    first_pairs = encoder_cases.own_pairs(0)  # what rank 0 would have learned by itself
    assert not np.allclose(found[0]["own pairs placed"], first_pairs.transform(cases.digits()), atol=1e-3)
    accuracy = [knn_accuracy(z, classes, n_neighbors=15) for z in (found[0]["mlp embedding"], alone.embedding_)]
    assert accuracy[0] > accuracy[1] - 0.02


def test_a_step_s_gradient_is_the_mean_over_the_ranks_mini_batches(tmp_path):
    found = found_by_ranks(2, tmp_path, f"{CASES}:first_gradient")
    np.testing.assert_array_equal(found[0]["gradient"], found[1]["gradient"])
    draws = [
        Draw(
            **{name.removeprefix("draw "): torch.from_numpy(value) for name, value in of_rank.items() if "draw" in name}
        )
        for of_rank in found
    ]
    heads = [draw.ids[draw.heads] for draw in draws]
    assert int(heads[0].max()) < int(heads[1].min())  # each rank draws of its own rows
    assert abs(len(heads[0]) + len(heads[1]) - 256) <= 8
    expected = encoder_cases.first_gradient(draws)
    mean = (expected["gradient 0"] + expected["gradient 1"]) / 2
    np.testing.assert_allclose(found[0]["gradient"], mean, rtol=1e-6, atol=1e-9 * np.abs(mean).max())
    assert not np.allclose(expected["gradient 0"], expected["gradient 1"])
