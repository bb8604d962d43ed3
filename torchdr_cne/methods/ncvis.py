"""NCVis."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchdr_cne.forces import PairForces
from torchdr_cne.losses import classified_as_data, classified_as_noise
from torchdr_cne.matching import NegativeSamplingNeighborEmbedding, Pairs
from torchdr_cne.methods import negtsne


class NCVis(NegativeSamplingNeighborEmbedding):
    """NC-t-SNE: noise-contrastive estimation with a learned normalisation (Artemenkov & Panov, 2020).

    The losses are those of `NegTSNE` with the odds m·Z, where log Z starts at 0 and is learned with the
    embedding, at a learning rate of its own.

    Attributes
    ----------
    log_z_ : float
        The learned log Z.
    """

    _default_max_iter: ClassVar[int] = 400
    _base_learning_rate: ClassVar[float] = 1.6
    # log Z is learned more slowly than the embedding, in which clusters would otherwise be torn while log Z falls.
    _learned_learning_rate: ClassVar[float] = 0.1
    _default_negatives_per_row: ClassVar[int] = 128

    def _learned_scalars(self) -> dict[str, float]:
        return {"log_z": 0.0}

    def _phase_parameters(self, n: int, early: bool) -> dict[str, float]:
        return {"n_negatives": float(self.n_negatives)}

    def _compute_attractive_loss(self, pairs: Pairs) -> Tensor:
        return classified_as_data(pairs.log_q_edges, _log_odds(pairs.parameters))

    def _compute_repulsive_loss(self, pairs: Pairs) -> Tensor:
        return classified_as_noise(pairs.log_q_negatives, _log_odds(pairs.parameters))

    def _pair_forces(self) -> PairForces:
        return PairForces(
            attractive=negtsne.attractive,
            repulsive=negtsne.repulsive,
            attractive_scalar=attractive_log_z,
            repulsive_scalar=repulsive_log_z,
        )

    def _force_parameters(self, parameters: dict[str, Any]) -> tuple[Tensor]:
        return (torch.exp(_log_odds(parameters)),)


def _log_odds(parameters: Any) -> Tensor:
    """Return log(m Z)."""
    return parameters["log_z"] + math.log(parameters["n_negatives"])


def attractive_log_z(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + ν/q) with respect to log ν: ν/(q + ν)."""
    nu = p[0]
    return nu * (1.0 + d2) / (1.0 + nu * (1.0 + d2))


def repulsive_log_z(d2: Any, p: tuple[Any, ...], power: Any) -> Any:
    """Derivative of log(1 + q/ν) with respect to log ν: −q/(q + ν)."""
    nu = p[0]
    return -1.0 / (1.0 + nu * (1.0 + d2))
