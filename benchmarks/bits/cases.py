"""All cases, and computing their digests."""

import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import torch

from benchmarks.bits import fits, networks, options, runs
from benchmarks.bits.digests import digest

Digests = dict[str, str]


def cases() -> fits.Cases:
    """Return all cases by their names."""
    of_networks = networks.of_encoders() | networks.of_maps() | networks.of_features()
    of_options = options.of_parameters() | options.of_tools()
    return fits.of_methods() | fits.of_sizes() | of_options | of_networks | runs.of_runs()


def digests_of(name: str) -> tuple[Digests, float]:
    """Return the digests of a case by the names of its parts, and its seconds; a failure is a part, too."""
    began = time.perf_counter()
    torch.set_num_threads(1)  # of what is not told how many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = {part: digest(value) for part, value in cases()[name]().items()}
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
    return found, time.perf_counter() - began


def computed(names: list[str], jobs: int, verbose: bool) -> Iterator[tuple[str, Digests]]:
    """Yield each case with its digests, in their order; ``jobs`` processes share them."""
    with ExitStack() as stack:
        each: Iterator[tuple[Digests, float]] = map(digests_of, names)
        if jobs > 1:
            pool = stack.enter_context(ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")))
            each = pool.map(digests_of, names)
        for name, (found, seconds) in zip(names, each, strict=True):
            if verbose:
                print(f"{seconds:6.1f} s  {name}", file=sys.stderr, flush=True)
            yield name, found
