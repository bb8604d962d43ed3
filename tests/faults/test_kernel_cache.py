"""Compiled kernels on disk may be damaged, or have no place to be kept, and every fit works all the same."""

from pathlib import Path

import pytest

import torchdr_cne
from tests.distributed.harness import run_script

KERNELS = """
import sys, warnings
from torchdr_cne.kernel_cache import cached_njit

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")

    @cached_njit(nogil=True)
    def add(a, b):
        return a + b

    print(add(2, 3), sum(add.stats.cache_hits.values()), sum(add.stats.cache_misses.values()))
for warning in told:
    print(warning.message)
"""


RUN = """
import runpy, sys, warnings

warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
runpy.run_path(f"{sys.argv[1]}/kernels.py", run_name="__main__")
"""


@pytest.fixture
def run(tmp_path):
    """Run the module in a process of its own; return what it prints."""
    (tmp_path / "kernels.py").write_text(KERNELS)

    def start(**environment):
        return run_script(RUN, tmp_path, **{"NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment}).splitlines()

    return start


def damaged(content, how):
    if how == "empty":
        return b""
    if how == "cut":
        return content[: len(content) // 2]
    changed = bytearray(content)
    for position in range(40, len(changed), 97):
        changed[position] ^= 0xFF
    return bytes(changed)


@pytest.mark.parametrize("how", ["empty", "cut", "altered"])
def test_a_damaged_file_is_compiled_again_and_then_serves(how, run, tmp_path):
    assert run() == ["5 0 1"]
    assert run() == ["5 1 0"]
    for ending in ("nbi", "nbc"):
        (file,) = (tmp_path / "cache").rglob(f"*.{ending}")
        file.write_bytes(damaged(file.read_bytes(), how))
        assert run() == ["5 0 1"]
        assert run() == ["5 1 0"]


def test_without_a_place_to_write_kernels_are_compiled_with_one_warning(run):
    answer, warning = run(NUMBA_CACHE_DIR="/proc/nowhere", NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator")
    assert answer == "5 0 1"
    assert "set NUMBA_CACHE_DIR to a folder that you, and nobody else, can write to" in warning


def test_no_kernel_has_a_cache_but_the_one_that_recognises_damage():
    sources = Path(torchdr_cne.__file__).parent.rglob("*.py")
    assert not [path.name for path in sources if "cache=True" in path.read_text()]


def test_a_constant_of_another_file_is_never_an_old_one(run, tmp_path):
    """Numba itself looks at the file of the function only."""
    module, constants = tmp_path / "kernels.py", tmp_path / "constants.py"
    module.write_text(
        KERNELS.replace("import sys,", "from constants import SHIFT; import sys,").replace("a + b", "a + SHIFT")
    )
    for shift in (10, 20):
        constants.write_text(f"SHIFT = {shift}\n")
        assert run()[0].split()[0] == str(2 + shift)
    assert run() == ["22 1 0"]
