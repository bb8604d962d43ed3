"""Checkpoints of a fit: what makes two fits the same, what is saved of one, and going on from it."""

import hashlib
import re
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchdr_cne.affinity import AffinityGraph, ComposedAffinity
from torchdr_cne.distributed import Share, Signal
from torchdr_cne.hashing import digest_of
from torchdr_cne.inputs import PositivePairs
from torchdr_cne.inputs.rows import row_blocks
from torchdr_cne.objectives.points import Objective
from torchdr_cne.optimization.loop import Outcome
from torchdr_cne.optimization.snapshot import Snapshot, take_snapshot
from torchdr_cne.optimization.state import FitState
from torchdr_cne.storage import (
    Checkpoints,
    DamagedError,
    FormatError,
    from_plain,
    read_folder,
    to_plain,
    write_folder,
)

_HOW_NOT_WHAT = {
    "callbacks",
    "checkpoint_dir",
    "checkpoint_every",
    "compile",
    "device",
    "distributed",
    "memory_budget",
    "n_jobs",
    "store_training_data",
    "verbose",
}
"""Parameters that change how a fit runs and not what it finds."""


class Keeper:
    """Saves a fit as it goes, where a folder is given for it.

    Attributes
    ----------
    resumed : Snapshot or None
        Where an earlier fit of the same data with the same parameters has come to.
    seed : int
        The earlier fit's seed, else this one's.
    """

    def __init__(self, share: Share, every: int, seed: int, folder: Path | None, identity: dict[str, Any]) -> None:
        self.resumed: Snapshot | None = None
        self.seed = seed
        self._share, self._every, self._folder, self._identity = share, every, folder, identity
        self._checkpoints: Checkpoints | None = None

    def look_back(self, checkpoints: Checkpoints | None) -> None:
        """Find out on rank 0, which holds the folder, where an earlier fit has come to."""
        ranks = self._share.ranks
        self._checkpoints = checkpoints
        found: Any = None
        with ranks.agreed("looking for checkpoints"):
            if checkpoints is not None:
                found = checkpoints.newest()
        state: Any = ({}, None) if found is None else (found[1], [found[0], found[2]])
        tensors, plain = ranks.copy_state_from(0, state, "the exchange of a checkpoint")
        if plain is not None:
            step, record = plain
            self.seed = record["seed"]
            history = {name: from_plain(values, {}) for name, values in record["history"].items()}
            self.resumed = Snapshot(step, tensors, history, record["finished"])

    def save(self, outcome: Outcome, objective: Objective, state: FitState) -> None:
        """Save the fit after an iteration if that is due; a failure is a warning."""
        if self._folder is not None and outcome.n_iter % self._every == 0 and outcome.n_iter < state.phase.total:
            snapshot = take_snapshot(outcome.optimizer, outcome.n_iter, outcome.history, objective, state)
            if self._checkpoints is not None:
                self._checkpoints.save(outcome.n_iter, snapshot.tensors, self._record(snapshot, finished=False))

    def finish(self, outcome: Outcome, objective: Objective, state: FitState) -> None:
        """Save the fit's end, and whether it was its end."""
        already = self.resumed is not None and self.resumed.finished
        if self._folder is None or already or not outcome.is_whole:
            return
        finished = not outcome.signal & (Signal.PREEMPTED | Signal.INTERRUPTED)
        snapshot = take_snapshot(outcome.optimizer, outcome.n_iter, outcome.history, objective, state)
        with self._share.ranks.agreed("saving the last checkpoint"):
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
        """Return this rank's rows of the graph that an earlier fit has saved, by whatever number of ranks."""
        ranks = self._share.ranks
        if self._folder is None:
            return None
        n_parts = int(ranks.share([_n_saved_parts(self._folder, ranks.size)], "looking for a saved graph")[0, 0])
        graph = None
        if n_parts:
            try:
                graph = self._read_parts(self._folder, n_parts)
            except (DamagedError, FormatError, OSError) as error:
                warnings.warn(f"the saved graph is not used: {error}", UserWarning, stacklevel=2)
        everywhere = bool(ranks.share([int(graph is not None)], "looking for a saved graph").all())
        return graph if everywhere else None

    def _read_parts(self, folder: Path, n_parts: int) -> AffinityGraph | None:
        parts = []
        for part in range(n_parts):
            tensors, manifest = read_folder(folder / _part_name(part, n_parts))
            if manifest["identity"] != self._identity:
                return None
            start, stop = manifest["rows"]
            first, last = max(start, self._share.start), min(stop, self._share.stop)
            if first < last:
                rows = AffinityGraph(tensors["indptr"], tensors["indices"], tensors["weights"], self._share.n)
                parts.append(rows.select(slice(first - start, last - start)))
        degrees = torch.cat([part.indptr.diff() for part in parts])
        return AffinityGraph(
            torch.cat([degrees.new_zeros(1), degrees.cumsum(0)]),
            torch.cat([part.indices for part in parts]),
            torch.cat([part.weights for part in parts]),
            None if self._share.ranks.size == 1 else self._share.n,
        )

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
    """Return into how many parts a complete saved graph is split; 0 if there is none."""
    names = {path.name for path in folder.glob("graph-*-of-*")}
    counts = {int(match[1]) for name in names if (match := re.fullmatch(r"graph-\d+-of-(\d+)", name))}
    complete = [count for count in counts if names >= {_part_name(part, count) for part in range(count)}]
    return preferred if preferred in complete else max(complete, default=0)


