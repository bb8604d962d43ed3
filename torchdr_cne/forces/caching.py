"""Keep compiled kernels between processes, keyed by what they were compiled from."""

import contextlib
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

from torchdr_cne import simd
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.numerics import jit, kernel_jit
from torchdr_cne.kernel_cache import SealedFiles, warn_of_no_cache

_UNNAMED = itertools.count()


class _ContentCache(FunctionCache):
    """A cache with files of their own for each content and signature.

    Numba's own keys a closure by pickling what it captures, which differs in every process, and lets processes that
    compile different methods at the same time write each other's files.
    """

    def __init__(self, function: Any, content: str) -> None:
        self._content = content
        super().__init__(function)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return cached code, or None."""
        self._choose_file(signature, target_context)
        return super().load_overload(signature, target_context)

    def save_overload(self, signature: Any, data: Any) -> None:
        """Save compiled code; a full or read-only disk only costs the next process a compilation."""
        self._choose_file(signature, data.target_context)
        with contextlib.suppress(OSError):
            super().save_overload(signature, data)

    def _choose_file(self, signature: Any, target_context: Any) -> None:
        key = repr(self._index_key(signature, target_context.codegen()))
        name = f"{self._impl.filename_base}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        self._cache_file = SealedFiles(self._cache_path, name, self._impl.locator.get_source_stamp())

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        return signature, codegen.magic_tuple(), self._content


def content_name(forces: PairForces, *options: int) -> str:
    """Return a name for what is compiled from a declaration; it begins with "own" where content cannot tell it."""
    return _content_key(forces, *options) or f"own{next(_UNNAMED)}"


def named_jit(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles closures under symbols that carry ``name``.

    Numba tells closures of one origin apart by a counter that begins anew in every process: code cached by two
    processes could meet in a third under the same symbol, and one would run in the other's place.
    """

    def compile_named(function: Callable[..., Any]) -> Any:
        function.__qualname__ += f".{name}"
        return jit(function)

    return compile_named


def cached_kernel(function: Callable[..., Any], name: str) -> Any:
    """Compile a kernel, and keep it on disk unless its ``name`` does not tell its content or nothing can be written."""
    function.__qualname__ += f".{name}"
    kernel = kernel_jit(function)
    if not name.startswith("own"):
        try:
            kernel._cache = _ContentCache(kernel.py_func, name)
        except (RuntimeError, OSError) as error:
            warn_of_no_cache(str(error))
    return kernel


_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(simd.__file__)])
).hexdigest()
"""What the kernels are written in; Numba itself looks at one file only."""


def _content_key(forces: PairForces, *options: int) -> str | None:
    """Hash the declared functions' code and numeric globals; None if they use anything else."""
    parts: list[str] = [repr(options), _SOURCES]
    for name, function in vars(forces).items():
        if function is None:
            continue
        code = function.__code__
        values = [function.__globals__.get(used) for used in code.co_names]
        if code.co_freevars or not all(isinstance(value, (int, float)) for value in values):
            return None
        numbers = [constant for constant in code.co_consts if not isinstance(constant, str)]  # without the docstring
        parts += [name, code.co_code.hex(), repr(numbers), repr(values)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
