import argparse
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from sklearn.datasets import load_digits

import torchdr_cne
from torchdr_cne import catalogue
from torchdr_cne.cli import main
from torchdr_cne.cli.parameters import estimator_class, parameters_of
from torchdr_cne.evaluation import evaluate
from torchdr_cne.inputs import RowSource

METHODS = list(catalogue.by_command())
QUICK = ["--max_iter", "20", "--random_state", "0", "--n_jobs", "2"]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300].astype(np.float32), y[:300]


@pytest.fixture
def folder(tmp_path, monkeypatch, digits):
    """A working folder with the digits and their labels in every format."""
    monkeypatch.chdir(tmp_path)
    X, y = digits
    words = np.array("zero one two three four five six seven eight nine".split())[y]
    frame = pd.DataFrame(X, columns=[f"p{i}" for i in range(64)])
    np.save("data.npy", X)
    np.save("labels.npy", y)
    np.savez("data.npz", X=X, digit=y)
    frame.assign(digit=words).to_csv("data.csv", index=False)
    frame.assign(digit=words).to_parquet("data.parquet")
    pd.DataFrame({"digit": words}).to_csv("labels.csv", index=False)
    return tmp_path


@pytest.fixture
def fit(folder):
    """Run fit quickly and return the exit code."""
    return lambda *arguments: main(["fit", *arguments, *QUICK])


def python_embedding(X, **parameters):
    return torchdr_cne.NegTSNE(max_iter=20, random_state=0, n_jobs=2, **parameters).fit_transform(X)


