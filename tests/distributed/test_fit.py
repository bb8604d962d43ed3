"""A fit shared among ranks is the fit of one process."""

import json

import numpy as np
import pytest
import scipy.sparse
import torch

from benchmarks.distributed import bytes_per_step
from tests.distributed import cases, harness
from tests.distributed.harness import run_ranks
from tests.helpers import repeated
from torchdr_cne import UMAP, InfoTSNE, NegTSNE, TSNEkhorn, load
from torchdr_cne.distributed import DistributedConfig, Share
from torchdr_cne.evaluation import knn_accuracy, knn_recall
from torchdr_cne.inputs import open_rows

SIZES = (3, *repeated(2, 4))


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    """A weighted graph of the digits, with a row that has no edge."""
    path = tmp_path_factory.mktemp("graph") / "graph.npz"
    matrix = UMAP(max_iter=1, random_state=0).fit(cases.digits()).graph_.tolil()
    matrix[5] = 0
    matrix[:, 5] = 0
    scipy.sparse.save_npz(path, matrix.tocsr())
    return str(path)


@pytest.fixture(scope="module")
def alone():
    """What one process finds, computed once a case."""
    known = {}

    def case(name, *arguments):
        if name not in known:
            known[name] = getattr(cases, name)(*arguments)
        return known[name]

    return case


def found_by_ranks(size, folder, case, *arguments):
    return harness.found_by_ranks(size, folder, f"tests.distributed.cases:{case}", *arguments)


@pytest.mark.filterwarnings("ignore:1 rows of the input graph have no edge")
@pytest.mark.parametrize("size", SIZES)
def test_forces_have_the_same_bits_for_any_number_of_ranks(size, graph_file, tmp_path, alone):
    expected = alone("fast", graph_file)
    for found in found_by_ranks(size, tmp_path, "fast", graph_file):
        for case in expected:
            if "float64" in case:  # torch's own sums, in vectors that begin elsewhere
                np.testing.assert_allclose(found[case], expected[case], rtol=1e-9, err_msg=case)
            else:
                np.testing.assert_array_equal(found[case], expected[case], err_msg=case)


def test_ranks_that_exchange_copies_fit_as_one_process(tmp_path):
    for found in found_by_ranks(2, tmp_path, "staged"):
        for name, embedding in found.items():
            alone = cases.make(name, backend="torch", max_iter=10).fit(cases.digits()).embedding_
            np.testing.assert_array_equal(embedding, alone, err_msg=name)


@pytest.mark.filterwarnings("ignore:1 rows of the input graph have no edge")
def test_exact_methods_shared_among_ranks_are_those_of_one_process(graph_file, tmp_path, alone):
    expected = alone("exact", graph_file)
    for found in found_by_ranks(2, tmp_path, "exact", graph_file):
        assert found.keys() == expected.keys()
        for case, value in expected.items():
            if "dense" in case or "_" in case:  # torch's own sums, in another order
                np.testing.assert_allclose(found[case], value, rtol=1e-6, atol=1e-7, err_msg=case)
            else:
                np.testing.assert_array_equal(found[case], value, err_msg=case)


def test_an_affinity_of_all_pairs_is_rank_0_s_affair_and_it_says_so():
    outputs = [json.loads(output) for output in run_ranks(2, "tests.distributed.cases:own_dense_affinity")]
    expected = TSNEkhorn(max_iter=3, perplexity=10, random_state=0, check_interval=10).fit(cases.digits()[:150])
    for warned, embedding in outputs:
        assert warned == ["rank 0 does this fit alone: SymmetricEntropicAffinity needs all rows at once."]
        np.testing.assert_array_equal(np.array(embedding, dtype=np.float32), expected.embedding_)


@pytest.mark.filterwarnings("ignore:1 rows of the input graph have no edge")
@pytest.mark.parametrize("size", [3, *repeated(2)])
def test_summed_gradients_of_the_hooks_are_those_of_one_process(size, graph_file, tmp_path, alone):
    expected = alone("definition", graph_file)
    for found in found_by_ranks(size, tmp_path, "definition", graph_file):
        for name, gradient in expected.items():
            error = np.linalg.norm(found[name] - gradient) / np.linalg.norm(gradient)
            assert error < 1e-6, name


