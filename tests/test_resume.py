"""A fit that was interrupted goes on from its checkpoint as if nothing had happened."""

import subprocess

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.distributed.harness import run_script
from tests.helpers import interrupt_at, repeated
from torchdr_cne import UMAP, InfoTSNE, NCVis, NegTSNE, load
from torchdr_cne.affinity import EntropicAffinity
from torchdr_cne.storage import PREEMPTED

ENOUGH = 40


@pytest.fixture(scope="module")
def X():
    return load_digits().data[:600].astype(np.float32)


class Interrupted(Exception):
    """What ends a fit in the middle."""


def fit_in_pieces(make, X, folder, pieces):
    """Fit with interruptions after each of ``pieces`` iterations; return the fit that comes to its end."""
    for step in pieces:
        with pytest.raises(Interrupted):
            make(checkpoint_dir=folder, callbacks=interrupt_at(step, Interrupted)).fit(X)
    return make(checkpoint_dir=folder).fit(X)


CASES = {
    "NegTSNE": (NegTSNE, {}),
    "UMAP": (UMAP, {}),
    "NCVis": (NCVis, {}),
    "InfoTSNE": (InfoTSNE, {}),
    "NCVis, autograd": (NCVis, {"gradient": "autograd"}),
    "NCVis, Adam": (NCVis, {"optimizer": "Adam", "learning_rate": 0.1}),
    "NegTSNE, Adam with a schedule": (
        NegTSNE,
        {
            "optimizer": "Adam",
            "scheduler": "OneCycleLR",
            "scheduler_kwargs": {"max_lr": 0.5, "total_steps": ENOUGH},
            "early_exaggeration_iter": 0,
        },
    ),
    "UMAP, float64 on its way with Adagrad": (UMAP, {"dtype": "float64", "optimizer": "Adagrad", "learning_rate": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(case, X, tmp_path):
    method, parameters = CASES[case]

    def make(**more):
        return method(random_state=0, max_iter=ENOUGH, check_interval=7, checkpoint_every=5, **parameters, **more)

    expected = make().fit(X)
    # In early exaggeration, at its end, on a checkpoint and between two, and before the last iteration.
    resumed = fit_in_pieces(make, X, tmp_path, pieces=[3, 9, 20, 33, ENOUGH - 1])
    np.testing.assert_array_equal(resumed.embedding_, expected.embedding_)
    assert resumed.n_iter_ == ENOUGH
    assert resumed.history_["step"] == expected.history_["step"]
    assert resumed.history_["learning_rate"] == expected.history_["learning_rate"]
    assert getattr(resumed, "log_z_", None) == getattr(expected, "log_z_", None)


def test_a_fit_without_a_seed_goes_on_with_the_seed_it_drew(X, tmp_path):
    def make(**more):
        return NegTSNE(max_iter=ENOUGH, checkpoint_every=5, **more)

    class Recorder:
        seen = None

        def __call__(self, estimator, step):
            if step == 10:
                self.seen = estimator.embedding_

    recorder = Recorder()
    first = make(checkpoint_dir=tmp_path / "whole", callbacks=recorder).fit(X)
    for name in ("step-40",):
        subprocess.run(["rm", "-r", str(tmp_path / "whole" / name)], check=True)
    again = make(checkpoint_dir=tmp_path / "whole").fit(X)
    np.testing.assert_array_equal(again.embedding_, first.embedding_)


def test_a_finished_fit_is_not_done_again(X, tmp_path):
    steps = []

    class Counting(NegTSNE):
        def on_training_step_start(self):
            steps.append(self.n_iter_)

        def on_affinity_computation_start(self):
            steps.append("graph")

    first = Counting(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    steps.clear()
    second = Counting(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    assert steps == ["graph"]  # read, not computed
    np.testing.assert_array_equal(second.embedding_, first.embedding_)
    assert second.n_iter_ == 20
    assert second.history_ == first.history_
    assert (second.graph_ != first.graph_).nnz == 0


def test_the_graph_is_read_from_the_folder_and_not_searched_again(X, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, callbacks=interrupt_at(3, Interrupted)).fit(X)
    expected = NegTSNE(random_state=0, max_iter=20).fit(X)
    monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", lambda *a, **k: pytest.fail("searched again"))
    resumed = NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    np.testing.assert_array_equal(resumed.embedding_, expected.embedding_)


def test_a_damaged_graph_is_computed_again_with_a_warning(X, tmp_path):
    expected = NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    for step in tmp_path.glob("step-*"):
        subprocess.run(["rm", "-r", str(step)], check=True)
    with (tmp_path / "graph-0-of-1" / "state.safetensors").open("r+b") as file:
        file.seek(500)
        file.write(b"\xff")
    with pytest.warns(UserWarning, match="the saved graph is not used: .*state.safetensors"):
        again = NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    np.testing.assert_array_equal(again.embedding_, expected.embedding_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_neighbors": 10}, r"n_neighbors.*15.*10"),
        ({"max_iter": 30}, r"max_iter.*20.*30"),
        ({"affinity_in": EntropicAffinity(perplexity=5)}, "affinity_in"),
        ({"init": "random"}, r"init.*auto.*random"),
        ({"random_state": 1}, r"random_state.*0.*1"),
    ],
)
def test_another_fit_in_the_folder_is_refused_with_what_differs(change, message, X, tmp_path):
    NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match=message):
        NegTSNE(**{"random_state": 0, "max_iter": 20, "checkpoint_dir": tmp_path, **change}).fit(X)


def test_other_data_in_the_folder_are_refused(X, tmp_path):
    NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    changed = X.copy()
    changed[300, 20] += 1
    for data, part in ((changed, "digest"), (X[:-1], "rows"), (X[:, ::-1], "digest"), (X[::-1], "digest")):
        with pytest.raises(ValueError, match=part):
            NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(data)
    graph = NegTSNE(random_state=0, max_iter=20).fit(X).graph_
    with pytest.raises(ValueError, match="edges|digest"):
        NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X, graph=graph)


def test_how_a_fit_runs_may_change(X, tmp_path):
    expected = NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, n_jobs=1).fit(X).embedding_
    other = NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, n_jobs=2, checkpoint_every=3, verbose=True)
    np.testing.assert_array_equal(other.fit(torch.from_numpy(X)).embedding_.numpy(), expected)


