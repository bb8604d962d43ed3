"""Functions that save a fit while it runs, and that resume an earlier fit."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.distributed import Share, Signal
from torchdr_cne.fitting.plan import FitPlan
from torchdr_cne.fitting.reading import FitInput
from torchdr_cne.fitting.resuming import check_graph, check_part, read_snapshot
from torchdr_cne.optimization.loop import Outcome
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.snapshot import Snapshot, take_snapshot
from torchdr_cne.optimization.state import FitState
from torchdr_cne.storage import (
    Checkpoints,
    DamagedError,
    FormatError,
    read_folder,
    to_plain,
    write_folder,
)
from torchdr_cne.storage.checkpoints import same_identity
from torchdr_cne.storage.fingerprint import configuration, data_digest


class FitCheckpoint:
    """Saves a fit while it runs, if a folder is given for it.

    Attributes
    ----------
    resumed : Snapshot or None
        Snapshot of an earlier fit of the same data with the same parameters; None if there is none.
    seed : int
        Seed of the earlier fit if there is one, else of this one.
    """

    def __init__(
        self,
        share: Share,
        every: int,
        seed: int,
        folder: Path | None,
        identity: dict[str, Any],
        former: Mapping[str, Any] | None = None,
    ) -> None:
        self.resumed: Snapshot | None = None
        self.seed = seed
        self._share, self._every, self._folder, self._identity = share, every, folder, identity
        self._former = former or {}
        self._checkpoints: Checkpoints | None = None

    def look_back(self, checkpoints: Checkpoints | None) -> None:
        """Read the snapshot of an earlier fit on rank 0, which holds the folder."""
        ranks = self._share.ranks
        self._checkpoints = checkpoints
        found: Any = None
        with ranks.all_or_none("looking for checkpoints"):
            if checkpoints is not None:
                found = checkpoints.newest()
        state: Any = ({}, None) if found is None else (found[1], [found[0], found[2]])
        tensors, plain = ranks.copy_state_from(0, state, "the exchange of a checkpoint")
        if plain is not None:
            self.resumed, self.seed = read_snapshot(plain[0], plain[1], tensors, self._share.n)

    def save(self, outcome: Outcome, objective: Objective, state: FitState) -> None:
        """Save the fit after an iteration if a save is due; a failure is a warning."""
        if self._folder is not None and outcome.n_iter % self._every == 0 and outcome.n_iter < state.phase.total:
            snapshot = take_snapshot(outcome.optimizer, outcome.n_iter, outcome.history, objective, state)
            if self._checkpoints is not None:
                self._checkpoints.save(outcome.n_iter, snapshot.tensors, self._record(snapshot, finished=False))

    def finish(self, outcome: Outcome, objective: Objective, state: FitState) -> None:
        """Save the last state of the fit, and whether the fit has finished."""
        already = self.resumed is not None and self.resumed.finished
        if self._folder is None or already or not outcome.is_whole:
            return
        finished = not outcome.signal & (Signal.PREEMPTED | Signal.INTERRUPTED)
        snapshot = take_snapshot(outcome.optimizer, outcome.n_iter, outcome.history, objective, state)
        with self._share.ranks.all_or_none("saving the last checkpoint"):
            if self._checkpoints is not None:
                record = self._record(snapshot, finished=finished)
                self._checkpoints.save(outcome.n_iter, snapshot.tensors, record, last=True)
                if Signal.PREEMPTED in outcome.signal:
                    self._checkpoints.mark_preempted(outcome.n_iter)
                elif finished:
                    self._checkpoints.clear_marker()

    def _record(self, snapshot: Snapshot, *, finished: bool) -> dict[str, Any]:
        history = {name: to_plain(values, name, {}) for name, values in snapshot.history.items()}  # JSON has no NaN
        return {"seed": self.seed, "history": history, "finished": finished}

    # ---- the graph, one part a rank --------------------------------------------------------------------

    def saved_graph(self) -> AffinityGraph | None:
        """Return this rank's rows of the graph that an earlier fit has saved, with any number of ranks."""
        ranks = self._share.ranks
        if self._folder is None:
            return None
        n_parts = int(
            ranks.all_gather_ints([_n_saved_parts(self._folder, ranks.size)], "looking for a saved graph")[0, 0]
        )
        graph = None
        if n_parts:
            try:
                graph = self._read_parts(self._folder, n_parts)
            except (DamagedError, FormatError, OSError) as error:
                warnings.warn(f"the saved graph is not used: {error}", UserWarning, stacklevel=2)
        everywhere = bool(ranks.all_gather_ints([int(graph is not None)], "looking for a saved graph").all())
        return graph if everywhere else None

    def _read_parts(self, folder: Path, n_parts: int) -> AffinityGraph | None:
        parts = []
        for part in range(n_parts):
            tensors, manifest = read_folder(folder / _part_name(part, n_parts))
            try:
                if not same_identity(manifest["identity"], self._identity, self._former):
                    return None
                start, stop = (int(row) for row in manifest["rows"])
                check_part(tensors, stop - start)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise FormatError(f"{folder / _part_name(part, n_parts)} is no part of a graph ({error!r}).") from error
            first, last = max(start, self._share.start), min(stop, self._share.stop)
            if first < last:
                rows = AffinityGraph(tensors["indptr"], tensors["indices"], tensors["weights"], self._share.n)
                parts.append(rows.select(slice(first - start, last - start)))
        if sum(part.n_rows for part in parts) != len(self._share):
            raise FormatError(f"the parts in {folder} are not those of {self._share.n} points.")
        degrees = torch.cat([part.indptr.diff() for part in parts])
        graph = AffinityGraph(
            torch.cat([degrees.new_zeros(1), degrees.cumsum(0)]),
            torch.cat([part.indices for part in parts]),
            torch.cat([part.weights for part in parts]),
            None if self._share.ranks.size == 1 else self._share.n,
        )
        check_graph(graph)
        return graph

    def save_graph(self, graph: AffinityGraph) -> None:
        """Save this rank's rows of the graph; a failure is a warning."""
        ranks = self._share.ranks
        if self._folder is None:
            return
        tensors = {"indptr": graph.indptr, "indices": graph.indices, "weights": graph.weights}
        manifest = {"identity": self._identity, "rows": [self._share.start, self._share.stop]}
        try:
            write_folder(self._folder / _part_name(ranks.rank, ranks.size), tensors, manifest)
        except OSError as error:
            warnings.warn(f"the graph is not saved, a resumed fit will compute it again: {error}", stacklevel=2)


