"""Triton kernels without a GPU: they run in Triton's interpreter, and compile for the GPUs that people have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import repeated
from torchdr_cne import UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE
from torchdr_cne.forces import PairForces
from torchdr_cne.kernels import student

triton = pytest.importorskip("triton", reason="needs Triton, which torch brings on Linux")

from torchdr_cne.forces.triton import arithmetic, edge_kernels, grid_kernels, tile_kernels  # noqa: E402
from torchdr_cne.forces.triton.translation import NotTranslatable, device_function, translatable  # noqa: E402

HERE = Path(__file__).parent
LEARNED = {NCVis}


def test_the_kernels_are_right_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "triton_interpreter")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


# ---- what cannot become a kernel ----


def calls_another(d2, p, power):
    return abs(d2)


def reads_a_slice(d2, p, power):
    return d2 * p[0:1]


def branches(d2, p, power):
    return d2 if p[0] else -d2


def uses_a_table(d2, p, power):
    return d2 * HERE


SCALE = 2.0


def uses_a_constant(d2, p, power):
    """A constant of the module is a number like another."""
    half = 1 / 2
    return -half * SCALE / (1.0 + d2)


def plain(d2, p, power):
    return 1.0 / (1.0 + d2)


@pytest.mark.parametrize(
    "function", [calls_another, reads_a_slice, branches, uses_a_table, eval("lambda d2, p, power: d2")]
)
def test_what_is_no_plain_arithmetic_is_left_to_torch(function):
    assert not translatable(PairForces(attractive=plain, repulsive=function))
    with pytest.raises(NotTranslatable):
        device_function(function)


def test_constants_of_the_module_are_translated_by_value():
    translated = device_function(uses_a_constant)
    assert "2.0" in translated.src
    assert "SCALE" not in translated.src
    assert "divide" in translated.src
    assert uses_a_constant.__globals__["SCALE"] == 2.0
    assert "divide" not in uses_a_constant.__globals__


# ---- compiled for a GPU ----

_TYPES = {
    **dict.fromkeys(("shifts", "rows", "degrees", "columns"), "*i32"),
    **dict.fromkeys(("starts", "counts"), "*i64"),
    **dict.fromkeys(("n_slots", "n_own", "first", "n_blocks", "n_shifts", "first_slot"), "i32"),
    **dict.fromkeys(("n_x", "n_y", "n_w", "n_last"), "i32"),
    **dict.fromkeys(("repulsion", "attraction", "repulsion_of_met", "longest", "per_shift"), "fp32"),
    **dict.fromkeys(("step", "units", "margin", "fewest_steps", "narrow"), "fp32"),
    **dict.fromkeys(("scalars_of_grid", "offset", "at_zero"), "*fp64"),
}


def compiled(kernel, capability, n_warps, **constants):
    """Compile a kernel without a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    on_grid = kernel.__name__ in ("measure", "spread", "to_padded", "q_of_grid", "convolve", "collect")
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = "*fp64" if on_grid and name in ("scalars", "parameters") else _TYPES.get(name, "*fp32")
        signature[name] = "constexpr" if name in constants else kind
        if signature[name].startswith("*") or name in ("n_slots", "n_own"):
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": n_warps})
    return found


def resources(binary, tmp_path):
    """Return the registers, the bytes of stack and the number of instructions of a compiled kernel."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])

    def said_by(tool, option):
        return subprocess.run([tools / tool, option, path], capture_output=True, text=True, check=True).stdout

    usage = said_by("cuobjdump", "--dump-resource-usage")
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    instructions = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+[@!A-Z]", said_by("nvdisasm", "-c"), re.M)
    return registers, stack, len(instructions)


def tiles_of(method, d, n_columns=4, unrolled=4):
    forces = method()._pair_forces()
    return {
        "F": device_function(forces.repulsive),
        "F_SCALAR": device_function(forces.repulsive_scalar),
        "POWER": arithmetic.power,
        "D": d,
        "LEARNS": method in LEARNED,
        "GUARDS": False,
        "BLOCK": 64,
        "K": n_columns,
        "UNROLL": unrolled,
    }


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("method", "d", "most"), [(NegTSNE, 2, 18), (UMAP, 2, 22), (InfoTSNE, 2, 18), (NCVis, 2, 24), (NegTSNE, 3, 22)]
)
def test_tiles_take_few_instructions_a_pair_and_no_stack(method, d, most, capability, tmp_path):
    twice, four_times = (
        resources(compiled(tile_kernels.tile_forces, capability, 2, **tiles_of(method, d, unrolled=n)), tmp_path)
        for n in (2, 4)
    )
    registers, stack, instructions = four_times
    assert (stack, registers <= 96) == (0, True), f"{registers} registers"
    assert (instructions - twice[2]) / (2 * 4) <= most, "for each of 4 columns in two more copies of the loop's body"


def test_a_kernel_that_spills_is_noticed(tmp_path):
    binary = compiled(tile_kernels.tile_forces, 90, 1, **tiles_of(UMAP, 3, n_columns=32))
    registers, stack, _ = resources(binary, tmp_path)
    assert stack > 0 or registers > 96


@pytest.mark.parametrize("method", [NegTSNE, UMAP, NCVis, InfoTSNE, LargeVis])
def test_edges_take_few_instructions_and_no_stack(method, tmp_path):
    forces, names = method()._pair_forces(), ("attractive", "repulsive", "normaliser")
    functions = [device_function(getattr(forces, name)) for name in names]
    scalars = [device_function(forces.attractive_scalar), device_function(forces.repulsive_scalar)]
    is_normalised = forces.normaliser is not None
    constants = dict(zip(("F", "F_REPULSIVE", "Q", "F_SCALAR", "F_REPULSIVE_SCALAR"), functions + scalars, strict=True))
    constants |= {
        "POWER": arithmetic.power,
        "D": 2,
        "WIDTH": 4 if is_normalised else 2,
        "BLOCK": 64,
        "LANES": 32,
        "E": 4,
    }
    constants |= {"NORMALISED": is_normalised, "LEARNS": method in LEARNED, "EXCLUDES": False}
    constants |= {"WEIGHTED": method is UMAP, "ADDS": True, "SHORTENS": method is UMAP}
    binary = compiled(edge_kernels.edge_forces, 90, 1, **constants)
    registers, stack, instructions = resources(binary, tmp_path)
    assert (stack, registers <= 96) == (0, True), f"{registers} registers"
    assert instructions / 4 <= 80, "for the whole kernel, whose loop takes four edges"


@pytest.mark.parametrize("d", [2, *repeated(3)])
def test_the_kernels_of_the_grid_compile(d, tmp_path):
    sizes = {"D": d, "BLOCK": 128}
    q = {"Q": device_function(student, exact=True), "POWER": arithmetic.plain_power}
    binaries = [
        compiled(grid_kernels.measure, 90, 1, D=d),
        compiled(grid_kernels.spread, 90, 4, **sizes),
        compiled(grid_kernels.to_padded, 90, 4, **sizes),
        compiled(grid_kernels.q_of_grid, 90, 4, **sizes, **q),
        compiled(grid_kernels.convolve, 90, 4, **sizes),
        compiled(grid_kernels.collect, 90, 4, **sizes),
    ]
    assert all(resources(binary, tmp_path)[1] == 0 for binary in binaries)
