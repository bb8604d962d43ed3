"""A process that is forked after a fit: one thread works, and several are refused instead of waiting for ever."""

import os

import pytest

from tests.distributed.harness import run_script

SCRIPT = """
import os, sys
import numpy as np, torch
from torchdr_cne import NegTSNE

torch.set_num_threads(2)

X = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
before, in_child, use = sys.argv[1:]
jobs = {"none": None, "1": 1, "2": 2}
fitted = NegTSNE(max_iter=5, n_jobs=jobs[before]).fit(X) if before != "never" else None
if os.fork() == 0:
    try:
        if use == "fit":
            NegTSNE(max_iter=5, n_jobs=jobs[in_child]).fit(X)
        else:
            fitted.set_params(n_jobs=jobs[in_child]).transform(X + 1)
        print("done", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
REFUSED = (
    "this process was forked from one that has fitted with several threads, which a fork loses; use n_jobs=1 here, or "
    "start processes by the methods 'spawn' or 'forkserver' of multiprocessing.\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("before", "in_child", "use", "outcome"),
    [
        ("2", "2", "fit", REFUSED),
        ("none", "none", "fit", REFUSED),
        ("2", "none", "transform", REFUSED),
        ("2", "1", "fit", "done\n"),
        ("2", "1", "transform", "done\n"),
        ("1", "2", "fit", "done\n"),
        ("never", "2", "fit", "done\n"),
    ],
)
def test_several_threads_after_a_fork_are_refused(before, in_child, use, outcome):
    assert run_script(SCRIPT, before, in_child, use, OMP_NUM_THREADS="2") == outcome