def _part_name(part: int, n_parts: int) -> str:
    return f"graph-{part}-of-{n_parts}"


def _n_saved_parts(folder: Path, preferred: int) -> int:
    """Return the number of parts into which a complete saved graph is split; 0 if there is none."""
    names = {path.name for path in folder.glob("graph-*-of-*")}
    counts = {int(match[1]) for name in names if (match := re.fullmatch(r"graph-\d+-of-(\d+)", name))}
    complete = [count for count in counts if names >= {_part_name(part, count) for part in range(count)}]
    return preferred if preferred in complete else max(complete, default=0)


@contextmanager
def checkpointing(plan: FitPlan, given: FitInput, share: Share) -> Iterator[FitCheckpoint]:
    """Yield the checkpoint of a fit, with what an earlier fit has saved; rank 0 holds the folder meanwhile."""
    folder = plan.options.checkpoint_dir
    if folder is None:
        yield FitCheckpoint(share, 0, given.seed, None, {})
        return
    data = given.data if given.pairs is None else given.pairs
    identity = {
        "config": configuration(plan.name, plan.parameters),
        "data": data_digest(share, data, given.graph, given.labels),
    }
    former = {name: to_plain(value, name, {}) for name, value in plan.former_parameters.items()}
    checkpoint = FitCheckpoint(share, plan.options.checkpoint_every, given.seed, folder, identity, former)
    checkpoints = Checkpoints(folder, identity, former=former) if share.ranks.is_first else None
    with share.ranks.all_or_none("locking the checkpoint folder"):
        if checkpoints is not None:
            _enter(checkpoints, folder)
    try:
        checkpoint.look_back(checkpoints)
        yield checkpoint
    finally:
        if checkpoints is not None:
            checkpoints.__exit__(None, None, None)


def _enter(checkpoints: Checkpoints, folder: Path) -> None:
    try:
        checkpoints.__enter__()
    except OSError as error:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} cannot be used: {error.strerror or error}; give a folder that can be "
            "written to, or one that can be made."
        ) from error