def only_line(capsys):
    """The one line on stderr; nothing may be on stdout."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.rstrip("\n")


class TestFit:
    def test_writes_what_the_estimator_gives(self, fit, digits):
        assert fit("data.npy", "--output", "out.npy", "--n_neighbors", "12", "--nu", "0.1") == 0
        np.testing.assert_array_equal(np.load("out.npy"), python_embedding(digits[0], n_neighbors=12, nu=0.1))

    def test_summary_says_what_was_done_and_stdout_stays_empty(self, fit, capsys):
        fit("data.npy", "--output", "out.npy", "--plot", "out.png")
        line = only_line(capsys)
        assert line.startswith("negtsne: embedded 300 rows of 64 columns in ")
        assert line.endswith("20 iterations; wrote out.npy, out.png")

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_embeds(self, fit, method):
        assert fit("data.npy", "--method", method, "--output", "out.npy") == 0
        embedding = np.load("out.npy")
        assert embedding.shape == (300, 2)
        assert np.isfinite(embedding).all()

    @pytest.mark.parametrize("data", ["data.npz", "data.csv", "data.parquet"])
    def test_every_input_format_gives_the_same_embedding(self, fit, digits, data):
        labels = "--labels-key" if data == "data.npz" else "--labels-column"
        assert fit(data, labels, "digit", "--output", "out.npy") == 0
        np.testing.assert_allclose(np.load("out.npy"), python_embedding(digits[0]), atol=1e-4)

    def test_every_output_format_holds_the_same_embedding(self, fit):
        for ending in ("npy", "npz", "csv", "parquet"):
            fit("data.npy", "--output", f"out.{ending}")
        expected = np.load("out.npy")
        np.testing.assert_array_equal(np.load("out.npz")["embedding"], expected)
        for table in (pd.read_csv("out.csv", dtype=np.float32), pd.read_parquet("out.parquet")):
            assert list(table.columns) == ["negtsne0", "negtsne1"]
            np.testing.assert_array_equal(table.to_numpy(), expected)

    @pytest.mark.parametrize("labels", [["--labels", "labels.csv"], ["--labels-column", "digit"]])
    def test_labels_colour_the_plot(self, fit, monkeypatch, labels):
        drawn = []
        monkeypatch.setattr("torchdr_cne.cli.fit._write", lambda *arguments: drawn.append(arguments[2]))
        assert fit("data.csv", *labels, "--plot", "out.png") == 0
        assert drawn[0][:3].tolist() == ["zero", "one", "two"]

    def test_plot_is_a_picture(self, fit):
        assert fit("data.npy", "--labels", "labels.npy", "--plot", "out.png") == 0
        with open("out.png", "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"

    def test_saved_graph_gives_the_same_embedding_without_a_search(self, fit, monkeypatch):
        fit("data.npy", "--output", "searched.npy", "--save-graph", "graph.npz")
        monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", None)
        assert fit("data.npy", "--output", "given.npy", "--graph", "graph.npz") == 0
        np.testing.assert_array_equal(np.load("given.npy"), np.load("searched.npy"))

    def test_a_graph_alone_can_be_embedded(self, fit):
        fit("data.npy", "--save-graph", "graph.npz")
        assert fit("graph.npz", "--affinity_in", "precomputed", "--output", "out.npy") == 0
        assert np.load("out.npy").shape == (300, 2)

    def test_an_embedding_in_a_file_is_the_start(self, fit, digits):
        start = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
        np.save("start.npy", start)
        assert fit("data.npy", "--init", "start.npy", "--output", "out.npy") == 0
        np.testing.assert_array_equal(np.load("out.npy"), python_embedding(digits[0], init=start))

    def test_quiet_prints_nothing(self, fit, capfd):
        assert fit("data.parquet", "--output", "out.npy", "--quiet") == 0
        assert capfd.readouterr() == ("", "")

    def test_library_warning_is_one_line(self, fit, capsys):
        fit("data.npy", "--s", "0.5", "--output", "out.npy")
        warning, summary = capsys.readouterr().err.splitlines()
        assert warning.startswith("warning: s=0.5 has no effect for n=300")
        assert summary.startswith("negtsne: ")


class TestTables:
    """How the columns of a csv or parquet file are understood."""

    @pytest.fixture
    def columns_seen(self, folder, monkeypatch):
        from torchdr_cne.cli.reading import read_matrix

        return read_matrix

    def test_csv_without_a_header_keeps_its_first_row(self, columns_seen, digits):
        pd.DataFrame(digits[0]).to_csv("plain.csv", index=False, header=False)
        np.testing.assert_array_equal(columns_seen("plain.csv"), digits[0])

    def test_counted_column_names_of_pandas_are_no_row(self, columns_seen, digits):
        pd.DataFrame(digits[0]).to_csv("counted.csv", index=False)
        np.testing.assert_array_equal(columns_seen("counted.csv"), digits[0])

    def test_index_of_pandas_is_no_feature(self, columns_seen, digits):
        pd.DataFrame(digits[0]).to_csv("indexed.csv")
        with pytest.warns(UserWarning, match="left out as an index"):
            np.testing.assert_array_equal(columns_seen("indexed.csv"), digits[0])
        pd.DataFrame(digits[0]).add_prefix("p").set_index(np.arange(300) + 7).to_parquet("indexed.parquet")
        np.testing.assert_array_equal(columns_seen("indexed.parquet"), digits[0])

    @pytest.mark.parametrize("data", ["data.csv", "data.parquet"])
    def test_text_columns_are_left_out_with_a_warning(self, columns_seen, digits, data):
        with pytest.warns(UserWarning, match="not numbers are left out: digit"):
            np.testing.assert_array_equal(columns_seen(data), digits[0])

    @pytest.mark.parametrize("names", ['"a","b"', "a,b"])
    def test_row_names_of_r_are_no_feature(self, columns_seen, names):
        from torchdr_cne.cli.reading import read_labels

        Path("r.csv").write_text(f'{names}\n"1",0.5,1\n"two\nlines",2.5,3\n')
        with pytest.warns(UserWarning, match=r"the first column of r\.csv has no name: left out as an index"):
            np.testing.assert_array_equal(columns_seen("r.csv"), [[0.5, 1], [2.5, 3]])
        assert read_labels("r.csv", 2, column="b").tolist() == [1, 3]

    @pytest.mark.parametrize(
        ("text", "line", "found", "width"),
        [
            ("# made by hand\na,b\n1,2\n3,4\n", 2, 2, "1 names"),
            ("# by hand, twice\n1,2,3\n4,5,6\n", 2, 3, "2 names"),
            ("made by hand\n1,2\n3,4\n", 2, 2, "1 names"),
            ("a,b,c\n1,2,3\n4,5\n", 3, 2, "3 names"),
            ("a,b\n1,2\n3,4,5\n", 3, 3, "2 names"),
            ("1,2\n\n3,4\n5\n", 4, 1, "2 numbers"),
            ("1,2,3\n4,5\n", 2, 2, "3 numbers"),
            ("a,b\n1,2,\n3,4,\n", 2, 3, "2 names"),  # an empty cell at the end, and no row names
            ('a,b\n"1\n",2\n"x,y",4\n5\n', 5, 1, "2 names"),
        ],
    )
    def test_a_line_of_another_width_is_refused_with_its_number(self, fit, capsys, text, line, found, width):
        Path("uneven.csv").write_text(text)
        assert fit("uneven.csv", "--output", "out.npy") == 2
        assert f"line {line} of uneven.csv has {found} field(s), and the first line has {width}; " in only_line(capsys)

    def test_npy_is_mapped_not_read(self, columns_seen):
        assert isinstance(columns_seen("data.npy"), np.memmap)

    def test_labels_without_a_header_keep_their_first_one(self, folder):
        from torchdr_cne.cli.reading import read_labels

        for header in (True, False):
            pd.Series(["b", "a", "c"], name="x").to_csv("words.csv", index=False, header=header)
            assert read_labels("words.csv", 3).tolist() == ["b", "a", "c"]


class TestSources:
    """Data that are read by rows, as a `RowSource`."""

    @pytest.fixture
    def shards(self, folder, digits):
        """The digits in three pieces, of which the third sorts first as text."""
        for ending in ("npy", "parquet"):
            Path(ending).mkdir()
            for i, rows in zip((8, 9, 10), np.split(digits[0], [100, 250]), strict=True):
                if ending == "npy":
                    np.save(f"npy/shard-{i}", rows)
                else:
                    pd.DataFrame(rows).add_prefix("p").to_parquet(f"parquet/shard-{i}.parquet")
        zarr.create_array("array.zarr", data=digits[0], chunks=(77, 30))
        group = zarr.open_group("group.zarr", mode="w")
        for name in ("X", "raw"):
            group.create_array(name, data=digits[0], chunks=(77, 30))
        return folder

    @pytest.fixture
    def given(self, monkeypatch):
        """What the estimator was given; its embedding is the first two columns."""
        given = []

        def fit(estimator, X, graph=None):
            given.append(X)
            estimator.embedding_, estimator.n_iter_ = X.read(0, len(X))[:, :2], 1
            return estimator

        monkeypatch.setattr(torchdr_cne.NegTSNE, "fit", fit)
        return given

    @pytest.mark.parametrize(
        "data", [["npy"], ["parquet"], ["npy/shard-*.npy"], ["array.zarr"], ["group.zarr", "--key", "X"]]
    )
    def test_folders_and_patterns_reach_the_estimator_unread(self, shards, given, digits, capsys, data):
        assert main(["fit", *data, "--output", "out.npy"]) == 0
        assert isinstance(given[0], RowSource)
        np.testing.assert_array_equal(given[0].read(0, 300), digits[0])
        np.testing.assert_array_equal(np.load("out.npy"), digits[0][:, :2])
        assert only_line(capsys).startswith("negtsne: embedded 300 rows of 64 columns in ")

    def test_labels_of_a_folder_are_in_a_file(self, shards, given):
        assert main(["fit", "npy", "--labels", "labels.npy", "--plot", "out.png"]) == 0

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["no-*.npy"], "no file matches no-*.npy"),
            (["."], "holds .npy and .parquet files; choose with"),
            (["group.zarr"], "group.zarr is a group with X, raw; name one"),
            (["npy", "--key", "X"], "names an array of a zarr group, and npy/shard-8.npy is none"),
            (["parquet", "--labels-column", "digit"], "parquet is no single file to take labels from"),
            (["npy/*.npy", "--output", "npy/shard-9.npy"], "would overwrite a file that is read"),
            (["npy", "--output", "npy/out.npy"], "--output npy/out.npy would be one of the files that npy stands for"),
            (["npy", "--output", "npy/out.parquet"], "npy/out.parquet would be one of the files that npy stands for"),
            (["npy/*.npy", "--output", "npy/out.npy"], "npy/out.npy would be one of the files that npy/*.npy stands"),
            (["**/*.npy", "--output", "npy/out.npy"], "npy/out.npy would be one of the files that **/*.npy stands for"),
            (["array.zarr", "--output", "array.zarr/out.npy"], "out.npy would be one of the files that array.zarr st"),
        ],
    )
    def test_what_cannot_be_read_is_one_sentence(self, shards, capsys, arguments, sentence):
        assert main(["fit", "--output", "out.npy", *arguments]) == 2
        assert sentence in only_line(capsys)


class TestOptions:
    @pytest.mark.parametrize("method", METHODS)
    def test_source_and_class_agree_on_the_parameters(self, method):
        fields = dataclasses.fields(estimator_class(method))
        assert {name: option.default for name, option in parameters_of(method).items()} == {
            field.name: field.default for field in fields
        }

    @pytest.mark.parametrize("method", METHODS)
    def test_source_and_class_agree_on_types_and_descriptions(self, method):
        from_class = parameters_of(f"{estimator_class(method).__module__}:{estimator_class(method).__name__}")
        assert list(parameters_of(method).values()) == list(from_class.values())

    def test_every_parameter_is_described(self):
        assert [(m, p.name) for m in METHODS for p in parameters_of(m).values() if not p.help] == []

    def test_command_line_beats_the_configuration_wherever_it_stands(self, fit, digits):
        with open("run.yaml", "w") as file:
            file.write("data: data.npy\nn-neighbors: 5\nn_negatives: 3\noutput: out.npy\nquiet: true\n")
        assert main(["fit", "--n_neighbors", "12", "--config", "run.yaml", *QUICK]) == 0
        np.testing.assert_array_equal(np.load("out.npy"), python_embedding(digits[0], n_neighbors=12, n_negatives=3))

    def test_dashes_equal_signs_none_and_bare_truth_are_understood(self, folder, monkeypatch):
        seen = {}
        monkeypatch.setattr("torchdr_cne.cli.fit._fit", lambda method, values, parameters: seen.update(parameters))
        arguments = ["--n-neighbors=9", "--scheduler", "None", "--discard_neighbors", "--Z_bar", "-1e-3"]
        assert main(["fit", "data.npy", *arguments, "--optimizer_kwargs", "{eps: 1e-8}"]) == 0
        assert seen["n_neighbors"] == 9
        assert seen["scheduler"] is None
        assert seen["discard_neighbors"] is True
        assert seen["Z_bar"] == -0.001
        assert seen["optimizer_kwargs"] == {"eps": 1e-8}
        assert seen["learning_rate"] == "auto"

    def test_quiet_in_a_configuration_silences_warnings_too(self, fit, capfd):
        Path("run.yaml").write_text("data: data.npy\ns: 0.5\noutput: out.npy\nquiet: true\n")
        assert fit("--config", "run.yaml") == 0  # of which it would warn, as s has no effect
        assert capfd.readouterr() == ("", "")

    def test_a_bare_truth_leaves_a_file_after_it_alone(self, folder, monkeypatch):
        seen = []
        monkeypatch.setattr("torchdr_cne.cli.fit._fit", lambda method, values, parameters: seen.append(values))
        assert main(["fit", "--quiet", "--discard-neighbors", "data.npy", "--compile=FALSE"]) == 0
        assert (seen[0].data, seen[0].quiet, seen[0].discard_neighbors, seen[0].compile) == (
            "data.npy",
            True,
            True,
            False,
        )

    def test_help_of_a_method_shows_its_parameters(self, capsys):
        assert main(["fit", "--method", "umap", "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "a and b are fitted to it. (type: float, default: 0.1)" in text
        assert "--Z_bar" not in text

    @pytest.mark.parametrize("subcommand", ["fit", "evaluate", "demo"])
    def test_help_has_an_example(self, capsys, subcommand):
        assert main([subcommand, "--help"]) == 0
        assert f"example:\n  torchdr-cne {subcommand} " in capsys.readouterr().out

    def test_help_lists_subcommands_and_methods(self, capsys):
        assert main(["--help"]) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in ("evaluate", "demo", *METHODS))


OWN_METHODS = """
from __future__ import annotations

