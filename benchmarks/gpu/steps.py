"""Milliseconds of one step: the gradient, the optimiser, the launches and the share of the roofline."""

import gc
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.machine import bandwidth
from benchmarks.gpu.problems import Descent, is_weighted, random_graph, start_of
from benchmarks.gpu.setting import Marks, Result, Setting, attempt
from torchdr_cne import UMAP, InfoTSNE, NegTSNE

METHODS = (NegTSNE, UMAP, InfoTSNE)
N_NEGATIVES = 64
_WARM_UPS, _TIMED, _PROFILED = 3, 20, 2
_BYTES_PER_POINT = 3000
"""Of graph, its copies while it is sorted, and the tensors of a step: a generous bound."""
_SECTOR = 32
"""Bytes that reading one point at random moves."""


def steps(setting: Setting) -> Iterator[Result]:
    """Yield the steps of 70 000 points."""
    yield from _of_size(setting, setting.size(70_000))


def large_steps(setting: Setting) -> Iterator[Result]:
    """Yield the steps of a million and of ten million points, the latter where they fit into memory."""
    for n in (1_000_000,) if setting.small else (1_000_000, 10_000_000):
        free = torch.cuda.mem_get_info(setting.device)[0] if setting.on_cuda else None
        if free is not None and free < _BYTES_PER_POINT * n:
            yield {"result": f"n={n}", "ok": None, "brief": f"left out: {free / 2**30:.0f} GiB are free"}
            continue
        yield from _of_size(setting, setting.size(n))


def _of_size(setting: Setting, n: int) -> Iterator[Result]:
    for method in METHODS:
        yield attempt(f"{method.__name__} n={n}", lambda method=method: _of_method(setting, method, n))
        gc.collect()  # the next graph needs the memory


def _of_method(setting: Setting, method: Any, n: int) -> Result:
    """Return the times of one method's steps."""
    weighted = is_weighted(method)
    graph = random_graph(n, setting.device, weighted=weighted)
    descent = Descent.of(method, graph, start_of(n, 2, setting.device), negatives_per_row=N_NEGATIVES)
    found = {"n": n, "engine": descent.engine, "edges_per_row": graph.n_edges / n, **_times(setting, descent)}
    found["gradient_ms"] = setting.median_ms(lambda: descent.objective.compute_gradients(descent.state), _TIMED)
    found |= _roofline(setting, n, graph.n_edges, weighted, found["step_ms"])
    found["profiled"] = attempt("launches", lambda: _launches(setting, descent))
    found["finite"] = bool(torch.isfinite(descent.objective.embedding()).all())
    brief = (
        f"step {found['step_ms']:.3f} ms (host {found['host_ms']:.3f}), gradient {found['gradient_ms']:.3f} ms, "
        f"{found['profiled'].get('launches')} launches, {found['share']:.0%} of the roofline, {found['engine']}"
    )
    return {**found, "ok": found["finite"], "brief": brief}


def _times(setting: Setting, descent: Descent) -> Result:
    """Return medians over steps of the loop: by the device's clock, and until the host has told it what to do."""
    marks, host = Marks(setting), []

    def before(step: int) -> None:
        if step >= _WARM_UPS:
            marks.mark()
            host.append(time.perf_counter())

    setting.wait()
    descent.steps(_WARM_UPS + _TIMED + 1, before)
    gaps = [1e3 * (second - first) for first, second in pairwise(host)]
    return {"step_ms": statistics.median(marks.gaps_ms()), "host_ms": statistics.median(gaps)}


def _launches(setting: Setting, descent: Descent) -> Result:
    """Return how many kernels a step starts, and their names, by torch's profiler."""
    if not setting.on_cuda:
        return {"launches": 0}
    recorder = profile(activities=[ProfilerActivity.CUDA])

    def before(step: int) -> None:
        if step == _WARM_UPS:
            setting.wait()
            recorder.start()
        elif step == _WARM_UPS + _PROFILED:
            setting.wait()
            recorder.stop()

    descent.steps(_WARM_UPS + _PROFILED + 1, before)
    on_device = [event for event in recorder.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [event for event in on_device if event.name.startswith(("Memcpy", "Memset"))]
    kernels = [event for event in on_device if not event.name.startswith(("Memcpy", "Memset"))]
    busy_us = sum(event.time_range.elapsed_us() for event in on_device)
    most = statistics.multimode(event.name for event in kernels)[:1]
    return {
        "launches": len(kernels) / _PROFILED,
        "copies": len(copies) / _PROFILED,
        "busy_ms": busy_us / _PROFILED / 1e3,
        "most_frequent": [name[:80] for name in most],
    }


def _roofline(setting: Setting, n: int, n_edges: int, weighted: bool, step_ms: float) -> Result:
    """Return the least time in which the bytes of a step can move at the measured bandwidth, and its share."""
    point = 2 * 4  # two components
    # Positions in, gradient out; the optimiser reads gradient, momentum and position, and writes the last two.
    of_points = n * (2 * point + 5 * point + 4)
    of_edges = n_edges * (8 if weighted else 4)
    least_ms = 1e3 * (of_points + of_edges) / bandwidth(setting)
    with_sectors_ms = least_ms + 1e3 * _SECTOR * n_edges / bandwidth(setting)
    return {
        "least_mb": (of_points + of_edges) / 1e6,
        "least_ms": least_ms,
        "with_sectors_ms": with_sectors_ms,
        "share": least_ms / step_ms,
        "share_with_sectors": with_sectors_ms / step_ms,
    }
