"""Whether a change costs time: ``python -m benchmarks.check``, or ``make bench-check``.

Three things are timed, each in processes of their own that take turns: importing an estimator against importing torch,
a fit of NegTSNE against scikit-learn's t-SNE of the same rows, and the tile kernel of NegTSNE against a matrix product.
What counts is the ratio to the peer within one run, compared with that of the record. With ``--against FOLDER``,
another checkout takes the peers' place, and the ratio is that of the two trees.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "check.json"
TOLERANCE = 0.10
"""A ratio further than this from the record's is worth a look; single runs on a busy machine differ by as much."""

_CLOCK = "import time; start = time.perf_counter()\n{body}\nprint(time.perf_counter() - start)"
_FIT = """
import time
from sklearn.datasets import load_digits
from torchdr_cne import NegTSNE
X = load_digits().data
NegTSNE(max_iter=5, random_state=0, n_jobs=1).fit(X)
start = time.perf_counter()
for _ in range(5):
    NegTSNE(random_state=0, n_jobs=1).fit(X)
print((time.perf_counter() - start) / 5)
"""
_PEER_FIT = """
import time
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
X = load_digits().data[:500]
start = time.perf_counter()
TSNE(max_iter=250, random_state=0, n_jobs=1).fit_transform(X)
print(time.perf_counter() - start)
"""
_KERNEL = """
import time, numpy as np, torch
from torchdr_cne import NegTSNE
torch.set_num_threads(1)
X = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
graph = NegTSNE(max_iter=1, random_state=0, n_jobs=1).fit(X).graph_
start_nd = X[:, :2].copy()
options = dict(init=start_nd, random_state=0, n_jobs=1, negatives_per_row=256)
fit = lambda steps: NegTSNE(max_iter=steps, **options).fit(X, graph=graph)
fit(2)
times = []
for steps in (50, 250):
    start = time.perf_counter()
    fit(steps)
    times.append(time.perf_counter() - start)
print((times[1] - times[0]) / 200)
"""
_PEER_KERNEL = """
import time, torch
torch.set_num_threads(1)
a = torch.ones((1024, 1024))
a @ a
start = time.perf_counter()
for _ in range(20):
    a @ a
print((time.perf_counter() - start) / 20)
"""
CASES = {
    "import": (_CLOCK.format(body="import torchdr_cne; torchdr_cne.NegTSNE"), _CLOCK.format(body="import torch")),
    "fit": (_FIT, _PEER_FIT),
    "kernel": (_KERNEL, _PEER_KERNEL),
}


def seconds(code: str, folder: Path) -> float:
    """Run ``code`` in a process that finds the package in ``folder``; return the number it prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def ratio_of(name: str, rounds: int, against: Path | None) -> dict[str, float]:
    """Return medians of this tree and of its peer, which take turns, and the median of their ratios."""
    own_code, peer_code = CASES[name]
    other, other_folder = (peer_code, ROOT) if against is None else (own_code, against)
    pairs = [(seconds(own_code, ROOT), seconds(other, other_folder)) for _ in range(rounds)]
    own, peer = zip(*pairs, strict=True)
    ratios = [mine / theirs for mine, theirs in pairs]
    return {
        "seconds": statistics.median(own),
        "peer_seconds": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }


def main() -> int:
    """Time the cases and print one line each; 1 if a ratio has grown by more than `TOLERANCE`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, in place of the peers")
    parser.add_argument("--record", action="store_true", help="write the record")
    parser.add_argument("--only", choices=list(CASES), help="one case")
    asked = parser.parse_args()
    known = json.loads(RECORD.read_text()) if RECORD.exists() and asked.against is None else {}
    found, is_slower = {}, False
    for name in [asked.only] if asked.only else CASES:
        found[name] = ratio_of(name, asked.rounds, asked.against and asked.against.resolve())
        expected = 1.0 if asked.against else known.get(name, {}).get("ratio")
        change = None if expected is None else found[name]["ratio"] / expected - 1
        is_slower |= change is not None and change > TOLERANCE
        told = "no record" if change is None else f"{change:+.1%}"
        print(f"{name}: {json.dumps({key: round(value, 4) for key, value in found[name].items()})}; {told}", flush=True)
    if asked.record:
        RECORD.write_text(json.dumps({**known, **found}, indent=1) + "\n")
    return int(is_slower and not asked.record)


if __name__ == "__main__":
    raise SystemExit(main())