@pytest.mark.parametrize("size", SIZES)
def test_graphs_and_starts_from_each_rank_s_rows_are_those_of_all_rows(size, tmp_path, alone):
    """Edges known to both ends' ranks, and to one, come out alike; PCA is that of all rows."""
    expected, found = alone("from_data"), found_by_ranks(size, tmp_path, "from_data")
    for case, value in expected.items():
        if case.endswith("graph"):
            rows = np.sum([of_rank[case] for of_rank in found], axis=0)
            if case == "lists graph":  # other lists, and as good ones
                assert (rows > 0)[value > 0].mean() > 0.98
            else:
                np.testing.assert_array_equal(rows > 0, value > 0, err_msg=case)
                np.testing.assert_allclose(rows, value, atol=2e-6, err_msg=case)
            np.testing.assert_array_equal(rows, rows.T, err_msg=case)
            assert sum(bool(of_rank[case].any()) for of_rank in found) == size
        else:
            for of_rank in found:
                np.testing.assert_allclose(of_rank[case], value, atol=1e-4, err_msg=case)


def test_rows_in_files_are_embedded_as_those_in_memory_however_they_are_read(tmp_path, alone):
    pandas = pytest.importorskip("pandas", reason="pandas writes the parquet file")
    X = cases.digits()
    np.save(tmp_path / "rows.npy", X)
    pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)]).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "shards").mkdir()
    for number, rows in enumerate(np.array_split(X, 12)):
        np.save(tmp_path / "shards" / f"{number}.npy", rows)
    expected = cases.make("NegTSNE", max_iter=20, backend="torch").fit(X).embedding_
    for case, embedding in alone("from_files", str(tmp_path)).items():
        np.testing.assert_allclose(embedding, expected, atol=1e-3, err_msg=case)
    for found in found_by_ranks(2, tmp_path, "from_files", str(tmp_path)):
        for case, embedding in found.items():
            np.testing.assert_allclose(embedding, expected, atol=1e-3, err_msg=case)


