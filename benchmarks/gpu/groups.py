"""Fits by ranks: a group of one, and two ranks on one GPU."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.gpu.setting import Result, Setting, attempt
from torchdr_cne import NegTSNE

_POINTS = 5000


def ranks(setting: Setting) -> Iterator[Result]:
    """Yield whether a group of one rank fits as a single process does; two on one GPU are not possible yet."""
    yield attempt("a group of one", lambda: _alone(setting))
    reason = "CUDA tensors are exchanged by NCCL alone, which takes one rank a GPU"
    yield {"result": "two gloo ranks on one GPU", "ok": None, "state": "not built", "brief": f"not built: {reason}"}


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
