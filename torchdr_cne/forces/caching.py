"""Keep compiled kernels between processes, keyed by what they were compiled from."""

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

from torchdr_cne.forces.declaration import PairForces


class _ContentCache(FunctionCache):
    """Numba's cache keys a closure by pickling what it captures, which differs in every process."""

    def __init__(self, function: Any, content: str) -> None:
        self._content = content
        super().__init__(function)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return cached code, or None: compiling again is the cure for any cache that cannot be read."""
        try:
            return super().load_overload(signature, target_context)
        except Exception as error:
            warnings.warn(f"cached kernels cannot be read ({error!r}); compiling again.", UserWarning, stacklevel=2)
            return None

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        return signature, codegen.magic_tuple(), self._content


def cache_by_content(dispatcher: Any, content: tuple[PairForces, int]) -> None:
    """Cache ``dispatcher`` on disk where its declaration can be told by content, else leave it as it is."""
    key = _content_key(*content)
    if key is None:
        return
    try:
        dispatcher._cache = _ContentCache(dispatcher.py_func, key)
    except (RuntimeError, OSError):  # no writable place: compile in every process
        return


@lru_cache(maxsize=1)
def _sources() -> str:
    """Hash what the kernels are written in; Numba itself looks at one file only."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def _content_key(forces: PairForces, n_components: int) -> str | None:
    """Hash the declared functions' code and numeric globals; None if they use anything else."""
    parts: list[str] = [str(n_components), _sources()]
    for name, function in vars(forces).items():
        if function is None:
            continue
        code = function.__code__
        values = [function.__globals__.get(used) for used in code.co_names]
        if code.co_freevars or not all(isinstance(value, (int, float)) for value in values):
            return None
        parts += [name, code.co_code.hex(), repr(code.co_consts), repr(values)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
