"""From records to Markdown and a figure.

``python -m benchmarks.report results/mnist-….json --figure --readme README.md``.
"""

import argparse
import os
import textwrap
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import record
from benchmarks.methods import METHODS, REFERENCES
from benchmarks.quality import N_SAMPLES

START, END = "<!-- benchmark:start -->", "<!-- benchmark:end -->"
_BUSY = 0.1
_QUALITIES = {
    "recall_15": "recall@15",
    "recall_100": "recall@100",
    "accuracy": "accuracy",
    "trustworthiness": "trust.",
    "spearman": "Spearman",
}


def summarise(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row a method that ran: medians over rounds, extremes of the seconds, the ratio to umap-learn."""
    rows = []
    for method in dict.fromkeys(run["method"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["method"] == method and run["status"] == "ok"]
        if not runs:
            continue
        seconds = [run["seconds"] for run in runs]
        rows.append(
            {
                "method": method,
                "ours": method in METHODS and METHODS[method].ours,
                "rounds": len(runs),
                "seconds": median(seconds),
                "fastest": min(seconds),
                "slowest": max(seconds),
                "memory_mb": median(run["memory_mb"]["peak"] for run in runs),
                "added_mb": median(run["memory_mb"]["added"] for run in runs),
                **{name: median(run["quality"][name] for run in runs) for name in _QUALITIES},
            }
        )
    seconds_of = {row["method"]: row["seconds"] for row in rows}
    for row in rows:
        row["reference"] = next((name for name in REFERENCES if name in seconds_of), None)
        row["speed"] = seconds_of[row["reference"]] / row["seconds"] if row["reference"] else None
    return rows


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of a record, with a line for each method that did not run."""
    rows = summarise(results)
    reference = (rows[0]["reference"] if rows else None) or REFERENCES[0]
    head = ["method", "seconds (min–max)", f"× {reference}", "peak MB (added)", *_QUALITIES.values()]
    lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    for row in rows:
        lines.append(
            _line(
                [
                    f"**{row['method']}**" if row["ours"] else row["method"],
                    f"{_short(row['seconds'])} ({_short(row['fastest'])}–{_short(row['slowest'])})",
                    "–" if row["speed"] is None else _short(row["speed"]),
                    f"{row['memory_mb']:.0f} ({row['added_mb']:.0f})",
                    *(f"{row[name]:.3f}" for name in _QUALITIES),
                ]
            )
        )
    failures = {run["method"]: run for run in results["runs"] if run["status"] != "ok"}
    notes = [f"* {method}: {run['status']} ({run['error']})" for method, run in failures.items()]
    disturbed = [run for run in results["runs"] if run["status"] == "ok" and _is_disturbed(run)]
    if disturbed:
        notes.append(f"* Other processes used more than {_BUSY:.0%} of a core during {len(disturbed)} of the runs.")
    return "\n".join([*lines, "", *notes] if notes else lines)


def caption(results: dict[str, Any]) -> str:
    """Return what was measured where."""
    settings, machine, versions = results["settings"], results["machine"], results["versions"]
    shape = next((f" ({run['n']:,} × {run['d']})".replace(",", " ") for run in results["runs"] if "n" in run), "")
    packages = {METHODS[name].package for name in settings["methods"] if name in METHODS}
    named = ", ".join(f"{package} {versions[package]}" for package in sorted(packages) if versions.get(package))
    counts = [row["rounds"] for row in summarise(results)] or [0]
    rounds = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
    rounds += " interleaved round" + "s" * (max(counts) != 1)
    text = (
        f"{settings['data']}{shape}, {settings['threads']} threads of {machine['cpu']}, {results['created'][:10]}: "
        f"medians of {rounds} in processes of their own, warm, from the feature matrix to the "
        f"embedding. Peak resident memory, in parentheses what the fit added. Quality on a sample of {N_SAMPLES} rows, "
        f"exact neighbours among all. {named}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def section(results: dict[str, Any], figure: str | None = None) -> str:
    """Return the table with its caption, and the figure's link if there is one."""
    parts = [table(results), caption(results)]
    if figure is not None:
        parts.append(f"![Quality against time on {results['settings']['data']}]({figure})")
    return "\n\n".join(parts)


def insert(text: str, content: str) -> str:
    """Replace what stands between the two markers in ``text``."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"the text needs one {START} and, after it, one {END}; add them where the table shall stand.")
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n{content}\n{END}{after}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--figure", action="store_true", help="draw quality against time beside each record")
    parser.add_argument("--readme", type=Path, help="file whose text between the markers is replaced")
    options = parser.parse_args(arguments)
    sections = []
    for path in options.records:
        results = record.read(path, "comparison")
        link = None
        if options.figure:
            from benchmarks.figure import draw

            home = (options.readme or Path("README.md")).parent
            link = os.path.relpath(draw(results, path.with_suffix(".png")), home)
        sections.append(section(results, link))
    content = "\n\n".join(sections)
    if options.readme is None:
        print(content)
    else:
        options.readme.write_text(insert(options.readme.read_text(), content))


def _is_disturbed(run: dict[str, Any]) -> bool:
    return (run.get("others_cpu_seconds") or 0.0) > _BUSY * run["seconds"]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _short(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    main()
