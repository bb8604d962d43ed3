"""Tables larger than memory: every kind reads the same rows, and no more of the file than they need."""

import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from tests.distributed.harness import run_script
from torchdr_cne.inputs import RowSource, open_rows
from torchdr_cne.inputs.sources import ArraySource, ConcatenatedSource

N, F = 1013, 7
NAMES = [f"c{i}" for i in range(F)]


def write_parquet(path, X, **options):
    pq.write_table(pa.table(dict(zip(NAMES, X.T, strict=True))), path, **options)


def write_zarr(path, X, chunks, **options):
    zarr.create_array(str(path), data=X, chunks=chunks, **options)


def write_shards(folder, X, write, ending, sizes=(0, 400, 1, 612)):
    """Write shards whose names sort differently as text and as numbers."""
    folder.mkdir()
    edges = np.cumsum(sizes)
    for i, (start, stop) in enumerate(zip(edges, [*edges[1:], N], strict=False)):
        write(folder / f"shard-{i + 8}.{ending}", X[start:stop])


def all_kinds(folder, X):
    """Return every kind of source of ``X``, cut at different rows."""
    folder.mkdir()
    np.save(folder / "c.npy", X)
    np.save(folder / "fortran.npy", np.asfortranarray(X))
    np.save(folder / "swapped.npy", X.astype(X.dtype.newbyteorder()))
    write_parquet(folder / "groups.parquet", X, row_group_size=97)
    write_parquet(folder / "one.parquet", X)
    write_zarr(folder / "v2.zarr", X, (53, 3), zarr_format=2)
    write_zarr(folder / "v3.zarr", X, (211, F), zarr_format=3)
    write_zarr(folder / "sharded.zarr", X, (20, 4), zarr_format=3, shards=(200, 8))
    group = zarr.open_group(str(folder / "group.zarr"), mode="w")
    group.create_array("rows", data=X, chunks=(100, 2))
    group.create_array("other", data=X[:3], chunks=(3, 2))
    write_shards(folder / "npy", X, np.save, "npy")
    write_shards(folder / "parquet", X, lambda path, part: write_parquet(path, part, row_group_size=50), "parquet")
    mixed = [folder / "npy" / "shard-8.npy", folder / "npy" / "shard-9.npy", folder / "npy" / "shard-10.npy"]
    return {
        "array": ArraySource(X),
        "array-strided": ArraySource(np.repeat(X, 2, axis=1)[:, ::2]),
        "memmap": ArraySource(np.load(folder / "c.npy", mmap_mode="r")),
        "npy": open_rows(folder / "c.npy"),
        "npy-fortran": open_rows(str(folder / "fortran.npy")),
        "npy-byte-order": open_rows(folder / "swapped.npy"),
        "npy-folder": open_rows(folder / "npy"),
        "npy-pattern": open_rows(f"{folder}/npy/shard-*.npy"),
        "npy-list": open_rows(mixed),
        "parquet": open_rows(folder / "groups.parquet"),
        "parquet-one-group": open_rows(folder / "one.parquet"),
        "parquet-folder": open_rows(folder / "parquet"),
        "zarr-2": open_rows(folder / "v2.zarr"),
        "zarr-3": open_rows(folder / "v3.zarr"),
        "zarr-sharded": open_rows(folder / "sharded.zarr"),
        "zarr-group": open_rows(folder / "group.zarr", array="rows"),
    }


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(N, F)).astype(np.float32)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, X):
    return all_kinds(tmp_path_factory.mktemp("sources") / "all", X)


def ranges():
    rng = np.random.default_rng(1)
    random = np.sort(rng.integers(0, N + 1, size=(60, 2)), axis=1).tolist()
    return [(0, N), (0, 0), (N, N), (N - 1, N), (399, 402), *random]


