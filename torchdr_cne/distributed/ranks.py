"""One rank's view of its process group: the few collectives that a fit needs, each with a name for errors."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntFlag
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchdr_cne.distributed.config import DistributedConfig

_FOREVER = timedelta(days=365)


class RankError(RuntimeError):
    """The error that another rank has failed, or has not answered in time."""


class Signal(IntFlag):
    """A request of a rank, which all ranks follow before the next step."""

    NONE = 0
    STOP = 1
    PREEMPTED = 2
    INTERRUPTED = 4


class Ranks:
    """The processes of a fit; for a single process every method returns the result of a group of one.

    Every rank calls the same methods in the same order.

    Parameters
    ----------
    rank, size : int
        Number of this process, and number of processes.
    group : ProcessGroup, default=None
        Group of torch.distributed; CPU tensors always use gloo.
    config : DistributedConfig
        Timeout, and the smallest number of rows that is split.
    stages : bool, default=False
        Whether tensors of a GPU travel through the memory of the host, as gloo needs it.

    Attributes
    ----------
    signal : Signal
        The signal of this rank; `agreed_signal` combines those of all ranks.
    step : int or None
        The current iteration of the loop, for error messages.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group: Any = None,
        config: DistributedConfig | None = None,
        *,
        stages: bool = False,
    ) -> None:
        self.rank, self.size, self._group, self._stages = rank, size, group, stages
        self.config = DistributedConfig() if config is None else config
        self.signal = Signal.NONE
        self.step: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and reports."""
        return self.rank == 0

    # Agreement.

    def all_gather_ints(self, numbers: Sequence[int], what: str) -> Tensor:
        """Return the ``numbers`` of all ranks, equally many on each, as (size, m) int64."""
        own = torch.tensor(list(numbers), dtype=torch.int64)
        if self.size == 1:
            return own.unsqueeze(0)
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        with self._collective(what):
            dist.all_gather(everyone, own, group=self._group)
        return torch.stack(everyone)

    def agreed_signal(self) -> Signal:
        """Return the union of the signals of all ranks, which all of them receive at the same step."""
        if self.size == 1:
            return self.signal
        union = Signal.NONE
        for asked in self.all_gather_ints([self.signal], "the agreement to go on")[:, 0].tolist():
            union |= Signal(asked)
        return union

    @contextmanager
    def all_or_none(self, what: str) -> Iterator[None]:
        """Run the block on every rank; if it fails on any rank, all ranks raise before the next collective."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            if self.size == 1 or isinstance(raised, RankError):
                raise
            error = raised
        if self.size == 1:
            return
        text = b"" if error is None else f"{type(error).__name__}: {error}".encode()
        lengths = self.all_gather_ints([len(text)], what)[:, 0]
        if not bool(lengths.any()):
            return
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8)
        padded[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
        texts = [torch.empty_like(padded) for _ in range(self.size)]
        with self._collective(what):
            dist.all_gather(texts, padded, group=self._group)
        if error is not None:
            raise error
        failed = int(torch.nonzero(lengths)[0])
        reason = bytes(texts[failed][: int(lengths[failed])].tolist()).decode(errors="replace")
        raise RankError(f"rank {failed} failed in {what}: {reason}")

    def check_equal(self, values: Mapping[str, Any], what: str) -> None:
        """Raise a ValueError on all ranks if one of the named ``values`` differs between ranks."""
        of_names = self.all_gather_ints([_digest(list(values))], what)  # of one size, whatever a rank has
        if not bool((of_names == of_names[0]).all()):
            some = ", ".join(f"{name}={value!r}" for name, value in islice(values.items(), 3))
            raise ValueError(
                f"the ranks differ in {what}: rank {self.rank} of {self.size} has {some}, …, and others have other "
                "parameters; start every rank with the same estimator."
            )
        everyone = self.all_gather_ints([_digest(value) for value in values.values()], what)
        if torch.equal(everyone, everyone[:1].expand_as(everyone)):
            return
        different = (everyone != everyone[0]).any(dim=0).tolist()
        named = [f"{name}={value!r}" for (name, value), is_bad in zip(values.items(), different, strict=True) if is_bad]
        raise ValueError(
            f"the ranks differ in {what}: rank {self.rank} of {self.size} has {', '.join(named)}; start every rank "
            "with the same data and parameters."
        )

    @contextmanager
    def without_timeout(self) -> Iterator[None]:
        """Wait for the other ranks without a time limit within the block."""
        if self.size == 1:
            yield
            return
        before = self._group
        self._group = dist.new_group(timeout=_FOREVER, backend="gloo")
        try:
            yield
        finally:
            dist.destroy_process_group(self._group)
            self._group = before

    # Exchange of tensors.

    def add_up(self, tensor: Tensor, what: str) -> Tensor:
        """Replace ``tensor`` by its sum over ranks, and return it."""
        return self._reduce(tensor, dist.ReduceOp.SUM, what)

    def smallest(self, tensor: Tensor, what: str) -> Tensor:
        """Replace ``tensor`` by its element-wise minimum over ranks, and return it."""
        return self._reduce(tensor, dist.ReduceOp.MIN, what)

    def _reduce(self, tensor: Tensor, operation: Any, what: str) -> Tensor:
        if self.size > 1:
            with self._collective(what), self._carried(tensor) as carried:
                dist.all_reduce(carried, op=operation, group=self._group)
        return tensor

    def copy_from(self, source: int, tensor: Tensor, what: str) -> Tensor:
        """Replace ``tensor`` by that of rank ``source``, and return it."""
        if self.size > 1:
            with self._collective(what), self._carried(tensor) as carried:
                dist.broadcast(carried, self._global(source), group=self._group)
        return tensor

    def copy_state_from(
        self, source: int, state: tuple[Mapping[str, Tensor], Any] | None, what: str
    ) -> tuple[dict[str, Tensor], Any]:
        """Return the tensors and plain (JSON) data of rank ``source`` on all ranks; those of the others may be None."""
        if self.size == 1:
            assert state is not None
            return dict(state[0]), state[1]
        header = b""
        if self.rank == source:
            assert state is not None
            kinds = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in state[0].items()}
            header = json.dumps([kinds, state[1]]).encode()
        length = int(self.all_gather_ints([len(header)], what)[source, 0])
        letters = torch.tensor(list(header), dtype=torch.uint8) if header else torch.empty(length, dtype=torch.uint8)
        kinds, plain = json.loads(bytes(self.copy_from(source, letters, what).tolist()))
        tensors = {}
        for name, (dtype, shape) in kinds.items():
            known = None if self.rank != source or state is None else state[0][name].detach().cpu().contiguous()
            tensor = torch.empty(shape, dtype=getattr(torch, dtype)) if known is None else known
            tensors[name] = self.copy_from(source, tensor, what)
        return tensors, plain

    def gather_(self, full: Tensor, bounds: Sequence[int], what: str) -> Tensor:
        """Fill ``full`` (…, n), of which this rank has the part between its ``bounds``, with the parts of the others.

        Parts travel round a ring, so that each reaches and leaves every rank once, and their sizes may differ.
        """
        if self.size == 1:
            return full
        with self._carried(full) as carried:
            lines = carried.view(-1, full.shape[-1])
            for hop in range(self.size - 1):
                leaving, coming = (self.rank - hop) % self.size, (self.rank - hop - 1) % self.size
                out, into = (lines[:, bounds[r] : bounds[r + 1]] for r in (leaving, coming))
                self._pass(list(out), list(into), what)
        return full

    def pass_on(self, tensors: Sequence[Tensor], n_coming: int, what: str) -> list[Tensor]:
        """Send ``tensors`` to the next rank, and return those of the previous rank, with ``n_coming`` rows each."""
        if self.size == 1:
            return list(tensors)
        leaving = [self._to_carrier(tensor).contiguous() for tensor in tensors]
        coming = [tensor.new_empty((n_coming, *tensor.shape[1:])) for tensor in leaving]
        self._pass(leaving, coming, what)
        return [tensor.to(former.device) for tensor, former in zip(coming, tensors, strict=True)]

    def _pass(self, out: list[Tensor], into: list[Tensor], what: str) -> None:
        following, before = self._global((self.rank + 1) % self.size), self._global((self.rank - 1) % self.size)
        operations = [dist.P2POp(dist.isend, line, following, group=self._group) for line in out if line.numel()]
        operations += [dist.P2POp(dist.irecv, line, before, group=self._group) for line in into if line.numel()]
        with self._collective(what):
            for work in dist.batch_isend_irecv(operations) if operations else []:
                work.wait()

    def exchange(self, outgoing: Tensor, counts: Sequence[int], what: str) -> Tensor:
        """Send the first ``counts[0]`` rows to rank 0, the next to rank 1, …; return the received rows, by rank."""
        if self.size == 1:
            return outgoing
        coming = self.all_gather_ints(counts, what)[:, self.rank].tolist()
        leaving = self._to_carrier(outgoing).contiguous()
        received = leaving.new_empty((sum(coming), *leaving.shape[1:]))
        with self._collective(what):
            dist.all_to_all_single(received, leaving, coming, list(counts), group=self._group)
        return received.to(outgoing.device)

    def _to_carrier(self, tensor: Tensor) -> Tensor:
        """Return a tensor where the group can send it."""
        return tensor.cpu() if self._stages else tensor

    @contextmanager
    def _carried(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield a tensor, or its copy, where the group can fill it; then the tensor has what the copy has."""
        carried = self._to_carrier(tensor)
        yield carried
        if carried is not tensor:
            tensor.copy_(carried)

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self._group, rank) if self._group is not None else rank

    @contextmanager
    def _collective(self, what: str) -> Iterator[None]:
        """Raise a RankError that names the collective and the step in which the group broke."""
        try:
            yield
        except RuntimeError as error:
            where = what if self.step is None else f"{what} at step {self.step + 1}"
            late = "timed out" in str(error).lower()
            reason = f"did not come within {self.config.timeout:g} s" if late else "has died or left"
            raise RankError(
                f"rank {self.rank} of {self.size} waited for the others in {where} and gave up: one of them {reason}; "
                "its own message tells why."
            ) from error


def _digest(value: Any) -> int:
    """Return a digest of what a value looks like, in 56 bits."""
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7])
