"""Whole fits on the device: the quality that MNIST's must have, their seconds by stage, and a profile of them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.mixture import mixture
from benchmarks.gpu.setting import Result, Setting, attempt
from benchmarks.stages import StageClock
from torchdr_cne import TSNE, UMAP, InfoTSNE, NegTSNE
from torchdr_cne.evaluation import knn_accuracy, knn_recall

RECALL_FLOORS = {"NegTSNE": 0.09, "UMAP": 0.12, "InfoTSNE": 0.18, "TSNE": 0.36}
"""recall@15 on MNIST: the values of README.md and docs/exact-methods.md less their noise."""
ACCURACY_FLOOR = 0.96
_ROWS_OF_TABLE = 15
_PROFILED_STEPS = 40


def floors(setting: Setting) -> Iterator[Result]:
    """Yield quality and seconds of fits with default parameters, of tensors on the device and of NumPy arrays."""
    inputs: dict[str, Any] = {"tensor": setting.tensor, "NumPy": np.array(setting.data.X)}
    for methods in ((NegTSNE, UMAP, InfoTSNE), (TSNE,)):
        for (kind, X), method in itertools.product(inputs.items(), methods):
            yield attempt(f"{method.__name__}, {kind}", lambda method=method, X=X: _judged(setting, method, X))


def _judged(setting: Setting, method: Any, X: Any) -> Result:
    """Fit twice, and return the seconds of both fits and the quality of the second."""
    first_s, first = setting.timed(lambda: _fit(setting, method, X))
    warm_s, embedding = setting.timed(lambda: _fit(setting, method, X))
    same = bool(np.array_equal(_on_host(first), _on_host(embedding)))
    found = {
        "first_s": first_s,
        "warm_s": warm_s,
        "recall": knn_recall(setting.data.X, _on_host(embedding)),
        "accuracy": knn_accuracy(_on_host(embedding), setting.data.y),
        "same_kind": type(embedding) is type(X),
        "same_bits": same,
    }
    floor = RECALL_FLOORS[method.__name__] if setting.is_mnist else 0.0
    good = found["recall"] >= floor and found["accuracy"] >= (ACCURACY_FLOOR if setting.is_mnist else 0.0)
    brief = (
        f"recall {found['recall']:.3f} (≥ {floor}), accuracy {found['accuracy']:.3f}, {first_s:.2f} s, then "
        f"{warm_s:.2f} s{'' if same else ', other bits'}"
    )
    return {**found, "ok": good and found["same_kind"], "brief": brief}


def _fit(setting: Setting, method: Any, X: Any, **options: Any) -> Any:
    return method(random_state=0, device=str(setting.device), **{**setting.options, **options}).fit_transform(X)


def _on_host(embedding: Any) -> np.ndarray:
    return embedding.cpu().numpy() if isinstance(embedding, torch.Tensor) else embedding


# ---- seconds by stage -------------------------------------------------------------------------------------


def stages(setting: Setting) -> Iterator[Result]:
    """Yield the seconds of each stage of fits of tensors on the device."""
    for method in (NegTSNE, UMAP, TSNE):
        name = f"{method.__name__} n={len(setting.tensor)}"
        yield attempt(name, lambda method=method: _by_stage(setting, method, setting.tensor, 2))
    million = mixture(setting.size(1_000_000), setting.device)
    for method in (NegTSNE, UMAP):
        name = f"{method.__name__} n={len(million)}"
        yield attempt(name, lambda method=method: _by_stage(setting, method, million, 1))


def _by_stage(setting: Setting, method: Any, X: torch.Tensor, n_fits: int) -> Result:
    """Return the seconds of the last of some fits."""
    for _ in range(n_fits):
        clock = StageClock(settle=setting.wait)
        with clock.watching():
            seconds, _ = setting.timed(lambda: _fit(setting, method, X))
    parts = ", ".join(f"{name} {value:.3f}" for name, value in clock.seconds.items())
    rest = seconds - sum(clock.seconds.values())
    return {"n": len(X), "s": seconds, **clock.seconds, "rest": rest, "brief": f"{seconds:.2f} s: {parts}"}


# ---- a profile --------------------------------------------------------------------------------------------


def profiles(setting: Setting) -> Iterator[Result]:
    """Yield what takes longest in warm fits of a few steps, on the device and on the host."""
    for method in (NegTSNE, TSNE):
        yield attempt(method.__name__, lambda method=method: _profile(setting, method))


def _profile(setting: Setting, method: Any) -> Result:
    def fit() -> Any:
        return _fit(setting, method, setting.tensor, max_iter=_PROFILED_STEPS)

    fit()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.on_cuda else [])]
    with profile(activities=activities) as recorder:
        seconds, _ = setting.timed(fit)
    found = list(recorder.key_averages())
    by_device = _table(found, lambda event: event.self_device_time_total)
    by_host = _table(found, lambda event: event.self_cpu_time_total)
    brief = "; ".join(" ".join(line.split())[:50] for line in (by_device or by_host)[:3])
    return {"n_iter": _PROFILED_STEPS, "s": seconds, "by_device": by_device, "by_host": by_host, "brief": brief}


def _table(events: list[Any], microseconds: Callable[[Any], float]) -> list[str]:
    """Return a line for each of the longest: milliseconds, calls, name."""
    longest = sorted(events, key=microseconds, reverse=True)[:_ROWS_OF_TABLE]
    rows = [(microseconds(event) / 1e3, event.count, event.key) for event in longest if microseconds(event)]
    return [f"{ms:10.2f} ms {count:8d} × {name[:90]}" for ms, count, name in rows]
