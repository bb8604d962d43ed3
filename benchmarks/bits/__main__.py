"""Whether results still have the bits they had: ``python -m benchmarks.bits``, or ``make bits``.

Computes the SHA-256 digests of what small fits give and compares them with the record in
``results/bits.json``: one line for each case that differs, with its parts, and exit status 1. ``--record`` writes the
record instead. Bits depend on the processor and on the versions of libraries; on another machine than the record's
nothing can be said, and the exit status is 2.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding
import torch

import torchdr_cne
from benchmarks import record
from benchmarks.bits.cases import Digests, cases, computed

FILE = record.RESULTS / "bits.json"
LIBRARIES = ("torch", "numpy", "numba", "scikit-learn", "faiss-cpu")


def place() -> dict[str, Any]:
    """Return what bits depend on beside the code: the processor, what torch uses of it, and the libraries."""
    versions = record.versions(list(LIBRARIES))
    kind = llvmlite.binding.get_host_cpu_name()  # names such as "Intel Xeon Processor" are of many kinds
    cpu = f"{record.machine()['cpu']}, {kind}, {torch.backends.cpu.get_cpu_capability()}"
    return {"cpu": cpu, **{name: versions[name] for name in LIBRARIES}}


def differing(before: Digests, now: Digests) -> list[str]:
    """Return the parts that differ, each with what has become of it."""
    if "error" in now:
        return [now["error"]]
    words = [f"{part} is missing" for part in before if part not in now]
    words += [f"{part} is new" for part in now if part not in before]
    return [part for part in before if part in now and before[part] != now[part]] + words


def compare(known: dict[str, Digests], names: list[str], asked: argparse.Namespace) -> int:
    """Print a line for each case that differs from the record; return how many do."""
    n_differing = 0
    for name, found in computed(names, asked.jobs, asked.verbose):
        words = differing(known[name], found) if name in known else ["not recorded"]
        if words:
            n_differing += 1
            print(f"{name}: {', '.join(words)}", flush=True)
    for name in known.keys() - cases().keys():
        if asked.only in name:
            n_differing += 1
            print(f"{name}: no longer a case")
    return n_differing


def write(known: dict[str, Digests], names: list[str], asked: argparse.Namespace) -> None:
    """Compute the cases and write them into the record, beside what it has of others."""
    for name, found in computed(names, asked.jobs, asked.verbose):
        if "error" in found:
            raise RuntimeError(f"{name}: {found['error']}")
        known[name] = found
    ordered = {name: known[name] for name in cases() if name in known}
    record.save({"schema": 1, "kind": "bits", **place(), "digests": ordered}, asked.file)


def main() -> None:
    """Record, or compare; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the record instead of comparing with it")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name contains it")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the cases")
    parser.add_argument("--file", type=Path, default=FILE, help="the record")
    parser.add_argument("--verbose", action="store_true", help="print every case's seconds")
    asked = parser.parse_args()
    names = [name for name in cases() if asked.only in name]
    before = json.loads(asked.file.read_text()) if asked.file.exists() else {}
    elsewhere = [f"{key} {before.get(key)}, here {value}" for key, value in place().items() if before.get(key) != value]
    if asked.record:
        write({} if elsewhere else before["digests"], names, asked)
        return
    if not before or elsewhere:
        print(f"the record is of another machine: {'; '.join(elsewhere)}." if before else "there is no record.")
        sys.exit(2)
    n_differing = compare(before["digests"], names, asked)
    print(f"{n_differing} of {len(names)} cases differ, {Path(torchdr_cne.__file__).parent}")
    sys.exit(int(n_differing > 0))


if __name__ == "__main__":
    main()
