"""What a GPU would be sent."""

from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

_VIEWS = (
    "view",
    "slice",
    "select",
    "unsqueeze",
    "expand",
    "aten.t.",
    "transpose",
    "alias",
    "detach",
    "empty",
    "squeeze",
)


class CountLaunches(TorchDispatchMode):
    """Counts operations that compute or copy, and kernels, while it is active."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not any(name in str(func) for name in _VIEWS):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self._run, counts = InterpretedFunction.run, self

        def run(kernel, *args, **kwargs):
            with counts.paused():
                counts.names.append(kernel.__name__)
                return counts._run(kernel, *args, **kwargs)

        InterpretedFunction.run = run
        return super().__enter__()

    def __exit__(self, *args):
        InterpretedFunction.run = self._run
        return super().__exit__(*args)

    def paused(self):
        """Return a context in which nothing is counted."""
        from torch.utils._python_dispatch import _disable_current_modes

        return _disable_current_modes()
