"""Models and checkpoints of earlier versions are read and go on; tests/older_files.py says which fits they are of."""

import json
import shutil

import numpy as np
import pytest

from tests.older_files import CHECKPOINTS, EXPECTED, FOLDER, MODELS, STOPPED, begin, described
from torchdr_cne import load

EXPECT = json.loads(EXPECTED.read_text())
CLOSE = 1e-5
"""Absolute; other processors round otherwise."""


def assert_as_written(estimator, name):
    found, expected = described(estimator), EXPECT[name]
    assert found["class"] == expected["class"]
    assert found["steps"] == expected["steps"]
    given_up = type(estimator)._former_parameters
    kept = {key: value for key, value in expected["parameters"].items() if key not in given_up}
    # Parameters that are no longer the default are part of the words now.
    then = {key: value.replace("init='pca', init_scaling=1.0, ", "") for key, value in found["parameters"].items()}
    assert {key: then.get(key) for key in kept} == kept
    assert found.keys() == expected.keys()
    for key in found.keys() - {"class", "steps", "parameters"}:
        if expected[key] is not None:
            np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=CLOSE, err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_what_it_was(name, tmp_path):
    folder = shutil.copytree(FOLDER / f"model-{name}", tmp_path / "model")
    assert_as_written(load(folder), f"model-{name}")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_fit_goes_on_from_its_checkpoint(name, tmp_path):
    seen = []
    folder = shutil.copytree(FOLDER / f"checkpoint-{name}", tmp_path / "checkpoints")
    resumed = begin(name, folder, callbacks=lambda estimator, step: seen.append(step))
    assert seen == list(range(STOPPED + 1, resumed.n_iter_ + 1))
    assert_as_written(resumed, f"checkpoint-{name}")
