"""Sums over all pairs of points: Σ_j c_j q_ij and Σ_j c_j q'_ij (z_i − z_j), j ≠ i, for each row i.

All that an exact method asks of its n² pairs is one or two of these, with charges of its own.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from torchdr_cne._compiler import numba_works
from torchdr_cne.devices import block_elements
from torchdr_cne.distributed import Share
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.problem import ForceEngine, StepCoefficients
from torchdr_cne.forces.tiles import power, shorten_rows
from torchdr_cne.workers import Workers

_PAIRS_AT_ONCE = 1 << 22, 1 << 26
"""Number of pairs in one operation, on a CPU and on other devices."""
_LANES = 16
_SMALLEST = 1e-30
"""Of row sums that underflow: a point that far from all others feels no repulsion."""


class PairSums(Protocol):
    """Computes the two sums for the rows that a rank owns.

    ``own_threads`` tells that it brings its own threads.
    """

    own_threads: bool

    def send(self, z_ds: Tensor) -> Hashable:
        """Prepare for positions, before each step, and return what the launches of a device depend on."""

    def compute(self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return Σ_j c_j q_ij (own slots,) and Σ_j c_j q'_ij (z_i − z_j) (d, own slots); ``charges`` is (slots,)."""


class TorchSums:
    """The sums in torch, a block of rows at a time: any device, dtype and dimension."""

    own_threads = False

    def __init__(self, forces: PairForces, share: Share) -> None:
        self._forces, self._share = forces, share

    def send(self, z_ds: Tensor) -> Hashable:
        """Prepare nothing."""
        return None

    def compute(self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return both sums for the own slots."""
        normaliser, slope = self._forces.normaliser, self._forces.repulsive
        assert normaliser is not None
        totals, forces = [], []
        step = max(1, block_elements(z_ds.device, *_PAIRS_AT_ONCE) // z_ds.shape[1])
        for first in range(self._share.start, self._share.stop, step):
            rows = torch.arange(first, min(first + step, self._share.stop), device=z_ds.device)
            difference = z_ds[:, rows].unsqueeze(2) - z_ds.unsqueeze(1)
            d2 = difference.square().sum(dim=0)
            others = charges.expand_as(d2).scatter(1, rows.unsqueeze(1), 0.0)
            totals.append((others * normaliser(d2, parameters, power)).sum(dim=1))
            forces.append(((others * slope(d2, parameters, power)) * difference).sum(dim=2))
        return torch.cat(totals), torch.cat(forces, dim=1)


class CompiledSums:
    """The sums on the CPU in float32, up to three dimensions; the same bits for any number of threads."""

    own_threads = True

    def __init__(self, forces: PairForces, share: Share, workers: Workers) -> None:
        self._forces, self._share, self._workers = forces, share, workers

    def send(self, z_ds: Tensor) -> Hashable:
        """Prepare nothing."""
        return None

    def compute(self, z_ds: Tensor, charges: Tensor, parameters: tuple[Tensor | float, ...]) -> tuple[Tensor, Tensor]:
        """Return both sums for the own slots."""
        import numpy as np

        from torchdr_cne.forces.all_pairs_kernels import kernel_of

        n_own = len(self._share)
        totals, forces = z_ds.new_empty(n_own), z_ds.new_empty((len(z_ds), n_own))
        p = tuple(np.float32(value) for value in parameters)
        arguments = (z_ds.contiguous().view(-1).numpy(), charges.numpy(), p, totals.numpy(), forces.view(-1).numpy())
        kernel = kernel_of(self._forces, len(z_ds))
        self._workers.parallel_for(kernel, n_own // _LANES, self._share.start, *arguments)
        return totals, forces


def exact_sums(forces: PairForces, share: Share, like: Tensor, workers: Workers) -> PairSums:
    """Return the fastest exact sums for positions (d, slots) such as ``like``."""
    compilable = like.device.type == "cpu" and like.dtype == torch.float32 and len(like) <= 3
    return CompiledSums(forces, share, workers) if compilable and numba_works() else TorchSums(forces, share)


class AllPairsForces:
    """The gradient of a loss of edges and of row sums Σ_j c_j q_ij over all pairs.

    Parameters
    ----------
    edges : ForceEngine
        Sums the attraction, asked for a step without negatives.
    sums : PairSums
        Sums over all pairs.
    share : Share
        The slots of each rank.
    occupied : Tensor of shape (slots,), bool
        Slots that hold a point.
    loss : callable
        From the logarithms of the row sums, (n,) in the order of the slots, and log charges (n,) to the repulsive loss,
        and whether that is one of the sum of all row sums, without charges: then one pass over the pairs does.
    log_charges : callable
        From the sums' function, log charges to logarithms of row sums, to the points' log charges (n,), or None if all
        are 0.
    """

    def __init__(
        self,
        edges: ForceEngine,
        sums: PairSums,
        share: Share,
        occupied: Tensor,
        loss: Callable[[Tensor, Tensor | None], tuple[Tensor, bool]],
        log_charges: Callable[[Callable[[Tensor | None], Tensor]], Tensor | None],
    ) -> None:
        self._edges, self._sums, self._share, self._occupied = edges, sums, share, occupied
        self._filled = torch.nonzero(occupied).squeeze(1)
        self._loss, self._log_charges = loss, log_charges
        self.own_threads = edges.own_threads and sums.own_threads
        self.is_replayable = True

    def gradient(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Return the gradient (d, own slots)."""
        self.send(z_ds, step)
        return self.launch(z_ds, step)

    def send(self, z_ds: Tensor, step: StepCoefficients) -> Hashable:
        """Prepare for the step, and return what the launches of a device depend on."""
        return self._sums.send(z_ds), step.parameters, step.attraction, step.repulsion, step.longest

    def launch(self, z_ds: Tensor, step: StepCoefficients) -> tuple[Tensor, Tensor | None]:
        """Compute what `gradient` returns."""
        # Without shifts and with the parameters it had, an engine sends nothing.
        gradient, _ = self._edges.gradient(z_ds, replace(step, shifts=[], longest=None))
        gradient.add_(self._repulsion(z_ds, step.parameters), alpha=2 * step.repulsion)
        if step.longest is not None:
            shorten_rows(gradient, 0, step.longest)
        return gradient, None

    def _repulsion(self, z_ds: Tensor, parameters: tuple[Tensor | float, ...]) -> Tensor:
        """Return half the gradient of the loss of row sums."""
        own, occupied = self._share.own, self._occupied
        log_charges = self._log_charges(lambda given: self.log_row_sums(z_ds, given, parameters))
        self.is_replayable = log_charges is None  # to find charges the host may have to look at sums
        charges = self._charges(z_ds, log_charges)
        totals, forces = self._sums.compute(z_ds, charges, parameters)
        scale, is_total = self._by_row_sum(self._of_points(totals), log_charges)
        if is_total:  # charges and scales are the same for all: both ends of a pair see the same force
            return 2 * scale * forces * occupied[own]
        of_slots = torch.zeros_like(charges).index_copy_(0, self._filled, scale)
        _, of_scale = self._sums.compute(z_ds, of_slots, parameters)
        return of_slots[own] * forces + charges[own] * of_scale

    def _by_row_sum(self, log_sums: Tensor, log_charges: Tensor | None) -> tuple[Tensor, bool]:
        """Return the loss's derivative by each row sum (n,), or by their total (), and whether it is that."""
        with torch.enable_grad():
            log_sums.requires_grad_(True)
            loss, is_of_total = self._loss(log_sums, log_charges)
            (by_log,) = torch.autograd.grad(loss, log_sums)
        sums = log_sums.detach().exp()
        return (by_log.sum() / sums.sum(), True) if is_of_total else (by_log / sums, False)

    def log_row_sums(self, z_ds: Tensor, log_charges: Tensor | None, parameters: tuple[Tensor | float, ...]) -> Tensor:
        """Return log Σ_j c_j q_ij of all points (n,), in the order of the slots."""
        return self._of_points(self._sums.compute(z_ds, self._charges(z_ds, log_charges), parameters)[0])

    def _charges(self, z_ds: Tensor, log_charges: Tensor | None) -> Tensor:
        if log_charges is None:
            return self._occupied.to(z_ds.dtype)
        return torch.zeros_like(z_ds[0]).index_copy_(0, self._filled, log_charges.exp())

    def _of_points(self, totals: Tensor) -> Tensor:
        """Return the logarithms of all ranks' row sums, without padding."""
        everyone = self._share.gather(totals, "the exchange of row sums")
        return everyone[self._filled].clamp_min(_SMALLEST).log()
