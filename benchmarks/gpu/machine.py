"""What the machine is, and what it allows: bandwidth and the cost of a launch."""

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch

from benchmarks import record
from benchmarks.gpu.setting import Result, Setting, attempt

_PACKAGES = ["triton", "numpy", "scipy", "scikit-learn", "numba", "faiss-cpu", "pykeops"]
_VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "TRITON_INTERPRET")


def machine(setting: Setting) -> Iterator[Result]:
    """Yield versions, the card, its bandwidth and its launch latency."""
    yield attempt("versions", _versions)
    yield attempt("host", _host)
    yield attempt("card", lambda: _card(setting))
    yield attempt("copy", lambda: _copy(setting))
    yield attempt("launch", lambda: _launch(setting))


def _versions() -> Result:
    found: Result = {**record.versions(_PACKAGES), "torch": torch.__version__}
    return {**found, "brief": ", ".join(f"{name} {version}" for name, version in found.items() if version)}


def _host() -> Result:
    found = {**record.machine(), "threads": torch.get_num_threads()}
    found |= {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {**found, "brief": f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads"}


def _card(setting: Setting) -> Result:
    if not setting.on_cuda:
        return {"name": "none", "brief": "no GPU"}
    found: Any = torch.cuda.get_device_properties(setting.device)
    free, total = torch.cuda.mem_get_info(setting.device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "l2_mb": getattr(found, "L2_cache_size", 0) / 2**20,
        "free_gb": free / 2**30,
        "total_gb": total / 2**30,
        "cuda": torch.version.cuda,
        "brief": f"{found.name}, {free / 2**30:.0f} GiB free",
    }


def _copy(setting: Setting) -> Result:
    rate = bandwidth(setting)
    return {"gb_per_s": rate / 1e9, "brief": f"{rate / 1e9:.0f} GB/s read and written"}


@lru_cache(maxsize=1)
def bandwidth(setting: Setting) -> float:
    """Return the bytes a second that a copy on the device reads and writes."""
    source = torch.ones(1 << (24 if setting.small or not setting.on_cuda else 30), dtype=torch.uint8)
    source = source.to(setting.device)
    target = torch.empty_like(source)
    return 2e3 * len(source) / setting.median_ms(lambda: target.copy_(source))


def _launch(setting: Setting) -> Result:
    one = torch.zeros(1, device=setting.device)

    def many() -> None:
        for _ in range(1000):
            one.add_(1.0)

    # A thousand calls take as many microseconds as one of them nanoseconds.
    us = setting.median_ms(many, repeats=5, warm_ups=1)
    return {"us": us, "brief": f"{us:.1f} µs a launch"}
