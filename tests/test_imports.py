"""What importing costs, and what a missing dependency says."""

import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import repeated
from torchdr_cne.affinity import UMAPAffinity


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_imports_nothing_heavy_and_an_estimator_no_optional_or_slow_module():
    output = run("import sys, torchdr_cne; print(*sys.modules); torchdr_cne.NegTSNE(); print(*sys.modules)")
    by_package, loaded = (line.split() for line in output.splitlines())
    for heavy in ("torch", "sklearn", "scipy", "numba", "faiss", "pykeops", "matplotlib", "pandas"):
        assert heavy not in by_package
    for heavy in ("numba", "faiss", "pykeops", "matplotlib", "polars", "torch._dynamo"):
        assert heavy not in loaded


def test_every_public_name_is_importable():
    import torchdr_cne

    assert set(torchdr_cne.__all__) <= set(dir(torchdr_cne))
    for name in torchdr_cne.__all__:
        assert getattr(torchdr_cne, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'PHATE'"):
        torchdr_cne.PHATE  # noqa: B018


INSTALLED = ["faiss-cpu", "pykeops", "'torchdr_cne[images]'"]


def test_a_missing_dependency_names_its_install_line_when_used():
    script = (
        "import sys; sys.modules['faiss'] = sys.modules['pykeops'] = sys.modules['torchvision'] = None\n"
        "import numpy as np; X = np.eye(9)\n"
        "from torchdr_cne import NegTSNE, TSimCNE\n"
        "from torchdr_cne.neighbors import kneighbors\n"
        "NegTSNE(max_iter=2, random_state=0).fit(X)\n"
        "for backend in ('faiss', 'keops'):\n"
        "    try:\n        kneighbors(X, 2, backend=backend)\n"
        "    except ImportError as error:\n        print(error)\n"
        "try:\n    TSimCNE(total_epochs=1).fit(np.zeros((9, 8, 8), dtype=np.uint8))\n"
        "except ImportError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    for said, install in zip(result.stdout.splitlines(), INSTALLED, strict=True):
        assert f"pip install {install}" in said


@pytest.mark.parametrize("broken", [True, *repeated(False)], ids=["broken", "missing"])
def test_without_numba_all_is_computed_by_torch_and_faiss_with_one_warning(broken, tmp_path):
    """Affinities have the same numbers."""
    (tmp_path / "numba.py").write_text("raise SystemError('initialisation failed')")
    hide = f"sys.path.insert(0, {str(tmp_path)!r})" if broken else "sys.modules['numba'] = None"
    script = (
        f"import sys, warnings; {hide}\n"
        "import numpy as np; X = np.random.default_rng(0).normal(size=(5000, 5))\n"
        "from torchdr_cne import NegTSNE, UMAP\n"
        "from torchdr_cne.affinity import UMAPAffinity\n"
        "from torchdr_cne.neighbors import FaissConfig\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    NegTSNE(max_iter=3, random_state=0, backend=FaissConfig(n_lists=32)).fit(X)\n"
        "    z = UMAP(max_iter=20, random_state=0).fit_transform(X[:300])\n"
        f"np.save({str(tmp_path / 'graph.npy')!r}, UMAPAffinity()(X[:80]).to_scipy().toarray())\n"
        "print(len(seen), seen[0].message, np.isfinite(z).all(), z.std() > 0.5)\n"
    )
    output = run(script)
    assert output.startswith("1 numba cannot be imported")
    assert output.strip().endswith("True True")
    graph = UMAPAffinity()(np.random.default_rng(0).normal(size=(5000, 5))[:80])
    np.testing.assert_array_equal(np.load(tmp_path / "graph.npy"), graph.to_scipy().toarray())


def test_a_long_compilation_is_explained_on_stderr():
    script = (
        "import time; from torchdr_cne import _compiler\n"
        "_compiler._PATIENCE = 0.05\n"
        "import numba\n"
        "f = numba.njit(lambda x: x + 1)\n"
        "with _compiler.explained('kernels'): f(1), time.sleep(0.3)\n"
        "with _compiler.explained('nothing'): f(1), time.sleep(0.3)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines() == [
        "compiling kernels for this machine takes some seconds; the next fits like this need not wait"
    ]
