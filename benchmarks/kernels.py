"""What one edge and one negative cost, beside what the machine allows: ``python -m benchmarks.kernels``.

One thread, points that fit in the second-level cache, the best of many repetitions. A gradient with 1, 2 and 4 shifts:
the slope over shifts is the cost of negatives, the intercept that of edges. The floor of a negative is the larger
of its arithmetic at the machine's measured multiply-add rate and its divisions at the measured rate; that of an
edge adds the measured gather.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import record
from benchmarks.stages import StageClock

SHIFTS = (1, 2, 4)
METHODS: dict[str, dict[str, Any]] = {"NegTSNE": {}, "NCVis": {}, "UMAP": {}, "InfoTSNE": {}}
_DEGREE = 20


def random_graph(n: int) -> Any:
    """Return a symmetric graph of random edges, about 20 a point, weight 1."""
    import scipy.sparse

    from torchdr_cne.affinity import graph_from_user

    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(n), _DEGREE // 2)
    columns = (rows + rng.integers(1, n, len(rows))) % n
    matrix = scipy.sparse.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(n, n))
    graph = (matrix + matrix.T).tocsr()
    graph.data[:] = 1
    return graph_from_user(graph)


def measure(name: str, n: int, seconds: float) -> dict[str, float]:
    """Return ns_edge, ns_negative and, a step and point, ns_other: optimiser, schedule, checks."""
    import torch

    import torchdr_cne
    from benchmarks.ceiling import best_seconds
    from torchdr_cne.forces import StepCoefficients
    from torchdr_cne.forces.compiled import CompiledForces

    estimator = getattr(torchdr_cne, name)(**METHODS[name], random_state=0)
    graph, start = random_graph(n), torch.randn(n, 2, generator=torch.Generator().manual_seed(0)) * 3
    state = estimator._make_state(graph, start, 0, estimator._phases(n)[-1])
    state.learned = {key: value.detach() for key, value in state.learned.items()}
    problem, n_shifts = estimator._force_problem(state, start)
    engine, z = CompiledForces(problem), problem.layout.scatter(start).t().contiguous()
    parameters = estimator._force_parameters(state.parameters)

    def gradient_seconds(count: int) -> float:
        step = StepCoefficients(list(range(3, 3 + count)), parameters)
        return best_seconds(lambda: engine.gradient(z, step), seconds)

    slope, intercept = np.polyfit(SHIFTS, [gradient_seconds(count) for count in SHIFTS], 1)
    with mock.patch.object(type(estimator), "_early_share_of_draws", 1.0):
        step_seconds = seconds_per_step(estimator, graph.to_scipy(), start)
    return {
        "ns_edge": intercept / graph.n_edges * 1e9,
        "ns_negative": slope / (n * 64) * 1e9,
        "ns_other": (step_seconds - intercept - slope * n_shifts) / n * 1e9,
        "n_shifts": n_shifts,
    }


def seconds_per_step(estimator: Any, graph: Any, start: Any) -> float:
    """Seconds a step of the whole loop, from the difference of two fits' lengths; the best of several."""
    from sklearn.base import clone

    shortest = {}
    for n_iter in (50, 250):
        fitted = clone(estimator).set_params(max_iter=n_iter, init=start.numpy())
        durations = []
        for _ in range(5):
            with StageClock().watching() as clock:
                fitted.fit(start.numpy(), graph=graph)
            durations.append(clock.seconds["loop"])
        shortest[n_iter] = min(durations)
    return (shortest[250] - shortest[50]) / 200


def floors(name: str, machine: dict[str, float]) -> dict[str, float]:
    """Return the least ns an edge and a negative can cost by the machine's measured rates."""
    import torchdr_cne
    from benchmarks.operations import NEGATIVES_PER_PAIR, per_edge, per_pair

    forces = getattr(torchdr_cne, name)(**METHODS[name])._pair_forces()
    flops, divisions = (count / NEGATIVES_PER_PAIR for count in per_pair(forces))
    edge_flops, edge_divisions, gathers = per_edge(forces)
    return {
        "flops_negative": flops,
        "divisions_negative": divisions,
        "floor_negative": max(flops / machine["gflops"], divisions * machine["ns_division"]),
        "floor_edge": gathers * machine["ns_gather"]
        + max(edge_flops / machine["gflops"], edge_divisions * machine["ns_division"]),
    }


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of a record."""
    machine = results["settings"]["ceiling"]
    lines = [
        "| method | ns an edge | floor | ns a negative | floor | flops + divisions a negative | rest, ns a point |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in results["runs"]:
        lines.append(
            f"| {run['method']} | {run['ns_edge']:.2f} | {run['floor_edge']:.2f} | {run['ns_negative']:.3f} "
            f"| {run['floor_negative']:.3f} | {run['flops_negative']:g} + {run['divisions_negative']:g} "
            f"| {run['ns_other']:.1f} |"
        )
    lines.append(
        f"\nOne core of {results['machine']['cpu']}: {machine['gflops']:.0f} GFlop/s of fused multiply-adds, "
        f"{machine['ns_division']:.3f} ns a division, {machine['ns_gather']:.2f} ns a random pair of floats; float32."
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16_384, help="points")
    parser.add_argument("--seconds", type=float, default=1.0, help="of repetitions for each number")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/kernels-TIME.json")
    options = parser.parse_args(arguments)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    import torch

    from benchmarks.ceiling import measure as measure_ceiling

    torch.set_num_threads(1)
    ceiling = measure_ceiling(options.n)
    settings = {"n": options.n, "threads": 1, "shifts": SHIFTS, "ceiling": ceiling}
    results = record.new_record("kernels", settings, ["torchdr_cne"])
    path = options.output or record.RESULTS / f"kernels-{time.strftime('%Y%m%d-%H%M%S')}.json"
    for name in METHODS:
        run = {"method": name, **measure(name, options.n, options.seconds), **floors(name, ceiling)}
        results["runs"].append(run)
        record.save(results, path)
    print(f"{table(results)}\n\n{path}")


if __name__ == "__main__":
    main()
