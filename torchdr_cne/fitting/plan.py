"""The plan of a fit, which contains all that the stages know of an estimator."""

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
        Dtype of the computation and of the result.
    visible : bool
        Whether a progress bar is shown.
    checkpoint_dir : Path or None
        Folder in which the fit is saved while it runs; None saves nothing.
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
    """How the input graph is obtained, and whether rows are kept.

    Attributes
    ----------
    affinity : Affinity
        The affinity that makes the graph from the rows.
    is_precomputed : bool
        Whether the data are themselves the graph.
    is_needed : callable
        Function from the phases to whether the fit needs a graph.
    relabel : callable
        Function from this rank's rows of a graph, the class codes of all points and the share to the graph as the
        labels change it.
    memory_budget : int or None
        Number of bytes that streamed rows and their index may take; None is a third of the free memory.
    keeps_rows : bool
        Whether the rows stay with the estimator.
    bytes_by_stage : callable
        Function from the numbers of rows and columns and the type of a device to the bytes that each stage holds there
        besides the data; the result is empty if they are not known.
    """

    affinity: Affinity
    is_precomputed: bool
    is_needed: Callable[[Sequence[Phase]], bool]
    relabel: Callable[[AffinityGraph, Tensor, Share], AffinityGraph]
    memory_budget: int | None
    keeps_rows: bool
    bytes_by_stage: Callable[[int, int, str], Mapping[str, float]]


@dataclass(frozen=True)
class PointsPlan:
    """The first embedding and the objective of a fit in which the points themselves move.

    Attributes
    ----------
    init : str or array of shape (n, d)
        The first embedding.
    init_scaling : callable
        Function from the number of points to the standard deviation of the first embedding's widest column.
    min_grad_norm : float
        Root mean square gradient below which the fit ends.
    make_objective : callable
        Function from the state and the first embedding to the objective.
    """

    init: Any
    init_scaling: Callable[[int], float]
    min_grad_norm: float
    make_objective: Callable[[FitState, Tensor], Objective]

    @property
    def starts_spectral(self) -> bool:
        """Whether the first embedding is computed from the spectrum of the graph."""
        return isinstance(self.init, str) and self.init == "spectral"


@dataclass(frozen=True)
class FitPlan:
    """The description of a fit, which is checked before any work begins.

    Attributes
    ----------
    name : str
        Name of the estimator's class.
    parameters : mapping of str to Any
        All parameters, by which one fit is told from another.
    former_parameters : mapping of str to Any
        Parameters that earlier versions had, with their defaults.
    n_components : int
        Dimension of the embedding.
    options : RunOptions
        Where and how the fit computes.
    optimizers : OptimizerPlan
        How the optimiser of each phase is made.
    phases : callable
        Function from the number of points to the phases.
    learned : callable
        Function without arguments that returns names and initial values of the learned scalars.
    reported : callable
        Function from a phase to those of its constants that ``history_`` records.
    read_labels : callable
        Function from ``y`` and the number of points to class codes (n,), or None.
    conclude : callable
        Function from the objective and the state to further fitted attributes.
    why_not_shared : str
        Reason why ranks cannot share the fit; "" if they can.
    graph : GraphPlan or None
        The plan of the input graph; None in a fit that uses no graph.
    points : PointsPlan or None
        The plan of points that move themselves; None if networks compute them.
    networks : NetworkOptions or None
        Options of the networks that compute the embedding; None if the points move themselves.
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
