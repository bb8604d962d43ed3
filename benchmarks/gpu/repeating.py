"""Whether fits on the device repeat bit by bit, and whether its loop ever waits for the device."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.problems import Descent, is_weighted, random_graph, start_of
from benchmarks.gpu.setting import Result, Setting, attempt
from torchdr_cne import TSNE, UMAP, InfoTSNE, NegTSNE

_POINTS, _TSNE_STEPS = 5000, 200
_FIRST, _LAST = 3, 23
"""Steps between which nothing may wait."""


def reproducible(setting: Setting) -> Iterator[Result]:
    """Yield whether two fits have equal bits, and what in the loop waits for the device."""
    fits: list[tuple[str, Any, dict[str, Any]]] = [
        (method.__name__, method, {}) for method in (NegTSNE, UMAP, InfoTSNE)
    ]
    fits += [(f"TSNE {form}", TSNE, {"repulsion": form, "max_iter": _TSNE_STEPS}) for form in ("fused", "fft")]
    X = setting.tensor[:: max(1, len(setting.tensor) // _POINTS)][:_POINTS].contiguous()
    for name, method, own in fits:
        options = {**own, **setting.options_for_few}
        yield attempt(f"{name} twice", lambda method=method, options=options: _twice(method, X, options))
    for method in (NegTSNE, UMAP, InfoTSNE):
        yield attempt(f"{method.__name__} without waiting", lambda method=method: _without_waiting(setting, method))


def _twice(method: Any, X: torch.Tensor, options: dict[str, Any]) -> Result:
    first, second = (method(random_state=0, **options).fit_transform(X) for _ in range(2))
    n_different = int((first != second).any(dim=1).sum())
    brief = "equal bits" if n_different == 0 else f"{n_different} of {len(X)} rows differ"
    return {"ok": n_different == 0, "n": len(X), "options": options, "n_different": n_different, "brief": brief}


def _without_waiting(setting: Setting, method: Any) -> Result:
    """Take steps while every synchronisation is an error, whose traceback names the operation."""
    n = setting.size(_POINTS)
    graph = random_graph(n, setting.device, weighted=is_weighted(method))
    descent = Descent.of(method, graph, start_of(n, 2, setting.device))

    def before(step: int) -> None:
        if setting.on_cuda:
            torch.cuda.set_sync_debug_mode("error" if _FIRST <= step < _LAST else "default")

    try:
        descent.steps(_LAST + 1, before)
    finally:
        if setting.on_cuda:
            torch.cuda.set_sync_debug_mode("default")
    return {"ok": True, "brief": f"{_LAST - _FIRST} steps"}