class TestReading:
    def test_every_kind_reads_the_same_rows_in_any_range(self, sources, X):
        for kind, source in sources.items():
            assert isinstance(source, RowSource)
            for start, stop in ranges():
                np.testing.assert_array_equal(source.read(start, stop), X[start:stop], err_msg=f"{kind} {start} {stop}")

    def test_short_ranges_in_order_are_right_whatever_was_kept(self, sources, X):
        for source in sources.values():
            pieces = [source.read(start, min(start + 10, N)) for start in range(0, N, 10)]
            np.testing.assert_array_equal(np.concatenate(pieces), X)

    def test_scattered_rows_are_taken_in_order(self, sources, X):
        rng = np.random.default_rng(2)
        for size in (0, 1, 5, 200):
            rows = np.sort(rng.integers(0, N, size=size))
            for kind, source in sources.items():
                np.testing.assert_array_equal(source.take(rows), X[rows], err_msg=kind)

    def test_what_is_read_is_fresh_contiguous_and_of_the_dtype_announced(self, sources, X):
        for source in sources.values():
            first = source.read(5, 300)
            assert (source.shape, len(source), source.dtype) == ((N, F), N, np.float32)
            assert first.dtype == source.dtype
            assert first.flags.c_contiguous
            assert first.flags.writeable
            first[:] = 7
            np.testing.assert_array_equal(source.read(5, 300), X[5:300])

    def test_columns_have_names_where_the_file_has_some(self, sources):
        for kind, source in sources.items():
            assert source.names == (NAMES if "parquet" in kind else None)

    @pytest.mark.parametrize("range_", [(-1, 3), (3, 2), (0, N + 1)])
    def test_rows_that_are_not_there_are_refused(self, sources, range_):
        with pytest.raises(IndexError, match=f"c.npy were asked for, and it has {N}"):
            sources["npy"].read(*range_)

    @pytest.mark.parametrize("rows", [[-1], [N], [3, 2]])
    def test_rows_are_taken_by_ascending_numbers_that_exist(self, sources, rows):
        with pytest.raises(IndexError, match="ascending numbers from 0 to"):
            sources["npy"].take(rows)

    def test_a_chunk_is_decoded_once_for_short_ranges_in_it(self, tmp_path, X, monkeypatch):
        write_parquet(tmp_path / "x.parquet", X, row_group_size=500)
        source, decoded = open_rows(tmp_path / "x.parquet"), []
        decode = type(source)._decode
        monkeypatch.setattr(
            type(source), "_decode", lambda self, *range_: decoded.append(range_) or decode(self, *range_)
        )
        for start in range(0, 1000, 10):
            source.read(start, start + 10)
        assert decoded == [(0, 500), (500, 1000)]

    def test_of_many_files_one_keeps_a_chunk(self, tmp_path, X):
        write_shards(tmp_path / "s", X, write_parquet, "parquet")
        source = open_rows(tmp_path / "s")
        source.take([3, 400, 600])
        assert [part._kept is None for part in source._parts] == [True, True, False, True]


class TestTypes:
    @pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64"])
    def test_numbers_keep_their_dtype(self, tmp_path, dtype):
        X = np.random.default_rng(0).integers(0, 2, size=(40, F)).astype(dtype)
        np.save(tmp_path / "x.npy", X)
        write_parquet(tmp_path / "x.parquet", X)
        write_zarr(tmp_path / "x.zarr", X, (7, 3))
        for name in ("x.npy", "x.parquet", "x.zarr"):
            source = open_rows(tmp_path / name)
            assert source.dtype == dtype
            np.testing.assert_array_equal(source.read(3, 39), X[3:39])

    def test_files_of_different_dtypes_are_read_in_the_one_that_holds_all(self, tmp_path):
        np.save(tmp_path / "a.npy", np.full((2, 2), 2**24 + 1, np.int32))
        np.save(tmp_path / "b.npy", np.full((2, 2), 0.5, np.float32))
        source = open_rows([tmp_path / "a.npy", tmp_path / "b.npy"])
        assert source.dtype == np.float64
        assert source.read(1, 3).tolist() == [[2**24 + 1] * 2, [0.5] * 2]

    def test_nulls_of_parquet_are_nan(self, tmp_path):
        columns = {"i": [1, None, 3], "b": [True, None, False], "f": [0.5, None, None]}
        pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=1)
        source = open_rows(tmp_path / "x.parquet")
        assert source.dtype == np.float64
        np.testing.assert_array_equal(source.read(0, 3), [[1, 1, 0.5], [np.nan] * 3, [3, 0, np.nan]])

    def test_text_columns_are_left_out_with_one_warning_for_all_files(self, tmp_path):
        for i in range(2):
            pq.write_table(pa.table({"t": ["a"], "x": [i], "u": ["b"]}), tmp_path / f"{i}.parquet")
        with pytest.warns(UserWarning, match="not numbers are left out: t, u$") as caught:
            source = open_rows(tmp_path)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert (source.names, source.read(0, 2).tolist()) == (["x"], [[0], [1]])

    def test_columns_are_chosen_in_the_order_given(self, tmp_path, X):
        write_parquet(tmp_path / "x.parquet", X, row_group_size=100)
        source = open_rows(tmp_path / "x.parquet", columns=["c5", "c1"])
        assert source.names == ["c5", "c1"]
        np.testing.assert_array_equal(source.read(0, N), X[:, [5, 1]])