import typing as t

import torchdr_cne
from torchdr_cne.matching import NeighborEmbedding

class Sharper(torchdr_cne.NegTSNE, replaces=("s",)):
    \"\"\"Sharper clusters.

    Parameters
    ----------
    sharpness : float or None, default=0.1
        How much sharper.
    start, end : {"slow", "fast"}, default="slow"
        How it goes.
    \"\"\"

    sharpness: t.Optional[float] = 0.1
    start: t.Literal["slow", "fast"] = "slow"
    end: str = "slow"
    weights: list[float] | None = None
    n_neighbors: int = 12

class Clashing(torchdr_cne.NegTSNE):
    key: str = ""

class Unfinished(NeighborEmbedding):
    pass

class Neither:
    pass
"""


@pytest.fixture
def own_methods(folder, monkeypatch):
    """A module of the user's own, in the working folder."""
    Path("own_methods.py").write_text(OWN_METHODS)
    yield "own_methods"
    sys.modules.pop("own_methods", None)


class TestOwnMethods:
    """``--method module:Class``."""

    @pytest.mark.parametrize("home", ["own_methods", "./own_methods.py"])
    def test_embeds_with_options_of_its_own(self, own_methods, fit, digits, capsys, home):
        assert fit("data.npy", "--method", f"{home}:Sharper", "--sharpness", "0.2", "--output", "out.npy") == 0
        assert only_line(capsys).startswith("Sharper: embedded 300 rows")
        np.testing.assert_array_equal(np.load("out.npy"), python_embedding(digits[0], n_neighbors=12))

    def test_help_has_all_its_parameters_as_documented(self, own_methods, capsys):
        assert main(["fit", "--method", "own_methods:Sharper", "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "--sharpness VALUE How much sharper. (type: float | null, default: 0.1)" in text
        assert '--end VALUE One of {"slow", "fast"}. How it goes. (type: str, default: slow)' in text
        assert "--n_neighbors VALUE Number of neighbours" in text
        assert "default: 12" in text
        assert "--weights" not in text
        assert "--s VALUE" not in text

    def test_text_of_an_annotation_and_the_object_are_the_same(self, own_methods):
        as_text = parameters_of("own_methods:Sharper")
        assert (as_text["sharpness"].type, as_text["start"].type, as_text["weights"].type) == (
            "float | None",
            "str",
            "",
        )
        assert as_text["learning_rate"].type == "float | str"

    def test_a_registered_class_has_a_name(self, own_methods, fit, monkeypatch):
        for table in ("_registered", "_registered_classes"):
            monkeypatch.setattr(catalogue, table, {})
        catalogue.register(estimator_class("own_methods:Sharper"), command="sharper")
        assert fit("data.npy", "--method", "sharper", "--start", "fast", "--output", "out.npy") == 0

    def test_a_configuration_can_name_it(self, own_methods, fit):
        Path("run.yaml").write_text("data: data.npy\nmethod: own_methods:Sharper\nsharpness: null\noutput: out.npy\n")
        assert fit("--config", "run.yaml") == 0

    @pytest.mark.parametrize(
        ("method", "sentence"),
        [
            ("own_method:Sharper", "own_method cannot be imported: ModuleNotFoundError: No module named 'own_method'"),
            ("none.py:Sharper", "none.py cannot be imported: "),
            ("broken.py:Sharper", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
            ("own_methods:Sharpr", "own_methods has no class 'Sharpr'; did you mean Sharper?"),
            ("own_methods:Neither", "own_methods:Neither is no estimator; derive it from a class of"),
            ("own_methods:OWN", "has no class 'OWN'"),
            ("own_methods:t", "own_methods:t is no estimator"),
            ("own_methods:Unfinished", "abstract"),
            ("own_methods:Clashing", "has a parameter key, as fit has an option; give it another name"),
            (":", "cannot be imported"),
        ],
    )
    def test_what_cannot_be_used_is_one_sentence(self, own_methods, capsys, method, sentence):
        Path("broken.py").write_text("1 / 0")
        assert main(["fit", "data.npy", "--method", method, "--output", "out.npy"]) == 2
        assert sentence in only_line(capsys)

    def test_its_mistyped_option_is_told(self, own_methods, capsys):
        assert main(["fit", "data.npy", "--method", "own_methods:Sharper", "--sharpnes", "1"]) == 2
        assert "did you mean --sharpness?" in only_line(capsys)


def write_bad_files():
    X = np.load("data.npy")
    np.save("nan.npy", np.where(X == X[3, 5], np.nan, X))
    np.save("row.npy", X[0])
    np.save("words.npy", np.array([["a", "b"]]))
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez("two.npz", a=X, b=X)
    scipy.sparse.save_npz("sparse.npz", scipy.sparse.eye_array(300, format="csr"))
    np.save("short.npy", np.arange(299))
    with open("data.npy", "rb") as whole, open("cut.npy", "wb") as cut:
        cut.write(whole.read()[:5000])
    for name in ("junk.parquet", "junk.npz", "junk.npy", "data.txt"):
        with open(name, "w") as file:
            file.write("junk")
    with open("hole.csv", "w") as file:
        file.write("a,b\n1,2\n3,\n")
    with open("bad.yaml", "w") as file:
        file.write("max_itr: 5\n")
    with open("list.yaml", "w") as file:
        file.write("- 5\n")


TO = ["--output", "out.npy"]
BAD_USES = {
    "no subcommand": ([], "no subcommand given"),
    "unknown subcommand": (["fitt"], "did you mean fit?"),
    "no data": (["fit", *TO], "DATA is missing"),
    "too many files": (["fit", "data.npy", "more.npy", *TO], "'more.npy' is not expected"),
    "missing file": (["fit", "none.npy", *TO], "none.npy does not exist"),
    "unknown input ending": (["fit", "data.txt", *TO], "these are read: .npy, .npz, .csv, .parquet"),
    "nothing to write": (["fit", "data.npy"], "give --output, --plot or --save-graph a file"),
    "unknown output ending": (["fit", "data.npy", "--output", "o.tsv"], "these are written: .npy"),
    "missing folder": (["fit", "data.npy", "--output", "no/o.npy"], "the folder no does not exist"),
    "output is the data": (
        ["fit", "data.npy", "--output", "data.npy"],
        "would overwrite a file that is read",
    ),
    "unknown method": (["fit", "data.npy", "--method", "uamp", *TO], "did you mean umap?"),
    "unknown option": (["fit", "data.npy", "--max_itr", "5", *TO], "did you mean --max_iter?"),
    "option of another method": (
        ["fit", "data.npy", "--min_dist", "0", *TO],
        "no option of negtsne but of umap",
    ),
    "mistyped option of another": (
        ["fit", "data.npy", "--min_dits", "0", *TO],
        "--min_dist, an option of umap",
    ),
    "wrong type": (
        ["fit", "data.npy", "--max_iter", "many", *TO],
        "--max_iter got 'many' and needs an integer",
    ),
    "wrong type of several": (
        ["fit", "data.npy", "--nu", "x", *TO],
        "--nu got 'x' and needs a number or null",
    ),
    "no value": (["fit", "data.npy", "--max_iter", *TO], "--max_iter needs a value: an integer"),
    "unknown key in yaml": (["fit", "data.npy", "--config", "bad.yaml", *TO], "did you mean max_iter?"),
    "yaml is a list": (["fit", "data.npy", "--config", "list.yaml", *TO], "must hold lines like"),
    "value that cannot work": (["fit", "data.npy", "--metric", "l3", *TO], "metric='l3' is unknown"),
    "meta": (["fit", "data.npy", "--device", "meta", *TO], "device='meta' cannot be used: "),
    "long name": (
        ["fit", "data.npy", "--output", "x" * 252 + ".npy"],
        "… cannot be a file: File name too long; give a",
    ),
    "long input": (["fit", "x" * 252 + ".npy", *TO], "… cannot be a file: File name too long; give another name"),
    "a name of NUL": (["fit", "x\0.npy", *TO], "cannot be a file: embedded null byte"),
    "device": (["fit", "data.npy", "--device", "gpu", *TO], "device='gpu' is unknown; use 'auto', 'cpu' or 'cuda'"),
    "three dimensions drawn": (
        ["fit", "data.npy", "--n_components", "3", "--plot", "o.png"],
        "n_components=2",
    ),
    "labels of another length": (
        ["fit", "data.npy", "--labels", "short.npy", *TO],
        "299 labels for 300 rows",
    ),
    "no such column": (["fit", "data.csv", "--labels-column", "digt", *TO], "did you mean digit?"),
    "column of an npy": (["fit", "data.npy", "--labels-column", "digit", *TO], "and data.npy is none"),
    "two arrays": (["fit", "two.npz", *TO], "two.npz holds a, b; name one with --key"),
    "NaN": (["fit", "nan.npy", *TO], "X contains NaN or infinity"),
    "one-dimensional": (["fit", "row.npy", *TO], "row.npy has shape (64,)"),
    "strings": (["fit", "words.npy", *TO], "real numbers are needed"),
    "pickled": (["fit", "pickled.npy", *TO], "pickled objects are never loaded"),
    "sparse rows": (["fit", "sparse.npz", *TO], "add --affinity_in precomputed"),
    "cut off": (["fit", "cut.npy", *TO], "cut.npy cannot be read as .npy"),
    "junk npy": (["fit", "junk.npy", *TO], "junk.npy is no plain .npy file"),
    "junk npz": (["fit", "junk.npz", *TO], "junk.npz is damaged"),
    "junk parquet": (["fit", "junk.parquet", *TO], "junk.parquet cannot be read as .parquet"),
    "empty cell": (["fit", "hole.csv", *TO], "could not convert string '' to float64 at row 1, column 2"),
    "evaluate other rows": (["evaluate", "data.npy", "short.npy"], "rows and columns are needed"),
    "evaluate too few": (["evaluate", "data.npy", "data.npy", "--n_neighbors", "200"], "lower n_neighbors"),
    "demo size": (["demo", "--n", "3"], "--n 3 must be between 50 and"),
    "demo folder": (["demo", "--output", "no/demo"], "the folder no does not exist"),
}


class TestBadUse:
    @pytest.mark.parametrize("use", BAD_USES)
    def test_is_one_sentence_and_exit_code_2_and_leaves_no_file(self, folder, capsys, use):
        write_bad_files()
        before = sorted(folder.iterdir())
        arguments, sentence = BAD_USES[use]
        assert main(arguments) == 2
        line = only_line(capsys)
        assert line.startswith("error: ")
        assert sentence in line
        assert sorted(folder.iterdir()) == before

    def test_pickled_code_is_not_run(self, folder):
        import pickle

        class Trap:
            def __reduce__(self):
                return (open, ("trapped", "w"))

        with open("trap.npy", "wb") as file:
            pickle.dump(Trap(), file)
        assert main(["fit", "trap.npy", "--output", "out.npy"]) == 2
        assert not (folder / "trapped").exists()

    def test_missing_extra_names_its_install_line(self, folder, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        assert main(["fit", "data.parquet", "--output", "out.npy"]) == 2
        assert "pip install 'torchdr_cne[tables]'" in only_line(capsys)

    def test_divergence_is_exit_code_1_and_keeps_the_old_file(self, fit, folder, capsys):
        (folder / "out.npy").write_bytes(b"old")
        assert fit("data.npy", "--learning_rate", "1e30", "--output", "out.npy") == 1
        assert "lower learning_rate" in only_line(capsys)
        assert (folder / "out.npy").read_bytes() == b"old"

    def test_failed_write_keeps_the_old_file_and_no_part_of_the_new(self, fit, folder, capsys, monkeypatch):
        def full(file, *_):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        (folder / "out.npy").write_bytes(b"old")
        monkeypatch.setattr(np, "save", full)
        before = sorted(folder.iterdir())
        assert fit("data.npy", "--output", "out.npy") == 2
        assert only_line(capsys) == "error: cannot write out.npy: No space left on device"
        assert (folder / "out.npy").read_bytes() == b"old"
        assert sorted(folder.iterdir()) == before


class TestInterrupt:
    def test_in_the_loop_writes_what_there_is(self, fit, capsys, monkeypatch):
        steps = iter(range(5))

        def step(estimator):
            if next(steps, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(torchdr_cne.NegTSNE, "on_training_step_start", step)
        assert fit("data.npy", "--output", "out.npy") == 0
        warning, summary = capsys.readouterr().err.splitlines()
        assert warning.startswith("warning: interrupted after 5 iterations")
        assert "5 iterations; wrote out.npy" in summary
        assert np.isfinite(np.load("out.npy")).all()

    def test_before_the_loop_is_exit_code_130_without_a_file(self, fit, folder, capsys, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(torchdr_cne.NegTSNE, "on_affinity_computation_start", interrupt)
        assert fit("data.npy", "--output", "out.npy") == 130
        assert only_line(capsys) == "interrupted"
        assert not (folder / "out.npy").exists()


class TestEvaluate:
    def test_json_holds_the_metrics(self, folder, digits, capsys):
        X, y = digits
        np.save("embedding.npy", X[:, 20:22])
        assert main(["evaluate", "data.npy", "embedding.npy", "--labels", "labels.npy", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == evaluate(X, X[:, 20:22], y)

    def test_column_of_strings_is_the_classes_and_the_table_is_aligned(self, folder, digits, capsys):
        np.save("embedding.npy", digits[0][:, 20:22])
        scores = evaluate(digits[0], digits[0][:, 20:22], pd.read_csv("labels.csv")["digit"].to_numpy())
        assert main(["evaluate", "data.csv", "embedding.npy", "--labels-column", "digit"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {line.split()[0]: line.split()[1] for line in lines[1:]} == {
            name: f"{value:.4f}" for name, value in scores.items()
        }
        assert len({len(line) for line in lines}) == 1

    def test_undefined_score_is_null_in_json(self, folder, capsys):
        np.save("embedding.npy", np.zeros((300, 2)))
        assert main(["evaluate", "data.npy", "embedding.npy", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["distance_correlation"] is None


def test_the_longest_name_that_a_file_can_have_is_written(fit):
    for name in ("x" * 251 + ".npy", "ü" * 125 + ".npy"):
        assert fit("data.npy", "--output", name, "--quiet") == 0
        assert np.load(name).shape == (300, 2)
        Path(name).unlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
class TestStandardOutput:
    """What is printed and cannot be written."""

    @pytest.mark.parametrize("command", [["--version"], ["--help"], ["fit", "--help"], ["evaluate", *["data.npy"] * 2]])
    def test_a_full_disk_is_one_line(self, folder, command):
        done = output_of(command, "> /dev/full")
        line = "error: cannot write to the standard output: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, line)

    def test_a_reader_that_has_left_is_no_error(self, folder):
        done = output_of(["fit", "--help"], "| true; exit ${PIPESTATUS[0]}")
        assert (done.returncode, done.stderr) in [(141, ""), (0, "")]


def output_of(command, redirection):
    """Run a command in bash, with what follows it there."""
    line = " ".join([sys.executable, "-m", "torchdr_cne.cli", *command, redirection])
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


def test_demo_draws_and_judges_every_method(folder, capsys):
    assert main(["demo", "--n", "200", "--max_iter", "20", "--quiet", "--output", "pictures"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()] == [
        "method",
        "NegTSNE",
        "UMAP",
        "NCVis",
        "InfoTSNE",
        "TSNE",
    ]
    assert (folder / "pictures" / "table.txt").read_text().endswith(f", 200 rows\n{table}")
    assert (folder / "pictures" / "embeddings.png").read_bytes().startswith(b"\x89PNG")


def set_launch(monkeypatch, rank):
    """Set the variables that torchrun sets for one of two processes."""
    variables = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29400}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


class TestWorker:
    """A process that torchrun has started."""

    @pytest.fixture
    def as_rank(self, monkeypatch):
        def become(rank):
            set_launch(monkeypatch, rank)

        return become

    def test_rank_0_writes_and_reports(self, fit, as_rank, capsys):
        as_rank(0)
        assert fit("data.npy", "--output", "out.npy", "--distributed", "false") == 0
        assert only_line(capsys).endswith("wrote out.npy")

    def test_other_ranks_write_and_say_nothing(self, fit, folder, as_rank, capsys):
        as_rank(1)
        before = sorted(folder.iterdir())
        arguments = ["--output", "out.npy", "--plot", "out.png", "--save-graph", "graph.npz", "--distributed", "false"]
        assert fit("data.npy", "--s", "0.5", *arguments) == 0  # of which rank 0 warns
        assert capsys.readouterr() == ("", "")
        assert sorted(folder.iterdir()) == before

    def test_errors_of_other_ranks_say_whose_they_are(self, fit, as_rank, capsys):
        as_rank(1)
        assert fit("none.npy", "--output", "out.npy") == 2
        assert only_line(capsys) == "error (rank 1): none.npy does not exist; give a file"

    def test_the_failure_of_another_rank_is_exit_code_1_and_one_sentence(self, fit, capsys, monkeypatch):
        from torchdr_cne.distributed import RankError

        def fail(*_):
            raise RankError("rank 1 failed in the search")

        monkeypatch.setattr(torchdr_cne.NegTSNE, "on_affinity_computation_start", fail)
        assert fit("data.npy", "--output", "out.npy") == 1
        assert only_line(capsys) == "error: rank 1 failed in the search"


class TestLaunch:
    """``fit --nproc-per-node``: the same command in several processes."""

    @pytest.fixture
    def launched(self, folder, monkeypatch):
        """What torchrun is asked to do; nothing is started."""
        asked = []
        monkeypatch.setattr("torch.distributed.run.run", asked.append)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        return asked

    @pytest.mark.parametrize("option", [["--nproc-per-node", "3"], ["--nproc_per_node=3"]])
    def test_runs_the_same_command_in_each_process(self, launched, option):
        arguments = ["fit", "data.npy", "--s", "1", *option, "--output", "out.npy"]
        assert main([*arguments, "--max-restarts", "2"]) == 0
        (asked,) = launched
        assert isinstance(asked, argparse.Namespace)
        assert (asked.nproc_per_node, asked.max_restarts, asked.standalone, asked.nnodes) == ("3", 2, True, "1")
        assert (asked.module, asked.training_script) == (True, "torchdr_cne.cli")
        assert asked.training_script_args == [*arguments, "--max-restarts", "2", "--nproc-per-node=null"]

    def test_the_workers_launch_no_others_though_the_configuration_says_so(self, launched, monkeypatch):
        Path("run.yaml").write_text("data: data.npy\nnproc_per_node: 2\noutput: out.npy\n")
        assert main(["fit", "--config", "run.yaml"]) == 0
        set_launch(monkeypatch, 0)
        assert main([*launched[0].training_script_args, *QUICK, "--distributed", "false"]) == 0
        assert Path("out.npy").exists()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["data.npy", "--output", "no/out.npy"], "the folder no does not exist"),
            (["none.npy", "--output", "out.npy"], "none.npy does not exist"),
            (["none-*.npy", "--output", "out.npy"], "no file matches none-*.npy"),
            (["data.npy", "--labels", "none.npy", "--output", "out.npy"], "none.npy does not exist"),
            (["data.npy", "--output", "out.npy", "--nproc-per-node", "0"], "--nproc-per-node 0 must be at least 1"),
            (["data.npy", "--save-graph", "graph.npz"], "--save-graph needs one process, since each of 2 keeps"),
            (["data.npy", "--output", "out.npy", "--max-restarts=-1"], "--max-restarts -1 must be at least 0"),
        ],
    )
    def test_what_can_be_checked_is_before_any_process_starts(self, launched, capsys, arguments, sentence):
        assert main(["fit", "--nproc-per-node", "2", *arguments]) == 2
        assert sentence in only_line(capsys)
        assert launched == []

    def test_is_refused_where_torchrun_has_started_the_process(self, launched, capsys, monkeypatch):
        set_launch(monkeypatch, 1)
        assert main(["fit", "data.npy", "--output", "out.npy", "--nproc-per-node", "2"]) == 2
        assert "torchrun has started this one; leave it out" in only_line(capsys)

    def test_two_processes_write_and_report_once(self, folder):
        command = [sys.executable, "-m", "torchdr_cne.cli", "fit", "data.npy", "--output", "out.npy", *QUICK]
        done = subprocess.run([*command, "--nproc-per-node", "2"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert done.stderr.startswith("negtsne: embedded 300 rows")
        assert done.stderr.count("\n") == 1
        assert np.load("out.npy").shape == (300, 2)

    def test_an_error_of_the_workers_is_the_exit_code_without_a_traceback(self, folder):
        command = [sys.executable, "-m", "torchdr_cne.cli", "fit", "data.npy", "--output", "out.npy", *QUICK]
        done = subprocess.run([*command, "--nproc-per-node", "2", "--metric", "l3"], capture_output=True, text=True)
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert lines
        assert all(line.startswith("error") and "metric='l3' is unknown" in line for line in lines)

    @pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
    @pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
    def test_signals_reach_the_workers_and_none_is_left(self, folder, sent, code):
        command = [sys.executable, "-m", "torchdr_cne.cli", "fit", "data.npy", "--output", "out.npy", "--quiet"]
        launcher = subprocess.Popen([*command, "--max_iter", "100000000", "--nproc-per-node", "2"])
        deadline = time.monotonic() + 60
        while len(workers := children(launcher.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        launcher.send_signal(signal.Signals[sent])
        assert launcher.wait(timeout=60) == code
        assert len(workers) == 2
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def children(pid):
    """Return the processes that ``pid`` has started."""
    return [int(n) for thread in Path(f"/proc/{pid}/task").iterdir() for n in (thread / "children").read_text().split()]


class TestProcess:
    """What only a process of its own can show."""

    def test_version_and_bad_options_do_not_import_torch_or_numpy(self, folder):
        script = (
            "import sys; from torchdr_cne.cli import main; "
            "codes = [main(['--version']), main(['fit', 'data.npy', '--max_itr', '3'])]; "
            "print(codes, {'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == f"torchdr-cne {torchdr_cne.__version__}\n[0, 2] set()\n"

    def test_piped_fit_shows_the_summary_and_no_progress_bar(self, folder):
        command = [sys.executable, "-m", "torchdr_cne.cli", "fit", "data.npy", "--output", "out.npy", *QUICK]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith("negtsne: embedded 300 rows")
        assert done.stderr.count("\n") == 1

    def test_exit_code_reaches_the_shell(self, folder):
        done = subprocess.run([sys.executable, "-m", "torchdr_cne.cli", "fit"], capture_output=True, text=True)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
