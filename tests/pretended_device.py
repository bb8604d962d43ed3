"""A device that is the CPU in disguise, so that code for GPUs runs, with its numbers, where there is none.

Its tensors say that their device is "meta". Compiled code cannot read them, and an operation that mixes them with CPU
tensors fails, as on a GPU.
"""

import importlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")


class Pretended(torch.Tensor):
    """A tensor on the pretended device, whose numbers are in ``host``."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host):
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        found = torch.Tensor._make_wrapper_subclass(cls, host.shape, device=DEVICE, **layout)
        found.host = host
        return found

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside the mode")

    def tolist(self):
        return self.cpu().tolist()

    def __getitem__(self, key):  # torch would make an empty tensor of a list, on this device
        return super().__getitem__(torch.tensor(key) if isinstance(key, list) else key)


class PretendedDevice(TorchDispatchMode):
    """The mode in which the device exists; it counts what a GPU would have to do.

    Attributes
    ----------
    n_calls : int
        Number of operations on the device, each of which is at least one launch.
    n_waits : int
        Number of times that the CPU waited for the device.
    copied : list of torch.Size
        Shapes of the tensors that were copied to the CPU.
    """

    def __init__(self):
        super().__init__()
        self.n_calls, self.n_waits, self.copied = 0, 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        pretended = [x for x in given if isinstance(x, Pretended)]
        wanted = kwargs.get("device")
        on_device = bool(pretended) if wanted is None else torch.device(wanted) == DEVICE
        if pretended and not _may_mix(func.name(), given):
            raise AssertionError(f"{func} mixes devices")
        self.n_calls += on_device
        if pretended and (not on_device or "local_scalar" in func.name() or "nonzero" in func.name()):
            self.n_waits += 1
        if not on_device:
            self.copied += [x.shape for x in pretended]
        args, kwargs = tree_map(lambda x: x.host if isinstance(x, Pretended) else x, (args, kwargs))
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        found = func(*args, **kwargs)
        return tree_map(lambda x: Pretended(x) if isinstance(x, torch.Tensor) and on_device else x, found)


def _may_mix(name, given):
    """Whether an operation may have these tensors: all of one device, numbers, copies, or indices on the CPU."""
    others = [x for x in given if x.ndim > 0 and not isinstance(x, Pretended)]
    indexes = name.startswith("aten::index.") or name.startswith("aten::index_put")
    return not others or name in ("aten::_to_copy", "aten::copy_") or (indexes and isinstance(given[0], Pretended))


@pytest.fixture
def device(monkeypatch):
    """The mode of the device, entered; torch's fused optimisers, which know no such device, take it."""
    for name in ("sgd", "adam"):
        module = importlib.import_module(f"torch.optim.{name}")
        monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda *_, **__: None)
    with PretendedDevice() as mode:
        yield mode
