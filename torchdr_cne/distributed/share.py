"""The share of n items that each rank owns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from torchdr_cne.distributed.ranks import Ranks

UNIT = 256
"""Bounds are multiples of this many rows, so that sums by unit are the same for any number of ranks."""


@dataclass(frozen=True)
class Share:
    """A split of n items into one contiguous range per rank.

    Attributes
    ----------
    ranks : Ranks
        The group.
    bounds : tuple of int
        Rank r owns ``bounds[r]`` to ``bounds[r + 1]``; all but the last are multiples of 256.
    """

    ranks: Ranks
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, n: int, ranks: Ranks) -> "Share":
        """Return a split of ``n`` items that is as even as whole units permit."""
        n_units = -(-n // UNIT)
        return cls(ranks, tuple(min(n, UNIT * (n_units * r // ranks.size)) for r in range(ranks.size + 1)))

    @classmethod
    def whole(cls, n: int) -> "Share":
        """Return a split that gives all items to one process."""
        return cls.of(n, Ranks())

    @property
    def n(self) -> int:
        """Number of items of all ranks."""
        return self.bounds[-1]

    @property
    def start(self) -> int:
        """First item of this rank."""
        return self.bounds[self.ranks.rank]

    @property
    def stop(self) -> int:
        """The number after the last item of this rank."""
        return self.bounds[self.ranks.rank + 1]

    @property
    def own(self) -> slice:
        """The items of this rank."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def _ends(self) -> Tensor:
        return torch.tensor(self.bounds[1:])

    def owners(self, items: Tensor) -> Tensor:
        """Return the rank that owns each of ``items`` (m,)."""
        ends = self._ends.to(device=items.device, dtype=items.dtype)
        return torch.searchsorted(ends, items, right=True, out_int32=True)

    def to_owners(self, items: Tensor, values: Sequence[Tensor], what: str) -> list[Tensor]:
        """Send each row of ``values``, all (m, …), to the rank that owns the item beside it, in order of the ranks.

        Returns the received rows, those of rank 0 first.
        """
        if self.ranks.size == 1:
            return list(values)
        owner = self.owners(items)
        counts = torch.bincount(owner, minlength=self.ranks.size).tolist()
        sent = [torch.cat([value[owner == rank] for rank in range(self.ranks.size)]) for value in values]
        del owner
        return [self.ranks.exchange(sent.pop(0), counts, what) for _ in values]

    def gather_(self, full: Tensor, what: str) -> Tensor:
        """Fill in the items of the other ranks in the last axis of ``full`` (…, n)."""
        return self.ranks.gather_(full, self.bounds, what)

    def gather(self, own: Tensor, what: str) -> Tensor:
        """Return the rows (n, …) of all ranks, of which ``own`` are this rank's."""
        if self.ranks.size == 1:
            return own
        width = math.prod(own.shape[1:])
        full = own.new_empty((self.n, *own.shape[1:]))
        full[self.own] = own
        self.ranks.gather_(full.view(-1), [width * bound for bound in self.bounds], what)
        return full

    def total(self, own: Tensor, what: str, per_unit: int = UNIT) -> Tensor:
        """Return the sum of a vector over all ranks, float64 (), in an order that does not depend on the split.

        ``per_unit`` values, a power of two, belong to 256 of the items.
        """
        sums = _pairwise_sums(torch.nn.functional.pad(own.double(), (0, -len(own) % per_unit)).view(-1, per_unit))
        in_units = Share(self.ranks, tuple(-(-bound // UNIT) for bound in self.bounds))
        everyone = in_units.gather(sums, what)
        padding = (1 << max(0, len(everyone) - 1).bit_length()) - len(everyone)
        return _pairwise_sums(torch.nn.functional.pad(everyone, (0, padding)).unsqueeze(0)).squeeze(0)


def _pairwise_sums(values: Tensor) -> Tensor:
    """Return the sum of each row (m, power of two), neighbours first, so that no vector width changes the bits."""
    while values.shape[1] > 1:
        values = values[:, ::2] + values[:, 1::2]
    return values[:, 0]
