"""The plan of a fit: all that its stages know of an estimator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchdr_cne.affinity import Affinity, AffinityGraph
from torchdr_cne.distributed import DistributedConfig, Share
from torchdr_cne.networks.options import NetworkOptions
from torchdr_cne.optimization.building import OptimizerPlan
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import Phase
from torchdr_cne.optimization.state import FitState


@dataclass(frozen=True)
class RunOptions:
    """Where and how a fit computes, and where it is saved.

    Attributes
    ----------
    device, random_state, n_jobs, distributed, check_interval, checkpoint_every
        The parameters of these names.
    dtype : torch.dtype
        Arithmetic and result.
    visible : bool
        Whether a progress bar is shown.
    checkpoint_dir : Path or None
        Where the fit is saved as it goes.
    """

    device: str | torch.device
    dtype: torch.dtype
    random_state: Any
    n_jobs: int | None
    distributed: bool | str | DistributedConfig
    visible: bool
    check_interval: int
    checkpoint_dir: Path | None
    checkpoint_every: int


@dataclass(frozen=True)
class GraphPlan:
    """What the input graph is, and which rows are kept.

    Attributes
    ----------
    affinity : Affinity
        From rows to the graph.
    is_precomputed : bool
        Whether the data are the graph.
    is_needed : callable
        From the phases to whether the fit needs a graph.
    relabel : callable
        From a graph, this rank's rows of it, the class codes of all points and the share, to the graph that the labels
        make of it.
    memory_budget : int or None
        Bytes that streamed rows and their index may take; None is a third of the free memory.
    keeps_rows : bool
        Whether the rows stay with the estimator.
    bytes_by_stage : callable
        From rows and columns to the bytes that the stages hold beside the data; empty if they are not known.
    """

    affinity: Affinity
    is_precomputed: bool
    is_needed: Callable[[Sequence[Phase]], bool]
    relabel: Callable[[AffinityGraph, Tensor, Share], AffinityGraph]
    memory_budget: int | None
    keeps_rows: bool
    bytes_by_stage: Callable[[int, int], Mapping[str, float]]


@dataclass(frozen=True)
class PointsPlan:
    """How points that move themselves begin, and what moves them.

    Attributes
    ----------
    init : str or array of shape (n, d)
        The first embedding.
    init_scaling : float
        Standard deviation of its widest column.
    min_grad_norm : float
        Root mean square gradient below which the fit ends.
    make_objective : callable
        From the state and the first embedding to the objective.
    """

    init: Any
    init_scaling: float
    min_grad_norm: float
    make_objective: Callable[[FitState, Tensor], Objective]

    @property
    def starts_spectral(self) -> bool:
        """Whether the first embedding comes from the graph's spectrum."""
        return isinstance(self.init, str) and self.init == "spectral"


@dataclass(frozen=True)
class FitPlan:
    """A fit, described and checked before any work.

    Attributes
    ----------
    name : str
        Name of the estimator's class.
    parameters : mapping of str to Any
        All parameters, by which fits are told apart.
    former_parameters : mapping of str to Any
        Parameters that earlier versions had, with their defaults.
    n_components : int
        Dimension of the embedding.
    options : RunOptions
        Where and how it computes.
    optimizers : OptimizerPlan
        How each phase's optimiser is made.
    phases : callable
        From the number of points to the phases.
    learned : callable
        Without arguments to names and first values of learned scalars.
    reported : callable
        From a phase to constants of it that ``history_`` has.
    read_labels : callable
        From ``y`` and the number of points to class codes (n,), or None.
    conclude : callable
        From objective and state to further fitted attributes.
    why_not_shared : str
        Why ranks cannot share the fit; "" if they can.
    graph : GraphPlan or None
        The input graph; None is a fit that has no use for one.
    points : PointsPlan or None
        How points move themselves; None where networks compute them.
    networks : NetworkOptions or None
        The networks that compute the embedding; None where points move themselves.
    extras : mapping of str to Any
        Fitted attributes that are known before the fit.
    """

    name: str
    parameters: Mapping[str, Any]
    n_components: int
    options: RunOptions
    optimizers: OptimizerPlan
    phases: Callable[[int], list[Phase]]
    learned: Callable[[], Mapping[str, float]]
    reported: Callable[[Phase], Mapping[str, float]]
    read_labels: Callable[[Any, int], Tensor | None]
    conclude: Callable[[Objective, FitState], Mapping[str, Any]]
    why_not_shared: str = ""
    graph: GraphPlan | None = None
    points: PointsPlan | None = None
    networks: NetworkOptions | None = None
    former_parameters: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
