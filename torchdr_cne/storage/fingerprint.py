"""Digests of parameters and of data, by which two fits are recognised as the same."""

import hashlib
import re
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchdr_cne.affinity import AffinityGraph, ComposedAffinity
from torchdr_cne.distributed import Share
from torchdr_cne.hashing import digest_of
from torchdr_cne.inputs import PositivePairs
from torchdr_cne.inputs.blocks import row_blocks
from torchdr_cne.storage.plain import to_plain

RUN_ONLY_PARAMETERS = {
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
"""Parameters that change how a fit runs, but not its result."""


def configuration(method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that determine the result of a method's fit, as JSON values."""
    config: dict[str, Any] = {"method": method}
    for name, value in parameters.items():
        if name in RUN_ONLY_PARAMETERS:
            continue
        tensors: dict[str, Tensor] = {}
        try:
            config[name] = to_plain(value, name, tensors)
        except ValueError:  # the user's own class or function
            config[name] = described(value)
            tensors = {}
            if isinstance(value, nn.Module):
                tensors = {f"{name}.{key}": tensor for key, tensor in value.state_dict().items()}
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors.values()]
        digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in arrays]
        config[name] = [config[name], digests] if digests else config[name]
    return config


def described(value: Any) -> str:
    """Return a description of a value, with hashes of functions and without addresses, which differ by process."""
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
    if hasattr(value, "bind") and not isinstance(value, type):  # a loss that is not a dataclass
        return f"{type(value).__name__} {described(list(vars(value).items()))}"
    return _without_addresses(value)


def _without_addresses(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def data_digest(share: Share, data: Any, given: AffinityGraph | None, labels: Tensor | None) -> dict[str, Any]:
    """Return size and digest of the data; each rank hashes its own rows, and the sum is the same for any split."""
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
        found["edges"] = int(share.ranks.all_gather_ints([given.n_edges], "the digest of the data").sum())
        digest += digest_of(given.weights, given.rows + share.start, given.indices.long())
    share.ranks.add_up(digest, "the digest of the data")
    found["digest"] = f"{int(digest) & (1 << 64) - 1:016x}"
    if labels is not None:
        found["labels"] = digest_of_labels(labels)
    return found


def digest_of_labels(labels: Tensor) -> str:
    """Return the digest of the class codes of all points."""
    return f"{int(digest_of(labels, torch.arange(len(labels)), torch.zeros(()).long())) & (1 << 64) - 1:016x}"
