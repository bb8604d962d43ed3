"""Growth with n: ``python -m benchmarks.scaling --methods NegTSNE,UMAP,InfoTSNE``.

Random subsets of the molecules, seconds by stage, peak memory, quality on 1 500 rows, and the exponent of seconds in n
fitted by least squares of logarithms.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, record, runner
from benchmarks.methods import METHODS, select
from benchmarks.quality import Judge

SIZES = (10_000, 31_250, 62_500, 125_000, 250_000, 500_000, 1_000_000)
N_SAMPLES = 1500


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log seconds in log n; NaN for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def exponents(results: dict[str, Any]) -> dict[str, float]:
    """Return each method's exponent over the record's range of n."""
    low, high = results["settings"]["range"]
    found = {}
    for method in dict.fromkeys(run["method"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["method"] == method and run["status"] == "ok"]
        within = [(run["n"], run["seconds"]) for run in runs if low <= run["n"] <= high]
        found[method] = exponent([n for n, _ in within], [seconds for _, seconds in within])
    return found


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of a record and its exponents."""
    stages = list(dict.fromkeys(stage for run in results["runs"] for stage in run.get("stages", {})))
    head = ["method", "n", "seconds", *stages, "peak MB (added)", "search recall", "recall@15", "accuracy"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for run in sorted(results["runs"], key=lambda run: run["method"]):
        if run["status"] != "ok":
            lines.append(f"| {run['method']} | {run['n']} | {run['status']} |" + " |" * (len(head) - 3))
            continue
        memory, quality = run["memory_mb"], run["quality"]
        cells = [
            run["method"],
            str(run["n"]),
            f"{run['seconds']:.1f}",
            *(f"{run['stages'][stage]:.1f}" if stage in run["stages"] else "–" for stage in stages),
            f"{memory['peak']:.0f} ({memory['added']:.0f})",
            f"{run['search_recall']:.3f}" if "search_recall" in run else "–",
            f"{quality['recall_15']:.3f}",
            f"{quality['accuracy']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    low, high = results["settings"]["range"]
    growth = ", ".join(f"{method} n^{value:.2f}" for method, value in exponents(results).items())
    return "\n".join([*lines, "", f"Seconds from n = {low} to {high} grow as: {growth}."])


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    settings = {**vars(options), "range": list(options.range), "output": None}
    results = record.new_record("scaling", settings, [METHODS[name].package for name in options.methods])
    path = options.output or record.RESULTS / f"scaling-{options.data}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    gave_up: set[str] = set()
    for n in options.sizes:
        judge = Judge(data.load(options.data, n), N_SAMPLES)
        for method in (name for name in options.methods if name not in gave_up):
            job = runner.Job(method, options.data, n, options.seed, options.threads, N_SAMPLES)
            run = {"n": n, **runner.run(job, judge, options.timeout)}
            print(f"{n:8d}  {runner.describe(run)}", flush=True)
            if run["status"] != "ok":
                gave_up.add(method)
            results["runs"].append(run)
            record.save(results, path)
    print(f"\n{table(results)}\n\n{path}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="molecules", choices=list(data.LOADERS))
    parser.add_argument("--methods", default="NegTSNE,UMAP,InfoTSNE", help="names separated by commas, or groups")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--range", type=int, nargs=2, default=(62_500, 1_000_000), help="of n for the exponent")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a run may take; a method stops there")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/scaling-DATA-TIME.json")
    options = parser.parse_args(arguments)
    options.methods = select(options.methods)
    return options


if __name__ == "__main__":
    main()