MEASURE = """
import sys
from torchdr_cne.inputs import open_rows

def kilobytes(field):
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1])

small, large = sys.argv[1:]
open_rows(small).read(0, 100)  # imports the format's library
source = open_rows(large)
for ranges in ([(100_000, 101_000)], [(start, start + 12_500) for start in range(0, 200_000, 12_500)]):
    before = kilobytes("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # forgets the largest size so far
    for start, stop in ranges:
        source.read(start, stop)
    print((kilobytes("VmRSS") - before) / 1024, (kilobytes("VmHWM") - before) / 1024)
"""


@pytest.fixture(scope="module")
def large_files(tmp_path_factory):
    """A folder with a table of 51 MB, and its first rows, in every format."""
    folder = tmp_path_factory.mktemp("large")
    X = np.random.default_rng(0).random((200_000, 64), dtype=np.float32)
    for name, rows in (("small", 1000), ("large", len(X))):
        np.save(folder / f"{name}.npy", X[:rows])
        write_zarr(folder / f"{name}.zarr", X[:rows], (8192, 64))
        table = pa.table({str(i): X[:rows, i] for i in range(X.shape[1])})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=8192)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's size from /proc")
class TestMemory:
    @pytest.mark.parametrize("ending", [".npy", ".zarr", ".parquet"])
    def test_a_thousand_rows_cost_a_few_chunks_and_reading_all_in_ranges_leaves_nothing_behind(
        self, large_files, ending
    ):
        names = [str(large_files / f"{size}{ending}") for size in ("small", "large")]
        (in_the_end, at_most), (after_all, at_most_of_all) = (
            map(float, line.split()) for line in run_script(MEASURE, *names).splitlines()
        )
        assert in_the_end < 20
        assert at_most < 20
        assert after_all < 30
        assert at_most_of_all < 45


