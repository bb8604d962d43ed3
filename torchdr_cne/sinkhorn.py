"""Symmetric Sinkhorn scaling in the logarithm, of any kernel whose row sums can be formed."""

from collections.abc import Callable

from torch import Tensor


def sinkhorn_scaling(
    log_row_sums: Callable[[Tensor], Tensor], start: Tensor, n_steps: int, tolerance: float | None = None
) -> Tensor:
    """Return f (n,) such that e^{f_i} Σ_j k_ij e^{f_j} comes to 1 for each i.

    Each step is halfway to what the row sums ask for, which converges for every positive symmetric kernel
    (Knight, Ruiz & Uçar, 2014).

    Parameters
    ----------
    log_row_sums : callable
        From f to log Σ_j k_ij e^{f_j}, (n,).
    start : Tensor of shape (n,)
        The first f.
    n_steps : int
        How many steps are taken at most.
    tolerance : float or None, default=None
        Stop once no logarithm of a row sum is further from 0; None never looks, and nothing waits for the device.
    """
    f = start
    for _ in range(n_steps):
        miss = f + log_row_sums(f)
        if tolerance is not None and float(miss.abs().max()) <= tolerance:
            break
        f = f - miss / 2
    return f