@pytest.mark.parametrize("name", ["UMAP", *repeated("NegTSNE", "NCVis", "InfoTSNE")])
def test_streamed_rows_make_an_embedding_as_good_as_rows_in_memory(name, tmp_path):
    """20 000 points in lists, five chunks of them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 20, 20_000)
    X = (rng.normal(size=(20, 12)) * 1.5)[y].astype(np.float32) + rng.normal(size=(20_000, 12)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    budget = 3 * X.nbytes // 5
    quality = []
    for data in (X, open_rows(tmp_path / "X.npy")):
        estimator = cases.make(name, max_iter=100, memory_budget=budget).fit(data)
        scores = {"n_samples": 3000, "random_state": 0}
        recall = knn_recall(X, estimator.embedding_, n_neighbors=15, **scores)
        quality.append((recall, knn_accuracy(estimator.embedding_, y, n_neighbors=10, **scores)))
    np.testing.assert_allclose(quality[1], quality[0], atol=0.01)


def test_ranks_that_differ_all_say_in_what_before_any_work(tmp_path):
    outputs = run_ranks(3, "tests.distributed.discord_cases:disagreements", str(tmp_path))
    lines = [[json.loads(line) for line in output.splitlines()] for output in outputs]
    assert [[what for what, *_ in of_rank] for of_rank in lines] == [
        [
            *["rows", "columns", "values", "parameters", "start", "affinity", "callbacks", "labels", "method"],
            "nan in the last rank's rows",
        ]
    ] * 3
    by_case = {
        what: [(kind, text) for _, kind, text in of_all]
        for of_all in zip(*lines, strict=True)
        for what in [of_all[0][0]]
    }
    for what, word in {
        "rows": "shape (1797, 64)",
        "columns": "shape (1797, 64)",
        "values": "digest of some rows of X",
        "parameters": "n_neighbors=15",
        "start": "init=",
        "affinity": "affinity_in=",
        "callbacks": "callbacks given=True",
        "labels": "labels=None",
        "method": "start every rank with the same estimator",
    }.items():
        for kind, text in by_case[what]:
            assert kind == "ValueError"
            assert "the ranks differ in their input" in text
        assert word in by_case[what][0][1]
    kinds = [kind for kind, _ in by_case["nan in the last rank's rows"]]
    assert kinds == ["RankError", "RankError", "ValueError"]
    for _, text in by_case["nan in the last rank's rows"]:
        assert "first in row 1796" in text


def test_one_rank_s_wish_to_stop_stops_all_and_small_fits_are_rank_0_s(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", str(tmp_path))
    outputs = [json.loads(output) for output in run_ranks(3, "tests.distributed.discord_cases:stopping")]
    assert outputs == [[7, [7], 10, [1797, 1797], 3]] * 3
    expected = InfoTSNE(random_state=0, max_iter=10, check_interval=10).fit(cases.digits()).embedding_
    for rank in range(3):
        np.testing.assert_array_equal(np.load(tmp_path / f"alone-{rank}.npy"), expected)


def test_ranks_with_unequal_memory_decide_alike_what_they_stream(tmp_path):
    np.save(tmp_path / "rows.npy", cases.digits()[:900])
    outputs = run_ranks(2, "tests.distributed.discord_cases:uneven_memory", str(tmp_path))
    assert [json.loads(output) for output in outputs] == [[True, True]] * 2


def test_ranks_save_their_own_fits_and_one_of_them_a_shared_one(tmp_path):
    run_ranks(2, "tests.distributed.cases:own_fits", str(tmp_path))
    assert load(tmp_path / "model-0").embedding_.shape == (300, 2)
    assert load(tmp_path / "model-1").embedding_.shape == (301, 2)
    shared = load(tmp_path / "shared")
    assert shared.embedding_.shape == (1797, 2)
    assert shared.distributed == DistributedConfig(min_rows=0)
    shared.save(tmp_path / "again")


def test_every_rank_places_new_rows_if_rank_0_has_done_the_fit_alone_and_says_why_not_if_all_have():
    outputs = [json.loads(output) for output in run_ranks(2, "tests.distributed.cases:placing")]
    expected = NegTSNE(max_iter=3, random_state=0).fit(cases.digits()[:300]).transform(cases.digits()[300:310])
    for places, error in outputs:
        np.testing.assert_allclose(places, expected, rtol=1e-5)
        assert "were divided among ranks" in error


def test_a_rank_that_fails_is_missed_at_once_and_the_next_fit_is_none_the_worse():
    outputs = [json.loads(output) for output in run_ranks(2, "tests.distributed.discord_cases:recovery")]
    assert [error for error, _ in outputs] == ["RankError", "ZeroDivisionError"]
    assert [n_iter for _, n_iter in outputs] == [5, 5]


def test_no_rank_takes_a_fit_for_finished_that_another_was_told_to_leave(tmp_path):
    outputs = [json.loads(output) for output in run_ranks(2, "tests.distributed.discord_cases:leaving", str(tmp_path))]
    assert [n_iter for n_iter, _ in outputs] == [7, 7]
    assert "another rank was told to leave by SIGTERM; the fit is saved after 7 iterations" in outputs[0][1]
    assert "SIGTERM has ended the fit early, and a handler has kept the process" in outputs[1][1]


@pytest.mark.filterwarnings("ignore:1 rows of the input graph have no edge")
def test_a_fit_of_a_given_graph_goes_on_with_another_number_of_ranks(graph_file, tmp_path):
    expected = cases.given_graph(graph_file, str(tmp_path / "whole"), 0)["embedding"]
    folder = str(tmp_path / "pieces")
    found_by_ranks(3, tmp_path, "given_graph", graph_file, folder, 8)
    for found in found_by_ranks(2, tmp_path, "given_graph", graph_file, folder, 0):
        np.testing.assert_array_equal(found["embedding"], expected)


def test_a_graph_stays_with_the_ranks_serves_another_fit_and_can_be_gathered():
    outputs = [json.loads(output) for output in run_ranks(3, "tests.distributed.cases:sharded_graph")]
    expected = NegTSNE(max_iter=1, random_state=0, backend="torch").fit(cases.digits()).graph_
    assert sum(rows for rows, *_ in outputs) == 1797
    for rank, (_, same, message, gathered) in enumerate(outputs):
        assert same
        assert message.startswith("the ranks' rows are not those of one symmetric graph")
        assert gathered == ([expected.nnz, 1797] if rank == 0 else None)


@pytest.mark.parametrize("size", [3, *repeated(2, 4)])
def test_a_step_sends_the_bytes_of_the_formula(size):
    outputs = [json.loads(output) for output in run_ranks(size, "tests.distributed.cases:traffic")]
    for name in cases.METHODS:
        # The first steps begin with what is known already, and early exaggeration has checks of its own.
        by_step = np.sum([of_rank[name][3:] for of_rank in outputs], axis=0)
        assert (by_step == bytes_per_step(name, 1797, 2, size)).all(), name


def test_asking_for_several_processes_in_one_is_refused():
    with pytest.raises(
        ValueError, match=r"distributed=True needs several processes, and there is one; start .*torchrun"
    ):
        NegTSNE(distributed=True).fit(cases.digits())
    with pytest.raises(ValueError, match=r"distributed='always' is unknown; choose one of 'auto', True, False"):
        NegTSNE(distributed="always").fit(cases.digits())


@pytest.mark.parametrize(
    ("field", "value"), [("min_rows", -1), ("min_rows", 1.5), ("timeout", 0), ("timeout", "60"), ("timeout", np.inf)]
)
def test_a_configuration_names_what_cannot_be(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r} must be"):
        DistributedConfig(**{field: value})


@pytest.mark.parametrize("n", [1, 255, 256, 1797, 100_003])
def test_sums_do_not_depend_on_how_rows_are_split(n):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=n).astype(np.float32))
    total = float(Share.whole(n).total(values, "a sum"))
    assert total == pytest.approx(float(values.double().sum()), rel=1e-12, abs=1e-12)