def test_a_given_start_belongs_to_the_identity(X, tmp_path):
    start = np.random.default_rng(0).normal(size=(len(X), 2))
    NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, init=start).fit(X)
    NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, init=start.copy()).fit(X)
    with pytest.raises(ValueError, match="init"):
        NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, init=start + 1).fit(X)


def test_ctrl_c_saves_what_there_is_and_the_fit_goes_on_when_begun_again(X, tmp_path):
    def interrupt(estimator, step):
        if step == 12:
            raise KeyboardInterrupt

    expected = NegTSNE(random_state=0, max_iter=20).fit(X).embedding_
    with pytest.warns(UserWarning, match="interrupted after 12 iterations"):
        NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path, callbacks=interrupt).fit(X)
    resumed = NegTSNE(random_state=0, max_iter=20, checkpoint_dir=tmp_path).fit(X)
    np.testing.assert_array_equal(resumed.embedding_, expected)


INTERRUPTED_ANYWHERE = """
import os, random, signal, sys, threading, time, warnings
import numpy as np
from sklearn.datasets import load_digits
from torchdr_cne import NegTSNE

warnings.simplefilter("ignore")
X = load_digits().data[:300].astype(np.float32)

def make(**more):
    return NegTSNE(random_state=0, max_iter=300, check_interval=20, **more)

expected, n_interrupted = make().fit(X).embedding_, 0
for trial in range(int(sys.argv[2])):
    folder = f"{sys.argv[1]}/{trial}"
    looping = threading.Event()

    def interrupt():
        looping.wait()
        time.sleep(random.Random(trial).uniform(0, 0.05))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # after the fit it is nobody's
    signal.signal(signal.SIGINT, handler)
    try:
        estimator = make(checkpoint_dir=folder, callbacks=lambda e, step: looping.set()).fit(X)
        n_interrupted += estimator.n_iter_ < 300
        time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    assert (make(checkpoint_dir=folder).fit(X).embedding_ == expected).all(), trial
print(n_interrupted)
"""


@pytest.mark.parametrize("n_trials", [5, *repeated(25)])
def test_ctrl_c_at_any_moment_loses_no_bit(n_trials, tmp_path):
    output = run_script(INTERRUPTED_ANYWHERE, tmp_path, n_trials)
    assert int(output.split()[-1]) > n_trials // 5


FULL_DISK = """
import resource, sys, warnings
import numpy as np
from sklearn.datasets import load_digits
from torchdr_cne import NegTSNE

X, folder, limit = load_digits().data[:600].astype(np.float32), sys.argv[1], int(sys.argv[2])
NegTSNE(random_state=0, max_iter=5).fit(X)  # what is compiled is written elsewhere
steps = []

def fill_disk(estimator, step):
    steps.append(step)
    if step == 12:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if step == 38 and sys.argv[3] == "freed":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

estimator = NegTSNE(random_state=0, max_iter=40, checkpoint_dir=folder, checkpoint_every=10, callbacks=fill_disk)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        estimator.fit(X)
    except OSError as error:
        print("OSError", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # to print
print(len(steps), estimator.n_iter_, np.isfinite(estimator.embedding_).all())
print([str(w.message) for w in caught if "could not be written" in str(w.message)])
"""


@pytest.mark.parametrize(  # `tests/faults/test_files.py` fills the disk under a checkpoint in every way
    ("limit", "later"),
    [(1024, "full"), *repeated((0, "full"), (5000, "full"), (0, "freed"), (1024, "freed"), (5000, "freed"))],
)
def test_a_full_disk_costs_checkpoints_but_not_the_fit(limit, later, X, tmp_path):
    lines = run_script(FULL_DISK, tmp_path, limit, later).splitlines()
    assert ("OSError" in lines[0]) == (later == "full")
    assert lines[-2] == "40 40 True"
    warned = lines[-1]
    assert "step 20" in warned
    assert "step 30" in warned
    assert "step 10" in warned  # the one that is intact
    steps = sorted(path.name for path in tmp_path.glob("step-*"))
    assert steps == (["step-10", "step-40"] if later == "freed" else ["step-10"])
    again = NegTSNE(random_state=0, max_iter=40, checkpoint_dir=tmp_path, checkpoint_every=10).fit(X)
    np.testing.assert_array_equal(again.embedding_, NegTSNE(random_state=0, max_iter=40).fit(X).embedding_)
    assert not (tmp_path / PREEMPTED).exists()


def test_a_saved_estimator_is_the_same_when_loaded(X, tmp_path):
    fitted = UMAP(random_state=0, max_iter=20).fit(X)
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.embedding_, fitted.embedding_)
    assert loaded.get_params() == fitted.get_params()
