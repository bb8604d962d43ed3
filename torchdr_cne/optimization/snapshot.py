"""Snapshots, from which a fit continues as if it had never stopped; they are the same for any number of ranks."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.state import FitState


@dataclass(frozen=True)
class Snapshot:
    """The state of a fit after ``step`` iterations, stored by point.

    Attributes
    ----------
    step : int
        Number of iterations done.
    tensors : dict of str to Tensor
        ``embedding`` (n, d), or ``network/<name>`` of the networks that compute it; ``learned/<scalar>``;
        ``carried/<name>``;
        ``optimizer/<parameter>/<name>``, the optimiser's state, by point where it belongs to points.
    history : dict of str to list
        The values recorded so far, by name.
    finished : bool
        Whether the fit had finished.
    """

    step: int
    tensors: Mapping[str, Tensor]
    history: dict[str, list[float]] = field(default_factory=dict)
    finished: bool = False


def take_snapshot(
    optimizer: Optimizer | None, step: int, history: Mapping[str, list[float]], objective: Objective, state: FitState
) -> Snapshot:
    """Return a snapshot, which collects the state of all ranks."""
    tensors = objective.to_save()
    for name, learned in state.learned.items():
        tensors[f"learned/{name}"] = learned.detach()
    for name, value in state.carried.items():
        tensors[f"carried/{name}"] = value
    for parameter, tensor in _parameters(objective, state).items():
        for name, value in optimizer.state.get(tensor, {}).items() if optimizer is not None else ():
            by_point = isinstance(value, Tensor) and parameter == "embedding" and value.shape == tensor.shape
            if value is not None:
                kept = objective.to_points(value) if by_point else torch.as_tensor(value)
                tensors[f"optimizer/{parameter}/{name}"] = kept
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return Snapshot(step, copies, {name: list(values) for name, values in history.items()})


def restore_optimizer(
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    n_steps: int,
    snapshot: Snapshot,
    objective: Objective,
    state: FitState,
) -> None:
    """Give an optimiser the state that it had after ``n_steps`` of its phase; the schedule is stepped again."""
    parameters = _parameters(objective, state)
    of_parameter: list[dict[str, Any]] = [{} for _ in parameters]
    for place, (parameter, tensor) in enumerate(parameters.items()):
        prefix = f"optimizer/{parameter}/"
        for name in (name for name in snapshot.tensors if name.startswith(prefix)):
            value = snapshot.tensors[name].to(tensor.device)
            by_point = parameter == "embedding" and value.shape == (objective.n_points, snapshot_width(snapshot))
            of_parameter[place][name.removeprefix(prefix)] = objective.from_points(value) if by_point else value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(enumerate(of_parameter)), "param_groups": groups})
    with warnings.catch_warnings():  # the scheduler has not seen the steps of the optimiser
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before", UserWarning)
        for _ in range(n_steps if scheduler is not None else 0):
            scheduler.step()  # type: ignore[union-attr]  # not None: the range is empty then


def restore_learned(state: FitState, snapshot: Snapshot, device: torch.device) -> None:
    """Give the learned scalars, and the tensors carried from step to step, the values in the snapshot."""
    for name, value in snapshot.tensors.items():
        if name.startswith("carried/"):
            state.carried[name.removeprefix("carried/")] = value.to(device)
    for name, learned in state.learned.items():
        with torch.no_grad():
            learned.copy_(snapshot.tensors[f"learned/{name}"])


def snapshot_width(snapshot: Snapshot) -> int:
    """Return the dimension of the embedding in a snapshot."""
    return snapshot.tensors["embedding"].shape[1]


def _parameters(objective: Objective, state: FitState) -> dict[str, Tensor]:
    """Return the tensors that the optimiser moves, in the order in which it has them."""
    return {**objective.parameters, **state.learned}
