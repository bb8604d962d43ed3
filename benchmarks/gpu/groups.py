"""Fits by ranks: a group of one, and two ranks on one GPU."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.gpu.one_of_two import fitted
from benchmarks.gpu.setting import Result, Setting, attempt
from torchdr_cne import UMAP, NegTSNE

_POINTS = 5000


def ranks(setting: Setting) -> Iterator[Result]:
    """Yield whether a group of one rank, and two ranks that share one GPU, fit as a single process does."""
    yield attempt("a group of one", lambda: _alone(setting))
    yield attempt("two ranks on one GPU", lambda: _two(setting))


def _two(setting: Setting) -> Result:
    """Return whether two ranks, which exchange through the host, have the embeddings of one process.

    The rows have half precision, since such an array stays on the host: ranks share their rows there, and a process
    alone would otherwise compute its neighbours on the device, in another order of sums.
    """
    X, device = setting.tensor[:_POINTS].cpu().numpy().astype(np.float16), setting.device.type
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "rows.npy", Path(folder) / "found.npy"
        np.save(data, X)
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
        command = [*launch, "benchmarks.gpu.one_of_two", str(data), device, str(out)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"torchrun ended with {done.returncode}: {done.stderr[-1500:]}")
        together = np.load(out)
    alone = np.stack([fitted(method, X, device, distributed=False) for method in (NegTSNE, UMAP)])
    same = [bool(np.array_equal(*pair)) for pair in zip(together, alone, strict=True)]
    widest = float(np.abs(together - alone).max())
    brief = f"equal bits: NegTSNE {same[0]}, UMAP {same[1]} (apart ≤ {widest:.1e}); {seconds:.0f} s with the start"
    return {"ok": same[0], "same_bits": same, "largest_difference": widest, "launch_s": seconds, "brief": brief}


def _alone(setting: Setting) -> Result:
    """Return whether a fit in a process group of size 1 has the bits of one without; its collectives are skipped."""
    X, options = setting.tensor[:_POINTS], {"random_state": 0, **setting.options_for_few}
    alone = NegTSNE(distributed=False, **options).fit_transform(X)
    backend = "cpu:gloo,cuda:nccl" if setting.on_cuda else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder) / "store"), 1)
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timedelta(seconds=30))
        try:
            total = torch.ones(4, device=setting.device)
            dist.all_reduce(total)
            estimator = NegTSNE(distributed=True, **options)
            together = estimator.fit_transform(X)
        finally:
            dist.destroy_process_group()
    same = bool(torch.equal(alone, together))
    ok = same and bool((total == 1).all()) and estimator.n_ranks_ == 1
    return {"ok": ok, "backend": backend, "same_bits": same, "brief": f"{backend}, {'equal' if same else 'other'} bits"}