def bad_files(folder):
    X = np.ones((4, 3))
    np.save(folder / "x.npy", X)
    np.save(folder / "wide.npy", np.ones((4, 5)))
    np.save(folder / "row.npy", X[0])
    np.save(folder / "none.npy", X[:0])
    np.save(folder / "words.npy", np.array([["a", "b"]]))
    np.save(folder / "complex.npy", X + 1j)
    np.save(folder / "pickled.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:150])
    (folder / "blank.npy").write_bytes(b"")
    for name in ("junk.npy", "junk.parquet", "x.csv"):
        (folder / name).write_text("junk")
    pq.write_table(pa.table({"a": [1.0], "t": ["b"]}), folder / "x.parquet")
    pq.write_table(pa.table({"b": [1.0]}), folder / "other.parquet")
    pq.write_table(pa.table({"t": ["b"]}), folder / "text.parquet")
    pq.write_table(pa.table({"a": pa.array([], pa.float32())}), folder / "none.parquet")
    write_zarr(folder / "x.zarr", X, (2, 2))
    write_zarr(folder / "cube.zarr", np.ones((2, 2, 2)), (2, 2, 2))
    group = zarr.open_group(str(folder / "group.zarr"), mode="w")
    for name in ("a", "b"):
        group.create_array(name, data=X)
    zarr.open_group(str(folder / "hollow.zarr"), mode="w")
    (folder / "junk.zarr").mkdir()
    (folder / "junk.zarr" / "zarr.json").write_text("{")
    (folder / "empty").mkdir()
    (folder / "both").mkdir()
    np.save(folder / "both" / "x.npy", X)
    pq.write_table(pa.table({"a": [1.0]}), folder / "both" / "x.parquet")


BAD_PATHS = {
    "missing file": ("no.npy", {}, FileNotFoundError, "no.npy does not exist; give a file, a folder or a pattern"),
    "no match": ("no-*.npy", {}, FileNotFoundError, "no file matches .*no-"),
    "empty folder": ("empty", {}, FileNotFoundError, "empty holds no .npy or .parquet file"),
    "two kinds": ("both", {}, ValueError, "both holds .npy and .parquet files; choose with .*npy"),
    "unknown ending": ("x.csv", {}, ValueError, "x.csv has an unknown ending; .npy and .parquet files and .zarr"),
    "no rows": ("none.npy", {}, ValueError, "none.npy has no rows"),
    "no rows of parquet": ("none.parquet", {}, ValueError, "none.parquet has no rows"),
    "one-dimensional": ("row.npy", {}, ValueError, r"row.npy has shape \(3,\); rows and columns are needed"),
    "three-dimensional": ("cube.zarr", {}, ValueError, r"cube.zarr has shape \(2, 2, 2\); rows and columns"),
    "words": ("words.npy", {}, ValueError, "words.npy has dtype <U1; real numbers are needed"),
    "complex": ("complex.npy", {}, ValueError, "complex.npy has dtype complex128; real numbers are needed"),
    "only text": ("text.parquet", {}, ValueError, "text.parquet has no column of numbers"),
    "pickled": ("pickled.npy", {}, ValueError, "pickled.npy is damaged or .*pickled objects are never loaded"),
    "cut off": ("cut.npy", {}, ValueError, "cut.npy is damaged"),
    "blank": ("blank.npy", {}, ValueError, "blank.npy is damaged"),
    "junk npy": ("junk.npy", {}, ValueError, "junk.npy is damaged"),
    "junk parquet": ("junk.parquet", {}, ValueError, "junk.parquet cannot be read: "),
    "junk zarr": ("junk.zarr", {}, ValueError, "junk.zarr cannot be read: "),
    "several arrays": ("group.zarr", {}, ValueError, "group.zarr is a group with a, b; name one with array="),
    "no such array": ("group.zarr", {"array": "c"}, ValueError, "group with no array 'c' but a, b; name one"),
    "group of nothing": ("hollow.zarr", {}, ValueError, "hollow.zarr is a group with no array; name"),
    "array of an array": ("x.zarr", {"array": "a"}, ValueError, "x.zarr is an array and no group, so array='a'"),
    "array of an npy": ("x.npy", {"array": "a"}, ValueError, "array='a' names an array of a zarr group, and .*x.npy"),
    "columns of an npy": ("x.npy", {"columns": ["a"]}, ValueError, "columns= names columns of parquet files, and"),
    "no such column": ("x.parquet", {"columns": ["c"]}, ValueError, "no column 'c'; its columns are a, t"),
    "column of text": ("x.parquet", {"columns": ["t"]}, ValueError, "column 't' of type string; numbers are needed"),
}


class TestErrors:
    @pytest.fixture
    def folder(self, tmp_path):
        bad_files(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("case", BAD_PATHS)
    def test_a_path_that_cannot_be_read_is_one_sentence_that_names_it(self, folder, case):
        name, options, error, sentence = BAD_PATHS[case]
        with pytest.raises(error, match=sentence) as caught:
            open_rows(folder / name, **options)
        assert "\n" not in str(caught.value)
        assert str(folder / name) in str(caught.value)

    def test_files_of_different_widths_name_the_one_that_differs(self, folder):
        with pytest.raises(ValueError, match="wide.npy has 5 columns where .*x.npy has 3; every file needs the same"):
            open_rows([folder / "x.npy", folder / "wide.npy"])

    def test_files_of_different_columns_name_the_one_that_differs(self, folder):
        columns = [ArraySource(np.ones((2, 1)), name) for name in ("one", "two")]
        columns[1].names = ["a"]
        with pytest.raises(ValueError, match="two has the columns a where one has without names"):
            ConcatenatedSource(columns)
        with (
            pytest.warns(UserWarning, match="left out: t"),
            pytest.raises(ValueError, match="other.parquet has the columns b where .*x.parquet has a;"),
        ):
            open_rows([folder / "x.parquet", folder / "other.parquet"])

    def test_a_chunk_damaged_later_is_named_when_it_is_read(self, folder):
        np.save(folder / "later.npy", np.ones((1000, 3)))
        write_zarr(folder / "later.zarr", np.random.default_rng(0).random((10, 3)), (10, 3), zarr_format=2)
        write_parquet(folder / "later.parquet", np.random.default_rng(0).random((1000, F)))
        sources = [open_rows(folder / f"later{ending}") for ending in (".npy", ".zarr", ".parquet")]
        (folder / "later.npy").write_bytes((folder / "later.npy").read_bytes()[:500])
        (folder / "later.zarr" / "0.0").write_bytes(b"junk")
        (folder / "later.parquet").write_bytes(b"PAR1junkPAR1")
        for source in sources:
            with pytest.raises(ValueError, match=f"{source.origin} (is damaged|cannot be read)"):
                source.read(0, 10)

    def test_an_empty_list_names_nothing(self):
        with pytest.raises(ValueError, match="an empty list of files was given"):
            open_rows([])

    def test_a_missing_package_names_its_install_line(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "zarr", None)
        with pytest.raises(ImportError, match=r"pip install 'torchdr_cne\[tables\]'"):
            open_rows(folder / "x.zarr")
