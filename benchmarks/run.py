"""Compare methods on one data set: ``python -m benchmarks.run --data mnist --methods all --rounds 3``.

Every run has a process of its own; rounds are interleaved (A B C, A B C, …), so that a slow spell of the machine
hits all methods alike. The record is saved after every run.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks import data, record, runner
from benchmarks.methods import METHODS, select
from benchmarks.quality import Judge
from benchmarks.report import table

QUICK_METHODS = "ours,umap-learn,PaCMAP,TorchDR UMAP,contrastive-ne,openTSNE"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    started = time.monotonic()
    path, results = open_record(options)
    judge = Judge(data.load(options.data, options.n))
    for number, method in pending(results):
        job = runner.Job(method, options.data, options.n, options.seed + number, options.threads)
        left = options.budget - (time.monotonic() - started)
        run = {"round": number, **runner.run(job, judge, min(options.timeout, left))}
        print(f"[{number + 1}/{options.rounds}] {runner.describe(run)}", flush=True)
        results["runs"].append(run)
        record.save(results, path)
    print(f"\n{table(results)}\n\n{path}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(data.LOADERS), help="default: mnist, or digits with --quick")
    parser.add_argument("--n", type=int, help="a random subset of this many rows")
    parser.add_argument("--methods", help='"all", "ours", "peers", or names separated by commas')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round adds 1")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a run may take, warm-up included")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for everything; runs past it end")
    parser.add_argument(
        "--quick", action="store_true", help="one round in less than two minutes; what does not finish is named"
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/DATA-TIME.json")
    parser.add_argument(
        "--resume", action="store_true", help="go on with --output, or with the newest file of the data"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.timeout, options.budget = 1, min(options.timeout, 40), min(options.budget, 105)
    options.data = options.data or ("digits" if options.quick else "mnist")
    options.methods = select(options.methods or (QUICK_METHODS if options.quick else "all"))
    return options


def open_record(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return the record to fill and where it is kept."""
    settings = {key: getattr(options, key) for key in ("data", "n", "methods", "rounds", "threads", "seed", "timeout")}
    stem = ("quick-" if options.quick else "") + options.data + (f"-{options.n}" if options.n else "")
    if not options.resume:
        path = options.output or record.RESULTS / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.json"
        return path, record.new_record("comparison", settings, [METHODS[name].package for name in options.methods])
    path = options.output or max(record.RESULTS.glob(f"{stem}-[0-9]*-[0-9]*.json"), default=None)
    if path is None or not path.exists():
        raise FileNotFoundError(
            f"there is no {path or f'{stem}-….json in {record.RESULTS}'} to resume; run without --resume."
        )
    results = record.read(path, "comparison")
    differing = [key for key in ("data", "n", "threads", "seed") if results["settings"][key] != settings[key]]
    if differing:
        raise ValueError(
            f"{path} was made with other values of {', '.join(differing)}; pass the same, or a new --output."
        )
    results["settings"] = settings
    results["runs"] = [run for run in results["runs"] if run["status"] != "skipped"]
    return path, results


def pending(results: dict[str, Any]):
    """Yield (round, method) still to do; what is missing, fails or takes too long is not tried again."""
    for number in range(results["settings"]["rounds"]):
        for method in results["settings"]["methods"]:
            runs = [run for run in results["runs"] if run["method"] == method]
            gave_up = any(run["status"] != "ok" for run in runs)
            if not gave_up and all(run["round"] != number for run in runs):
                yield number, method


if __name__ == "__main__":
    main()
