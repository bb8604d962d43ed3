"""The benchmarks' report, their records, and the timers around our stages."""

import json

import numpy as np
import pytest

from benchmarks import lines, record, report, scaling
from benchmarks.data import principal_components
from benchmarks.methods import METHODS, select
from benchmarks.operations import per_pair
from benchmarks.run import pending
from benchmarks.stages import StageClock

SETTINGS = {"data": "mnist", "n": None, "methods": ["NegTSNE", "umap-learn", "PaCMAP"], "rounds": 2, "threads": 2}
QUALITY = {"recall_15": 0.25, "recall_100": 0.5, "accuracy": 0.75, "trustworthiness": 0.875, "spearman": 0.125}


def a_run(method, number, seconds):
    memory = {"before": 100.0, "peak": 150.0, "added": 50.0}
    measured = {"n": 70000, "d": 50, "seconds": seconds, "stages": {}, "memory_mb": memory, "quality": QUALITY}
    return {"method": method, "round": number, "status": "ok", **measured}


@pytest.fixture
def results():
    made = record.new_record("comparison", SETTINGS, ["numpy"])
    made["runs"] = [a_run("NegTSNE", 0, 2.0), a_run("umap-learn", 0, 30.0), a_run("NegTSNE", 1, 4.0)]
    made["runs"].append({"method": "PaCMAP", "round": 0, "status": "missing", "error": "No module named 'pacmap'"})
    return made


def test_the_table_has_medians_ranges_ratios_and_what_did_not_run(results):
    text = report.table(results)
    assert "| **NegTSNE** | 3.00 (2.00–4.00) | 10.0 | 150 (50) | 0.250 | 0.500 | 0.750 | 0.875 | 0.125 |" in text
    assert "| umap-learn | 30.0 (30.0–30.0) | 1.00 |" in text
    assert "* PaCMAP: missing (No module named 'pacmap')" in text


def test_without_umap_learns_default_ratios_refer_to_its_pca_start(results):
    results["runs"][1]["method"] = "umap-learn pca"
    text = report.table(results)
    assert "| × umap-learn pca |" in text
    assert "| **NegTSNE** | 3.00 (2.00–4.00) | 10.0 |" in text


def test_the_table_names_disturbed_runs(results):
    assert "Other processes" not in report.table(results)
    results["runs"][0]["others_cpu_seconds"] = 1.0
    assert "Other processes used more than 10% of a core during 1 of the runs." in report.table(results)


def test_the_readme_keeps_all_but_the_text_between_the_markers(results, tmp_path):
    readme, path = tmp_path / "README.md", tmp_path / "mnist.json"
    readme.write_text(f"before\n{report.START}\nold\n{report.END}\nafter\n")
    record.save(results, path)
    report.main([str(path), "--figure", "--readme", str(readme)])
    text = readme.read_text()
    assert text.startswith(f"before\n{report.START}\n| method |")
    assert text.endswith(f"(mnist.png)\n{report.END}\nafter\n")
    assert "old" not in text
    assert (tmp_path / "mnist.png").read_bytes().startswith(b"\x89PNG")


def test_a_text_without_markers_is_refused():
    with pytest.raises(ValueError, match="needs one <!-- benchmark:start -->"):
        report.insert("no markers", "content")


def test_a_record_survives_writing_and_lacks_nothing(results, tmp_path):
    record.save(results, tmp_path / "a" / "mnist.json")
    assert record.read(tmp_path / "a" / "mnist.json", "comparison") == json.loads(json.dumps(results))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mnist.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.pop("machine"), "lacks machine"),
        (lambda made: made.update(kind="scaling"), "kind 'scaling'"),
        (lambda made: made["runs"][0].pop("quality"), "a run of NegTSNE in record lacks quality"),
    ],
)
def test_an_incomplete_record_is_refused(results, change, message):
    change(results)
    with pytest.raises(ValueError, match=message):
        record.check(results, "comparison")


def test_resuming_does_what_is_left_and_gives_up_what_failed(results):
    assert list(pending(results)) == [(1, "umap-learn")]


def test_rounds_are_interleaved():
    assert list(pending({"settings": {"methods": ["a", "b"], "rounds": 2}, "runs": []})) == [
        (0, "a"),
        (0, "b"),
        (1, "a"),
        (1, "b"),
    ]


def test_groups_of_methods_are_resolved_in_order():
    assert select("umap-learn, ours")[:2] == ["umap-learn", "NegTSNE"]
    assert select("all") == list(METHODS)
    with pytest.raises(ValueError, match="method 'tsne' is unknown"):
        select("tsne")


def test_the_exponent_of_a_power_law_is_found():
    sizes = [1000, 4000, 64000]
    assert scaling.exponent(sizes, [0.01 * n**1.1 for n in sizes]) == pytest.approx(1.1)


def test_blockwise_components_are_those_of_a_decomposition():
    X = np.random.default_rng(0).normal(size=(300, 60)).astype(np.float32) * np.linspace(1, 3, 60, dtype=np.float32)
    found = principal_components(len(X), lambda rows: X[rows])
    u, s, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u * s)[:, :50], atol=1e-3)


def test_arithmetic_is_counted_once_where_it_repeats():
    from torchdr_cne.forces import PairForces
    from torchdr_cne.methods import negtsne

    # Of 1/((1 + d²)(1 + ν(1 + d²))): 1 + d² once, two products, one sum, one division; 12 around it in a tile.
    assert per_pair(PairForces(negtsne.attractive, negtsne.repulsive)) == (14 + 4, 1)


def test_the_stages_of_a_fit_are_timed():
    from torchdr_cne import NegTSNE

    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    with StageClock(rows=np.arange(7)).watching() as clock:
        NegTSNE(max_iter=2, random_state=0).fit(X)
    assert set(clock.seconds) == {"neighbours", "graph", "initialisation", "loop"}
    assert all(seconds > 0 for seconds in clock.seconds.values())
    assert clock.neighbors_rk.shape == (7, 15)


def test_the_table_of_lines_in_the_docs_is_that_of_the_files():
    assert lines.table() in (lines.ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")


def test_methods_are_short_and_nearly_half_mathematics():
    counts = [lines.counted(path) for path in lines.files().values()]
    assert sum(mathematics for _, _, mathematics in counts) > 0.45 * sum(code for _, code, _ in counts)
    assert max(whole for whole, _, _ in counts) < 120