@contextmanager
def keeping(
    estimator: Any, share: Share, data: Any, given: AffinityGraph | None, seed: int, labels: Tensor | None = None
) -> Iterator[Keeper]:
    """Hold the estimator's checkpoint folder, on rank 0, and look back at what it has."""
    if estimator.checkpoint_dir is None:
        yield Keeper(share, 0, seed, None, {})
        return
    folder = Path(estimator.checkpoint_dir)
    identity = {"config": configuration(estimator), "data": _data_digest(share, data, given, labels)}
    keeper = Keeper(share, estimator.checkpoint_every, seed, folder, identity)
    checkpoints = Checkpoints(folder, identity) if share.ranks.is_first else None
    with share.ranks.agreed("locking the checkpoint folder"):
        if checkpoints is not None:
            _enter(checkpoints, folder)
    try:
        keeper.look_back(checkpoints)
        yield keeper
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


def configuration(estimator: Any) -> dict[str, Any]:
    """Return what of an estimator's parameters decides its result, as JSON values."""
    config: dict[str, Any] = {"method": type(estimator).__name__}
    for name, value in estimator.get_params(deep=False).items():
        if name in _HOW_NOT_WHAT:
            continue
        tensors: dict[str, Tensor] = {}
        try:
            config[name] = to_plain(value, name, tensors)
        except ValueError:  # a class or a function of the user's own
            config[name] = described(value)
            tensors = {}
            if isinstance(value, nn.Module):
                tensors = {f"{name}.{key}": tensor for key, tensor in value.state_dict().items()}
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors.values()]
        digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in arrays]
        config[name] = [config[name], digests] if digests else config[name]
    return config


def described(value: Any) -> str:
    """Return in words what a value is, functions by their code; without addresses, which another process lacks."""
    if isinstance(value, ComposedAffinity):
        return value.fingerprint()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(described, value))}]"
    if isinstance(value, types.FunctionType):
        code = value.__code__
        cells = [described(cell.cell_contents) for cell in value.__closure__ or ()]
        parts = (code.co_code, _without_addresses(code.co_consts), code.co_names, cells, value.__defaults__)
        return f"{value.__qualname__} {hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
    if is_dataclass(value) and not isinstance(value, type):
        own = [f"{field.name}={described(getattr(value, field.name))}" for field in fields(value)]
        return f"{type(value).__name__}({', '.join(own)})"
    if hasattr(value, "bind") and not isinstance(value, type):  # a loss that is no dataclass
        return f"{type(value).__name__} {described(list(vars(value).items()))}"
    return _without_addresses(value)


def _without_addresses(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _data_digest(share: Share, data: Any, given: AffinityGraph | None, labels: Tensor | None) -> dict[str, Any]:
    """Return size and digest of the data; each rank hashes its own rows, and their sum is the same for any split."""
    digest = torch.zeros((), dtype=torch.int64)
    found: dict[str, Any] = {"rows": share.n}
    if isinstance(data, PositivePairs):
        first = next(data.first_members()).reshape(-1)
        digest += digest_of(first, torch.arange(len(first)), torch.zeros((), dtype=torch.int64))
        found["shape of the first batch"] = len(first)
    elif data is not None:
        found["columns"] = data.shape[1]
        for rows, block in row_blocks(data, share.own):
            row_ids = torch.arange(rows.start, rows.stop).unsqueeze(1) + share.start
            digest += digest_of(block.cpu(), row_ids, torch.arange(block.shape[1]))
    if given is not None:
        found["edges"] = int(share.ranks.share([given.n_edges], "the digest of the data").sum())
        digest += digest_of(given.weights, given.rows + share.start, given.indices.long())
    share.ranks.add_up(digest, "the digest of the data")
    found["digest"] = f"{int(digest) & (1 << 64) - 1:016x}"
    if labels is not None:
        found["labels"] = digest_of_labels(labels)
    return found


def digest_of_labels(labels: Tensor) -> str:
    """Return the digest of all points' class codes."""
    return f"{int(digest_of(labels, torch.arange(len(labels)), torch.zeros(()).long())) & (1 << 64) - 1:016x}"
