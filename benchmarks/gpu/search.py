"""Neighbours of tensors on the device: time and recall."""

from collections.abc import Iterator

import torch

from benchmarks.gpu.mixture import mixture
from benchmarks.gpu.setting import Result, Setting, attempt
from torchdr_cne.neighbors import kneighbors

K = 15
_JUDGED = 1000
_FLOOR = 0.985
"""The search aims at .99, measured on a sample of its own."""


def neighbors(setting: Setting) -> Iterator[Result]:
    """Yield seconds and recall of the search among the rows of the data, and among a million."""
    yield attempt(f"n={len(setting.tensor)}", lambda: _search(setting, setting.tensor, 2))
    n = setting.size(1_000_000)
    yield attempt(f"n={n}", lambda: _search(setting, mixture(n, setting.device), 1))


def _search(setting: Setting, X: torch.Tensor, n_searches: int) -> Result:
    """Return the seconds of each search, and the share of the exact neighbours of some rows that it has found."""
    seconds, found = zip(*[setting.timed(lambda: kneighbors(X, K)) for _ in range(n_searches)], strict=True)
    rows = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))[:_JUDGED]
    exact_s, exact = setting.timed(lambda: kneighbors(X, K, backend="torch", rows=rows))
    ids = found[-1].indices[rows.to(found[-1].indices.device)].to(setting.device)
    hits = (ids.unsqueeze(2) == exact.indices.to(setting.device).unsqueeze(1)).any(dim=2)
    recall = float(hits.float().mean())
    brief = f"recall {recall:.4f}, {', then '.join(f'{each:.2f} s' for each in seconds)}"
    return {
        "ok": recall >= _FLOOR,
        "recall": recall,
        "s": list(seconds),
        "exact_s_of_1000": exact_s,
        "stays_on_device": found[-1].indices.device.type == setting.device.type,
        "brief": brief,
    }
