"""A device that is the CPU in disguise, so that code for GPUs runs, with its numbers, where there is none.

Its tensors say that their device is "meta". Compiled code cannot read them, and an operation that mixes them with CPU
tensors fails, as on a GPU. Operations and copies to the CPU are counted.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_MAY_MIX = ("aten::_to_copy", "aten::copy_", "aten::index.", "aten::index_put")
"""Operations between devices: copies, and indices on the CPU."""


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

    def __getitem__(self, key):
        return super().__getitem__(torch.tensor(key) if isinstance(key, list) else key)


class PretendedDevice(TorchDispatchMode):
    """The mode in which the device exists.

    Attributes
    ----------
    n_calls : int
        Number of operations on the device, each of which is at least one launch.
    n_copied : int
        Number of elements that were copied to the CPU.
    n_waits : int
        Number of times that the CPU waited for the device.
    """

    def __init__(self):
        super().__init__()
        self.n_calls = self.n_copied = self.n_waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        pretended = [x for x in given if isinstance(x, Pretended)]
        wanted = kwargs.get("device")
        on_device = bool(pretended) if wanted is None else torch.device(wanted) == DEVICE
        self._check(func, given, pretended)
        self._count(func, pretended, on_device)
        args, kwargs = tree_map(_host, (args, kwargs))
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        found = func(*args, **kwargs)
        return tree_map(lambda x: Pretended(x) if isinstance(x, torch.Tensor) and on_device else x, found)

    def _check(self, func, given, pretended):
        mixed = [x for x in given if x.ndim > 0 and not isinstance(x, Pretended)]
        of_device = isinstance(given[0], Pretended) if given else False
        allowed = func.name().startswith(_MAY_MIX) and (of_device or not func.name().startswith("aten::index"))
        if pretended and mixed and not allowed:
            raise AssertionError(f"{func} mixes devices")

    def _count(self, func, pretended, on_device):
        name = func.name()
        self.n_calls += on_device
        self.n_waits += bool(pretended) and (not on_device or "local_scalar" in name or "nonzero" in name)
        self.n_copied += sum(x.numel() for x in pretended if not on_device)


def _host(x):
    return x.host if isinstance(x, Pretended) else x
