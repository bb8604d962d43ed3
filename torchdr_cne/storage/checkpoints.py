"""Checkpoints of one fit in a folder that one process holds at a time."""

import contextlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from torchdr_cne.storage import folders
from torchdr_cne.storage.folders import DamagedError, FormatError
from torchdr_cne.storage.replacing import is_ours, looks_like_ours, remove, remove_leftovers, targets_of_leftovers

PREEMPTED = "PREEMPTED"
"""Name of the file that says that the last fit was asked to stop before it was done."""
_PATIENCE = 3.0
"""Seconds to wait for the lock, as the system may take a moment to release that of a killed process."""
_SHOWN = 60


class Checkpoints:
    """The checkpoints ``step-<N>`` of one fit, to be used in a ``with`` block.

    Parameters
    ----------
    folder : str or Path
        Folder of the checkpoints, which is made if it does not exist.
    identity : mapping
        ``{"config": {…}, "data": {…}}``, JSON values that tell whether a checkpoint belongs to this fit.
    keep : int, default=2
        Number of checkpoints to keep; with 2, a damaged last one costs only the work since the one before.
    former : mapping, default=None
        Parameters that earlier versions had, with their defaults: a checkpoint with just these belongs to this fit.
    """

    def __init__(
        self, folder: str | Path, identity: Mapping[str, Any], keep: int = 2, former: Mapping[str, Any] | None = None
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1.")
        self.folder = Path(folder)
        self.keep = keep
        self._identity = json.loads(json.dumps(identity, allow_nan=False))
        self._former = former or {}
        self._lock: int | None = None

    def __enter__(self) -> "Checkpoints":
        """Lock the folder, and repair what a killed fit has left.

        Raises
        ------
        RuntimeError
            If another fit holds the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        for path in targets_of_leftovers(self.folder):
            remove_leftovers(path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Writing.

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any], *, last: bool = False) -> bool:
        """Write the checkpoint of ``step``, then remove all but the last ``keep``, and the marker `PREEMPTED`.

        Checkpoints of later steps are removed too, as they were damaged or belong to a fit that began again.

        Parameters
        ----------
        step : int
            Number of iterations done.
        tensors : mapping of str to Tensor
            The tensors from which the fit continues.
        record : mapping
            JSON values besides the tensors, with finite numbers.
        last : bool, default=False
            Whether no other checkpoint can follow, so that a failure is an error.

        Returns
        -------
        bool
            True; False, with a warning, if the checkpoint could not be written.

        Raises
        ------
        OSError
            If the ``last`` checkpoint could not be written; the previous one is intact.
        """
        assert self._lock is not None, "Checkpoints has to be used in a with block"
        manifest = {"kind": "checkpoint", "step": step, "identity": self._identity, "record": dict(record)}
        try:
            folders.write_folder(self._path(step), tensors, manifest)
        except OSError as error:
            if last:
                raise
            before = next(self._steps(), None)
            rest = "there is no earlier one" if before is None else f"the previous one (step {before}) is intact"
            warnings.warn(
                f"the checkpoint of step {step} could not be written ({error}); the fit goes on, {rest}.",
                UserWarning,
                stacklevel=2,
            )
            return False
        with contextlib.suppress(OSError):
            kept = set(islice((known for known in self._steps() if known <= step), self.keep))
            for path in self._named():
                if path not in map(self._path, kept) and is_ours(path):
                    remove(path)
            self.clear_marker()
        return True

    def mark_preempted(self, step: int) -> None:
        """Leave the file `PREEMPTED` with step and time, for whoever starts the fit again."""
        content = {"step": step, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        temporary = self.folder / f"{PREEMPTED}.tmp"
        folders.write_file(temporary, json.dumps(content).encode())
        temporary.replace(self.folder / PREEMPTED)

    def clear_marker(self) -> None:
        """Remove the file `PREEMPTED`, once the fit is done."""
        (self.folder / PREEMPTED).unlink(missing_ok=True)

    # Reading.

    def newest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return step, tensors and record of the last checkpoint that can be read; None if there is none.

        A damaged checkpoint is skipped with a warning.

        Raises
        ------
        DamagedError
            If there are checkpoints, and all are damaged.
        FormatError
            If the last one has a later version of the format, is a pickle, or is not a checkpoint.
        ValueError
            If it belongs to a fit with other parameters or other data.
        """
        any_damaged = False
        for step in self._steps():
            path = self._path(step)
            try:
                tensors, manifest = folders.read_folder(path)
            except (DamagedError, OSError) as error:
                warnings.warn(f"checkpoint skipped: {error}", UserWarning, stacklevel=2)
                any_damaged = True
                continue
            if manifest.get("kind") != "checkpoint" or manifest.get("step") != step or not _is_complete(manifest):
                raise FormatError(f"{path} is not the checkpoint of step {step}; choose another folder for this fit.")
            self._check_identity(path, manifest["identity"])
            return step, tensors, manifest["record"]
        if any_damaged:
            raise DamagedError(
                f"all checkpoints in {self.folder} are damaged; delete its folders step-… to start anew."
            )
        return None

    def _check_identity(self, path: Path, saved: Mapping[str, Any]) -> None:
        for part, what in (("config", "parameters"), ("data", "data")):
            differing = _differences(saved[part], self._identity[part], self._former if part == "config" else {})
            if differing:
                raise ValueError(
                    f"{path} is of a fit with other {what}: {differing}; choose another folder, or delete the "
                    "checkpoints step-… in this one to start anew."
                )

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def _named(self) -> dict[Path, int]:
        """Return the folders that have the name of a checkpoint, with their steps, latest first."""
        names = (re.fullmatch(r"step-(\d+)", entry.name) for entry in self.folder.iterdir())
        found = {self.folder / name[0]: int(name[1]) for name in names if name}
        return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))

    def _steps(self) -> Iterator[int]:
        """Yield the steps that have checkpoints, latest first; folders with files of others do not count."""
        yield from (step for path, step in self._named().items() if looks_like_ours(path))


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest has the record of a fit, and the parameters and data that tell whose it is."""
    identity = manifest.get("identity")
    parts = [identity.get(part) for part in ("config", "data")] if isinstance(identity, dict) else [None]
    return all(isinstance(part, dict) for part in (*parts, manifest.get("record")))


def same_identity(saved: Mapping[str, Any], own: Mapping[str, Any], former: Mapping[str, Any]) -> bool:
    """Return whether two identities are of one fit; ``former`` parameters at their defaults do not count."""
    return saved["data"] == own["data"] and not _differences(saved["config"], own["config"], former)


def _differences(saved: Mapping[str, Any], given: Mapping[str, Any], former: Mapping[str, Any]) -> str:
    """Return text on the entries in which two mappings differ; ``former`` parameters at their defaults do not count."""
    saved = {key: value for key, value in saved.items() if key in given or key not in former or former[key] != value}
    keys = [key for key in {**saved, **given} if key not in saved or key not in given or saved[key] != given[key]]
    return "; ".join(f"{key} was {_shown(saved, key)} and is {_shown(given, key)}" for key in keys)


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = repr(values[key]) if key in values else "absent"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock until it is closed or the process ends."""
    try:
        import fcntl
    except ImportError as error:
        raise RuntimeError("checkpoints need POSIX file locks, which Windows does not have; fit without.") from error
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "holder unknown"
                os.close(descriptor)
                raise RuntimeError(
                    f"{folder} is in use by another fit ({holder}); wait for it, or choose another folder."
                ) from None
            time.sleep(0.05)
    with contextlib.suppress(OSError):  # the disk may be full; only the message above needs this
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {platform.node()}".encode(), 0)
    return descriptor
