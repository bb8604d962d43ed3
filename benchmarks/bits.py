"""Whether results still have the bits they had: ``python -m benchmarks.bits``, or ``make bits``.

Computes the SHA-256 digests of what the fits of `benchmarks.bit_cases` give and compares them with the record in
``results/bits.json``: one line for each case that differs, with its parts, and exit status 1. ``--record`` writes the
record instead. Bits depend on the processor and on the versions of libraries; on another machine than the record's
nothing can be said, and the exit status is 2.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bit_cases, record

FILE = record.RESULTS / "bits.json"
LIBRARIES = ("torch", "numpy", "numba", "scikit-learn", "faiss-cpu")
_DIGITS = 16
Digests = dict[str, str]


def pieces_of(value: Any) -> Iterator[bytes]:
    """Yield the bytes of a value: of arrays with dtype and shape, of numbers as they print, of containers in order."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield f"{key}:".encode()
            yield from pieces_of(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)} of".encode()
        for item in value:
            yield from pieces_of(item)
    elif hasattr(value, "indptr"):
        yield from pieces_of([value.data, value.indices, value.indptr, list(value.shape)])
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield repr(value).encode()
    else:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"a {type(value).__name__} has no bytes of its own; leave it out of the case.")
        yield f"{array.dtype.str}{array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()


def digest(value: Any) -> str:
    """Return the first sixteen digits of a value's SHA-256."""
    found = hashlib.sha256()
    for piece in pieces_of(value):
        found.update(len(piece).to_bytes(8, "little"))
        found.update(piece)
    return found.hexdigest()[:_DIGITS]


def digests_of(name: str) -> tuple[Digests, float]:
    """Return the digests of a case by the names of its parts, and its seconds; a failure is a part, too."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = {part: digest(value) for part, value in bit_cases.cases()[name]().items()}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
    return found, time.perf_counter() - began


def computed(names: list[str], jobs: int) -> Iterator[tuple[str, Digests, float]]:
    """Yield each case with its digests and seconds, in their order."""
    if jobs == 1:
        for name in names:
            yield name, *digests_of(name)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for name, found in zip(names, pool.map(digests_of, names), strict=True):
            yield name, *found


def place() -> dict[str, Any]:
    """Return what bits depend on beside the code: the processor and the libraries."""
    versions = record.versions(list(LIBRARIES))
    return {"cpu": record.machine()["cpu"], **{name: versions[name] for name in LIBRARIES}}


def differing(before: Digests, now: Digests) -> list[str]:
    """Return the parts that differ, each with what has become of it."""
    if "error" in now:
        return [now["error"]]
    words = [f"{part} is missing" for part in before if part not in now]
    words += [f"{part} is new" for part in now if part not in before]
    return [part for part in before if part in now and before[part] != now[part]] + words


def compare(known: dict[str, Digests], names: list[str], jobs: int) -> int:
    """Print a line for each case that differs from the record; return how many do."""
    n_differing = 0
    for name, found, seconds in computed(names, jobs):
        words = differing(known[name], found) if name in known else ["is not recorded"]
        if words:
            n_differing += 1
            print(f"{name}: {', '.join(words)}", flush=True)
        print(f"{seconds:6.1f} s  {name}", file=sys.stderr, flush=True)
    return n_differing


def write(known: dict[str, Digests], names: list[str], jobs: int, file: Path) -> None:
    """Compute the cases and write them into the record, beside what it has of others."""
    for name, found, seconds in computed(names, jobs):
        if "error" in found:
            raise RuntimeError(f"{name}: {found['error']}")
        known[name] = found
        print(f"{seconds:6.1f} s  {name}", file=sys.stderr, flush=True)
    order = [name for name in bit_cases.cases() if name in known]
    record.save({"schema": 1, "kind": "bits", **place(), "digests": {name: known[name] for name in order}}, file)


def main() -> None:
    """Record, or compare; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the record instead of comparing with it")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name contains it")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of two threads each")
    parser.add_argument("--file", type=Path, default=FILE, help="the record")
    options = parser.parse_args()
    names = [name for name in bit_cases.cases() if options.only in name]
    before = json.loads(options.file.read_text()) if options.file.exists() else {}
    elsewhere = [f"{key} {before.get(key)}, here {value}" for key, value in place().items() if before.get(key) != value]
    if options.record:
        write({} if elsewhere else before["digests"], names, options.jobs, options.file)
        return
    if not before or elsewhere:
        print(f"the record is of another machine: {'; '.join(elsewhere)}." if before else "there is no record.")
        sys.exit(2)
    n_differing = compare(before["digests"], names, options.jobs)
    print(f"{n_differing} of {len(names)} cases differ, {torchdr_cne_folder()}")
    sys.exit(int(n_differing > 0))


def torchdr_cne_folder() -> str:
    """Return where the package was imported from, which tells one checkout from another."""
    import torchdr_cne

    return str(Path(torchdr_cne.__file__).parent)


if __name__ == "__main__":
    main()
