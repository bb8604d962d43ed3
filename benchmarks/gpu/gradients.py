"""One step's gradient on the device, by every engine, against torch tiles in float64 on the CPU."""

import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.problems import is_weighted, moved, one_step, random_graph, sampled_methods, start_of
from benchmarks.gpu.setting import Result, Setting, attempt
from torchdr_cne import TSNE, NegTSNE
from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.forces import ForceProblem, TileForces, make_engine

TOLERANCE = 1e-5
SCALAR_TOLERANCE = 1e-4
"""Of the learned scalar's derivative, a sum over all points in which attraction and repulsion nearly cancel."""
_CHOSEN = "chosen"
_TRITON = "torchdr_cne.forces.triton.engine"
_LARGE = ("NegTSNE", "UMAP", "InfoTSNE", "NCVis")
_CPU = torch.device("cpu")
Maker = Callable[[ForceProblem], Any]


@dataclass(frozen=True)
class Case:
    """A random problem of ``n`` points and ``d`` components, with or without its neighbours among the negatives."""

    method: Any
    n: int
    d: int = 2
    discard: bool = False

    @property
    def name(self) -> str:
        """What the result is called."""
        return f"{self.method.__name__} n={self.n} d={self.d}{' discarding' if self.discard else ''}"

    @property
    def options(self) -> dict[str, Any]:
        """Parameters of the method."""
        return {"discard_neighbors": True} if self.discard else {}

    @cached_property
    def graph(self) -> AffinityGraph:
        """A random graph, on the CPU."""
        return random_graph(self.n, _CPU, weighted=is_weighted(self.method))

    @cached_property
    def exact(self) -> tuple[Tensor, Tensor | None]:
        """The gradient (d, slots) and the learned scalar's derivative in float64, on the CPU."""
        problem, z_ds, step = one_step(self.method, self.graph, start_of(self.n, self.d, _CPU).double(), **self.options)
        with torch.no_grad():
            gradient, scalar = TileForces(problem).gradient(z_ds, step)
        return gradient, scalar


def gradients(setting: Setting) -> Iterator[Result]:
    """Yield the errors of all methods for few points."""
    methods = [*sampled_methods().values(), TSNE]
    if setting.small:
        cases = [Case(method, 200) for method in methods]
        cases.append(Case(NegTSNE, 200, 3, discard=True))  # each dimension's kernels take seconds to compile
        yield from _all_of(setting, cases)
        return
    sizes = (200, 4097)
    cases = [
        Case(method, n, d, discard)
        for d, discard, n, method in itertools.product((2, 3), (False, True), sizes, methods)
        if method is not TSNE or not discard
    ]
    cases += [Case(NegTSNE, n, 1, discard) for n, discard in itertools.product(sizes, (False, True))]
    yield from _all_of(setting, cases)


def large_gradients(setting: Setting) -> Iterator[Result]:
    """Yield the errors of some methods for 70 000 points."""
    methods = [method for name, method in sampled_methods().items() if name in _LARGE]
    n = setting.size(70_000)
    cases = [Case(method, n, 2, discard) for discard, method in itertools.product((False, True), methods)]
    yield from _all_of(setting, cases[:1] if setting.small else [*cases, Case(NegTSNE, n, 3)])


def _all_of(setting: Setting, cases: list[Case]) -> Iterator[Result]:
    """Yield all cases by all engines, and in the end the worst error of each engine."""
    worst: dict[str, tuple[float, str]] = {}
    chosen: set[str] = set()
    n_wrong = 0
    for case in cases:
        for found in _of_case(setting, case):
            n_wrong += not found["ok"]
            if "engine" in found:
                chosen |= {found["engine"]} if found["result"].endswith(_CHOSEN) else set()
                error = max(found["error"], found["error_of_rows"])
                worst[found["engine"]] = max(worst.get(found["engine"], (0.0, "")), (error, case.name))
            yield found
    errors = "; ".join(f"{engine} ≤ {error:.1e} ({name})" for engine, (error, name) in worst.items())
    brief = f"{n_wrong} wrong; fits get {', '.join(sorted(chosen))}; {errors}"
    counted = {"n_wrong": n_wrong, "errors": worst, "chosen": sorted(chosen)}
    yield {"result": "worst errors", "ok": n_wrong == 0, **counted, "brief": brief}


def _of_case(setting: Setting, case: Case) -> Iterator[Result]:
    """Yield the errors of each engine; one that the library chooses anyway is not tried twice."""
    tried: set[str] = set()
    for label, make in _engines(setting, case.d).items():
        found = attempt(f"{case.name}, {label}", lambda make=make: _errors(setting, case, make, tried))
        if found.get("engine") != "":
            yield {**found, "minor": True}


def _engines(setting: Setting, d: int) -> dict[str, Maker]:
    """Return the engines by name: the one that a fit gets, torch's tiles, and Triton's where there is one."""
    found: dict[str, Maker] = {_CHOSEN: lambda problem: make_engine(problem, torch.empty(0, d)), "tiles": TileForces}
    if setting.on_cuda:
        try:
            found["triton"] = importlib.import_module(_TRITON).TritonForces
        except ImportError:
            pass
    return found


def _errors(setting: Setting, case: Case, make: Maker, tried: set[str]) -> Result:
    """Return the errors of an engine's gradient; ``engine`` is "" if it has been tried."""
    device = setting.device
    problem, z_ds, step = one_step(
        case.method, moved(case.graph, device), start_of(case.n, case.d, _CPU).to(device), **case.options
    )
    start = time.perf_counter()
    engine = make(problem)
    if type(engine).__name__ in tried:
        return {"engine": ""}
    tried.add(type(engine).__name__)
    with torch.no_grad():
        _poison(z_ds)
        gradient, scalar = engine.gradient(z_ds, step)
        gradient = gradient.clone()  # a compiled engine uses its memory again
        setting.wait()
        seconds = time.perf_counter() - start
        _poison(z_ds)
        again, _ = engine.gradient(z_ds, step)
        repeats = bool(torch.equal(again, gradient))
    exact, exact_scalar = case.exact
    difference = gradient.double().cpu() - exact
    rows = difference.square().sum(dim=0).sqrt(), exact.square().sum(dim=0).sqrt()
    found = {
        "engine": type(engine).__name__,
        "error": float(difference.norm() / exact.norm()),
        "error_of_rows": float(rows[0].max() / rows[1].max()),
        "same_bits_again": repeats,
        "first_s": seconds,
    }
    ok = found["error"] <= TOLERANCE and found["error_of_rows"] <= TOLERANCE and repeats
    if exact_scalar is not None:
        assert scalar is not None
        found["error_of_scalar"] = float(abs(scalar.double().cpu() / exact_scalar - 1))
        ok &= found["error_of_scalar"] <= SCALAR_TOLERANCE
    brief = f"{found['error']:.1e}, rows {found['error_of_rows']:.1e}{'' if repeats else ', other bits again'}"
    return {**found, "ok": ok, "brief": brief}


def _poison(z_ds: Tensor) -> None:
    """Leave NaN in the memory that the allocator hands out next, so that what an engine does not write shows."""
    for like in (z_ds, z_ds[0]):
        filled = [torch.full_like(like, torch.nan) for _ in range(8)]
        del filled
