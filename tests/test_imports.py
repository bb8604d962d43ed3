"""What importing costs, and what a missing dependency says."""

import subprocess
import sys

import pytest


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_heavy():
    loaded = run("import sys, torchdr_cne; print(*sys.modules)").split()
    for heavy in ("torch", "sklearn", "scipy", "numba", "faiss", "pykeops", "matplotlib", "pandas"):
        assert heavy not in loaded


def test_an_estimator_imports_no_optional_or_slow_module():
    loaded = run("import sys, torchdr_cne; torchdr_cne.NegTSNE(); print(*sys.modules)").split()
    for heavy in ("numba", "faiss", "pykeops", "matplotlib", "polars", "torch._dynamo"):
        assert heavy not in loaded


def test_every_public_name_is_importable():
    import torchdr_cne

    assert set(torchdr_cne.__all__) <= set(dir(torchdr_cne))
    for name in torchdr_cne.__all__:
        assert getattr(torchdr_cne, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'PHATE'"):
        torchdr_cne.PHATE  # noqa: B018


@pytest.mark.parametrize(
    ("module", "code", "install"),
    [
        ("faiss", "from torchdr_cne.neighbors import kneighbors; kneighbors(X, 2, backend='faiss')", "faiss-cpu"),
        ("pykeops", "from torchdr_cne.neighbors import kneighbors; kneighbors(X, 2, backend='keops')", "pykeops"),
    ],
)
def test_a_missing_dependency_names_its_install_line_when_used(module, code, install):
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import numpy as np; X = np.eye(9)\n"
        "from torchdr_cne import NegTSNE\n"
        "NegTSNE(max_iter=2, random_state=0).fit(X)\n"
        f"try:\n    {code}\nexcept ImportError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert f"pip install {install}" in result.stdout


def test_without_numba_torch_sums_the_forces_with_one_warning():
    script = (
        "import sys, warnings; sys.modules['numba'] = None\n"
        "import numpy as np; X = np.random.default_rng(0).normal(size=(100, 5))\n"
        "from torchdr_cne import NegTSNE\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    z = NegTSNE(max_iter=20, random_state=0).fit_transform(X)\n"
        "print(len(seen), seen[0].message, np.isfinite(z).all(), z.std() > 1)\n"
    )
    output = run(script)
    assert output.startswith("1 numba cannot be imported")
    assert output.strip().endswith("True True")
