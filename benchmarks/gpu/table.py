"""The stages by name, and the last table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _WIDTH_OF_ERROR = 150, 400


@dataclass(frozen=True)
class StageSpec:
    """A stage: its name, where its function is (``module:name``), and its deadline in seconds."""

    name: str
    function: str
    seconds: float


STAGES = (
    StageSpec("machine", "benchmarks.gpu.machine:machine", 20),
    StageSpec("gradients", "benchmarks.gpu.gradients:gradients", 80),
    StageSpec("steps", "benchmarks.gpu.steps:steps", 40),
    StageSpec("floors", "benchmarks.gpu.fits:floors", 110),
    StageSpec("reproducible", "benchmarks.gpu.repeating:reproducible", 45),
    StageSpec("neighbors", "benchmarks.gpu.search:neighbors", 60),
    StageSpec("stages", "benchmarks.gpu.fits:stages", 80),
    StageSpec("large-gradients", "benchmarks.gpu.gradients:large_gradients", 45),
    StageSpec("large-steps", "benchmarks.gpu.steps:large_steps", 60),
    StageSpec("everyone", "benchmarks.gpu.everyone:everyone", 60),
    StageSpec("ranks", "benchmarks.gpu.groups:ranks", 90),
    StageSpec("profile", "benchmarks.gpu.fits:profiles", 40),
)
"""In the order of their worth: the last ones may find no time."""
BY_NAME = {spec.name: spec for spec in STAGES}


def select(names: str | None) -> list[StageSpec]:
    """Return the stages that a list of names with commas asks for, in the table's order; None is all."""
    if names is None:
        return list(STAGES)
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in BY_NAME:
            raise ValueError(f"stage {name!r} is unknown; choose from {', '.join(BY_NAME)}.")
    return [spec for spec in STAGES if spec.name in asked]


def summary(found: Sequence[dict[str, Any]]) -> str:
    """Return a line for each stage and, below it, one for each result that is not a minor one in which all is well."""
    lines = []
    for end in (each for each in found if "status" in each):
        lines.append(f"{end['stage']:<16} {end['seconds']:7.1f} s  {end['status'].upper()}")
        of_stage = [each for each in found if each["stage"] == end["stage"] and "result" in each]
        lines += [_line(each) for each in of_stage if not each.get("minor") or each["ok"] is False]
    return "\n".join(lines)


def _line(result: dict[str, Any]) -> str:
    mark = {True: "ok", False: "NO", None: "–"}[result["ok"]]
    where = f" at {result['where'][-1]}" if result.get("where") else ""
    text = " ".join(f"{result.get('error', result.get('brief', ''))}{where}".split())
    line = f"  {result.get('seconds', 0.0):7.1f} s  {mark:<2} {result['result']}: {text}"
    return line[: _WIDTH if result["ok"] is not False else _WIDTH_OF_ERROR]
