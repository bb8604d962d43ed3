"""Memory: told before it is needed, and close to what is measured."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.helpers import repeated
from torchdr_cne import UMAP, InfoTSNE, NegTSNE, estimate_memory, resources
from torchdr_cne.devices import free_memory
from torchdr_cne.fitting import memory

PEAK = """
import ctypes, gc, sys, warnings
import numpy as np, torch, torchdr_cne
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
torch.set_num_threads(2)
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = (rng.normal(size=(200, 50))[rng.integers(0, 200, 60_000)] * 2 + rng.normal(size=(60_000, 50))).astype(np.float32)
make = lambda: getattr(torchdr_cne, sys.argv[1])(random_state=0, max_iter=20)
make().fit(X[:20_000])
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
make().fit(X)
print((status("VmHWM") - before) / torchdr_cne.estimate_memory(60_000, 50, make()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("method", ["NegTSNE", *repeated("UMAP")])
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(method):
    command = [sys.executable, "-c", PEAK, method]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 / 1.25 <= float(result.stdout) <= 1 / 0.75


def test_a_fit_that_cannot_fit_says_so_before_it_begins(monkeypatch):
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000)
    with pytest.raises(MemoryError, match=r"200 rows of 5 columns needs about 0\.\d\d GB .* and 0\.00 GB of memory"):
        NegTSNE().fit(X)
    monkeypatch.setattr(memory, "available_memory", lambda: None)  # unknown: go on
    NegTSNE(max_iter=2).fit(X)


def test_a_given_graph_needs_the_memory_of_the_loop_only(monkeypatch):
    X = np.random.default_rng(0).normal(size=(3000, 5)).astype(np.float32)
    graph = NegTSNE(max_iter=1).fit(X).graph_
    stages = NegTSNE()._bytes_by_stage(*X.shape)
    X = np.tile(X, (1, 2000))  # the search would need much more
    assert NegTSNE()._bytes_by_stage(*X.shape)["neighbours"] > 2 * stages["loop"]
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * stages["loop"])
    assert NegTSNE(max_iter=1, init="random").fit(X, graph=graph).graph_.nnz == graph.nnz
    with pytest.raises(MemoryError, match="3000 rows of 10000 columns"):
        NegTSNE(max_iter=1).fit(X)


def test_estimates_grow_with_all_that_takes_memory():
    base = estimate_memory(100_000, 50)
    assert estimate_memory(200_000, 50) > 1.8 * base
    assert estimate_memory(100_000, 500) > 2 * base
    assert estimate_memory(100_000, 50, NegTSNE(n_neighbors=60)) > 2 * base
    assert estimate_memory(100_000, 50, InfoTSNE(n_negatives=8192)) > 2 * base
    assert estimate_memory(100_000, 50, UMAP(n_components=2)) > 0.5 * base


def test_the_control_groups_limit_counts(monkeypatch):
    monkeypatch.setattr(resources, "_system_memory", lambda: 8 * 2**30)
    monkeypatch.setattr(resources, "_group_memory", lambda: 2**30)
    assert resources.available_memory() == 2**30


class TestOfAGPU:
    """The formula against peaks that were measured on an H200, and what follows from it."""

    @pytest.mark.parametrize(
        ("method", "n", "k", "stage", "measured"),
        [
            (UMAP, 1_000_000, 15, "neighbours", 2.851e9),
            (UMAP, 1_000_000, 15, "loop", 1.291e9),
            (UMAP, 1_000_000, 30, "graph", 3.385e9),
            (UMAP, 1_000_000, 30, "loop", 2.029e9),
            (NegTSNE, 1_000_000, 30, "loop", 1.897e9),
            (UMAP, 3_000_000, 15, "graph", 4.915e9),
            (NegTSNE, 3_000_000, 15, "loop", 2.903e9),
        ],
    )
    def test_stages_are_no_less_and_little_more_than_measured(self, method, n, k, stage, measured):
        estimated = method(n_neighbors=k)._bytes_by_stage(n, 50, "cuda")[stage]
        assert measured <= estimated <= 1.35 * measured
        assert estimate_memory(n, 50, method(n_neighbors=k), device="cuda") >= estimated

    def test_the_message_names_both_numbers_and_a_remedy(self):
        with pytest.raises(
            MemoryError, match=r"needs about 9\.50 GB of GPU memory .* 8\.00 GB are free; pass .* NumPy"
        ):
            memory.check_gpu_memory(9_500_000_000, 8_000_000_000, 10**7, 50, by_loop=False)
        with pytest.raises(MemoryError, match="are free; lower n_neighbors, pass fewer rows, or set device='cpu'"):
            memory.check_gpu_memory(2, 1, 10**7, 50, by_loop=True)
        memory.check_gpu_memory(2, 2, 10**7, 50, by_loop=True)

    @pytest.mark.parametrize("name", ["cuda", "cuda:1"])
    def test_what_is_free_is_within_the_share_of_this_process(self, monkeypatch, name):
        known = {"mem_get_info": (60, 100), "memory_reserved": 20, "memory_allocated": 15}
        for function, value in known.items():
            monkeypatch.setattr(
                torch.cuda, function, lambda number, value=value: (number == int(name[5:] or 0)) and value
            )
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        for share, free in ((1.0, 65), (0.5, 35), (0.1, 0)):
            monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda number, share=share: share)
            assert free_memory(torch.device(name)) == free


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 5, NegTSNE(), "tpu"), "device='tpu' is unknown"),
        ((0, 5), "n=0 must be an integer >= 1"),
        ((5, 2.5), r"d=2\.5 must be an integer >= 1"),
        ((5, 5, NegTSNE(gradient="autograd")), "gradient='autograd' .* depends on its loss hooks"),
        ((5, 5, NegTSNE(dtype="float64")), "dtype='float64' depends on its loss hooks"),
    ],
)
def test_what_cannot_be_estimated_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_memory(*arguments)
