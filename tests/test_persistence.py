"""What is saved comes back bit for bit, no file can run code, and what cannot be kept is said."""

import json
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

import torchdr_cne
from torchdr_cne import PACMAP, UMAP, InfoTSNE, LargeVis, NCVis, NegTSNE
from torchdr_cne.affinity import EntropicAffinity, UMAPAffinity, UnionAffinity
from torchdr_cne.neighbors import FaissConfig, KeptRows
from torchdr_cne.persistence import load, model_state, restore_model, save_model
from torchdr_cne.similarities import Cauchy, CosineExp, Similarity, StudentT
from torchdr_cne.storage import Checkpoints, DamagedError, FormatError, from_plain, read_folder, to_plain, write_folder
from torchdr_cne.storage.folders import MANIFEST, STATE, seal

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE, LargeVis, PACMAP]
X = load_digits().data[:300].astype(np.float32)


def fit(method=NegTSNE, data=X, **options):
    return method(**{"random_state": 0, "max_iter": 10, **options}).fit(data)


def round_trip(estimator, path, **options):
    save_model(estimator, path / "model")
    return load(path / "model", **options)


def assert_same(value, other):
    """Same type, same bits, all the way down."""
    assert type(value) is type(other)
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        assert (value.dtype, value.shape, value.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(value, torch.Tensor):
        assert value.dtype == other.dtype
        assert torch.equal(value, other)
    elif scipy.sparse.issparse(value):
        assert value.shape == other.shape
        for part in ("data", "indices", "indptr"):
            assert_same(getattr(value, part), getattr(other, part))
    elif isinstance(value, dict):
        assert list(value) == list(other)
        for key in value:
            assert_same(value[key], other[key])
    elif isinstance(value, (list, tuple, np.ndarray)):
        assert len(value) == len(other)
        for one, two in zip(value, other, strict=True):
            assert_same(one, two)
    elif isinstance(value, KeptRows):
        for part in ("values", "scale", "centre", "is_constant"):
            assert_same(getattr(value.rows, part), getattr(other.rows, part))
    elif isinstance(value, (torchdr_cne.affinity.Affinity, Similarity)):
        assert_same(vars(value), vars(other))
    else:
        assert repr(value) == repr(other)


def assert_same_estimator(estimator, other):
    assert type(other) is type(estimator)
    assert_same(estimator.get_params(deep=False), other.get_params(deep=False))
    assert_same(model_state(estimator)[1], model_state(other)[1])
    for name in model_state(estimator)[1]["fitted"]:
        assert_same(getattr(estimator, name), getattr(other, name))


# ---- models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_back_bit_for_bit_and_goes_on_working(method, tmp_path):
    estimator = fit(method)
    loaded = round_trip(estimator, tmp_path)
    assert_same_estimator(estimator, loaded)
    assert not hasattr(clone(loaded), "embedding_")
    np.testing.assert_array_equal(clone(loaded).fit(X).embedding_, estimator.embedding_)
    np.testing.assert_array_equal(loaded.fit(X, graph=loaded.graph_).embedding_, estimator.embedding_)


def test_all_that_fitting_gives_is_kept(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i} ☃" for i in range(X.shape[1])])
    loaded = round_trip(fit(NCVis, frame), tmp_path)
    results = ("embedding_", "graph_", "n_iter_", "learning_rate_", "history_", "log_z_", "n_connected_components_")
    for name in (*results, "n_features_in_"):
        assert hasattr(loaded, name)
    assert list(loaded.feature_names_in_) == list(frame.columns)
    loaded.fit(frame)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": torch.optim.Adam, "optimizer_kwargs": {"betas": (0.8, 0.99)}},
        {"scheduler": torch.optim.lr_scheduler.StepLR, "scheduler_kwargs": {"step_size": 5}},
        {"scheduler": None, "optimizer": "Adam", "optimizer_kwargs": None},
        {"affinity_in": UMAPAffinity(n_neighbors=20, backend=FaissConfig(recall=0.9))},
        {"affinity_in": EntropicAffinity(perplexity=9.5, metric="cosine")},
        {"similarity": StudentT(dof=0.7)},
        {"similarity": CosineExp(temperature=np.float32(0.1).item())},
        {"similarity": Cauchy(1.5, 0.9, floor=1e-5)},
        {"init": np.random.default_rng(0).normal(size=(300, 2))},
        {"init": np.asfortranarray(np.random.default_rng(0).normal(size=(300, 2)).astype(">f4"))},
        {"init": torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)},
        {"device": torch.device("cpu"), "dtype": "float64"},
        {"learning_rate": 0.1 + 0.2, "min_grad_norm": 5e-324},
        {"random_state": None},
    ],
    ids=lambda options: ",".join(options),
)
def test_parameters_of_every_kind_come_back_exactly(options, tmp_path):
    estimator = fit(max_iter=2, **options)
    loaded = round_trip(estimator, tmp_path)
    for name in options:
        given, found = getattr(estimator, name), getattr(loaded, name)
        if isinstance(given, np.ndarray):
            given = np.ascontiguousarray(given, given.dtype.newbyteorder("="))
        assert_same(given, found)
    loaded.fit(X)


def test_infinite_and_missing_numbers_and_numpy_scalars_are_exact():
    tensors = {}
    values = {"a": [np.inf, -np.inf, -0.0, 5e-324, 2**70, True, None], "b": ({"": "é\ud800"}, np.float32(0.1), [])}
    plain = json.loads(json.dumps(to_plain(values, "values", tensors), allow_nan=False))
    found = from_plain(plain, tensors)
    assert_same(found["a"], values["a"])
    assert_same(found["b"], ({"": "é\ud800"}, float(np.float32(0.1)), []))
    assert np.isnan(from_plain(to_plain(np.nan, "x", tensors), tensors))
    assert not tensors


def test_a_tensor_stays_a_tensor_and_an_array_an_array(tmp_path):
    loaded = round_trip(fit(data=torch.from_numpy(X)), tmp_path)
    assert isinstance(loaded.embedding_, torch.Tensor)
    assert isinstance(round_trip(fit(), tmp_path).embedding_, np.ndarray)


def test_one_array_in_two_places_is_saved_twice(tmp_path):
    start = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    estimator = fit(init=start)
    estimator.first_, estimator.view_ = start, start[10:]
    loaded = round_trip(estimator, tmp_path)
    np.testing.assert_array_equal(loaded.first_, loaded.init)
    np.testing.assert_array_equal(loaded.view_, start[10:])


class Mine(NegTSNE):
    strength: float = 2.0


class UnionAffinityOfMine(UnionAffinity):
    extra: int = 3


def test_classes_of_the_user_are_taken_from_classes_and_never_imported(tmp_path):
    estimator = fit(Mine, affinity_in=UnionAffinityOfMine(extra=4))
    save_model(estimator, tmp_path / "model")
    for given in ([], [Mine]):
        with pytest.raises(ValueError, match=r"is not one of torchdr_cne's; import it and pass classes=\["):
            load(tmp_path / "model", classes=given)
    assert_same_estimator(estimator, load(tmp_path / "model", classes=[Mine, UnionAffinityOfMine]))


def test_a_class_named_like_one_of_ours_is_not_taken_for_it(tmp_path):
    impostor = type("UMAP", (NegTSNE,), {"__module__": "elsewhere"})
    save_model(fit(impostor), tmp_path / "model")
    with pytest.raises(ValueError, match=r"class elsewhere.UMAP is not one of torchdr_cne's"):
        load(tmp_path / "model")
    assert type(load(tmp_path / "model", classes=[impostor])) is impostor


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.optim.optimizer.os", "load", "AffinityGraph"])
def test_a_file_cannot_name_anything_but_the_known_classes(name, tmp_path):
    save_model(fit(), tmp_path / "model")
    tensors, manifest = read_folder(tmp_path / "model")
    for forged in (manifest | {"class": name}, manifest | {"parameters": {"optimizer": {"type": name}}}):
        write_folder(tmp_path / "model", tensors, forged)
        with pytest.raises(ValueError, match=f"class {name} is not one of torchdr_cne's"):
            load(tmp_path / "model")


@pytest.mark.parametrize(
    "change",
    [
        {"fitted": {"graph_": {"csr": [3, 3], "data": 0}}},
        {"fitted": {"embedding_": {"array": "absent"}}},
        {"fitted": {"embedding_": {"unknown": 1}}},
        {"fitted": None},
        {"parameters": {"s": 1, "no_such": 2}},
        {"parameters": []},
        {"parameters": {"device": {"device": "toaster"}}},
        {"class": "AffinityMatcher"},
        {"class": 3},
        {"kind": "checkpoint"},
        {"fitted": {"x_": json.loads("[" * 600 + "]" * 600)}},
    ],
    ids=lambda change: str(change)[:50],
)
def test_a_forged_manifest_is_refused(change, tmp_path):
    save_model(fit(), tmp_path / "model")
    tensors, manifest = read_folder(tmp_path / "model")
    write_folder(tmp_path / "model", tensors, manifest | change)
    with pytest.raises(ValueError, match="not|saved parameters"):
        load(tmp_path / "model")


def test_column_ids_beyond_the_graph_are_refused(tmp_path):
    save_model(fit(), tmp_path / "model")
    tensors, manifest = read_folder(tmp_path / "model")
    tensors["graph_.indices"][5] = 10**6
    write_folder(tmp_path / "model", tensors, manifest)
    with pytest.raises(ValueError, match="indices must be < 300"):
        load(tmp_path / "model")


def test_callbacks_and_generators_are_left_out_with_a_warning(tmp_path):
    estimator = fit(callbacks=lambda *_: None, random_state=np.random.default_rng(0))
    with pytest.warns(UserWarning, match="callbacks and random_state of NegTSNE cannot be saved and will be None"):
        loaded = round_trip(estimator, tmp_path)
    assert loaded.callbacks is loaded.random_state is None


def test_what_cannot_be_saved_is_named():
    pandas = pytest.importorskip("pandas")
    for value, kind in (
        (pandas.DataFrame(X[:, :2]), "pandas.*DataFrame"),
        (lambda: 0, "builtins.function"),
        ({1: 2}, "builtins.dict"),
        (np.array([object()]), "numpy.ndarray"),
        (np.zeros(2, dtype=complex), "numpy.ndarray"),
        (np.zeros(2, dtype=np.longdouble), "numpy.ndarray"),
        (torch.eye(2).to_sparse(), "torch.Tensor"),
        (np.datetime64("2020-01-01"), "datetime.date"),
        (scipy.sparse.eye_array(3).tocoo(), "scipy.sparse.*coo_array"),
        (NegTSNE, "abc.ABCMeta"),
    ):
        with pytest.raises(ValueError, match=rf"init.0 is a {kind}, which cannot be saved; use plain numbers"):
            to_plain([value], "init", {})


def test_an_attribute_that_cannot_be_saved_is_named_and_nothing_is_written(tmp_path):
    estimator = fit()
    estimator.model_ = object()
    with pytest.raises(ValueError, match=r"model_ is a builtins.object, which cannot be saved"):
        save_model(estimator, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_unfitted_estimator_is_refused(tmp_path):
    with pytest.raises(NotFittedError, match="UMAP instance is not fitted yet"):
        save_model(UMAP(), tmp_path / "model")


def test_a_model_is_replaced_and_anything_else_is_left_alone(tmp_path):
    first, second = fit(random_state=1), fit(random_state=2)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "model", tmp_path / "empty"):
        save_model(first, path)
        save_model(second, path)
        np.testing.assert_array_equal(load(path).embedding_, second.embedding_)
        assert sorted(entry.name for entry in path.iterdir()) == [MANIFEST, STATE]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with Checkpoints(tmp_path / "run", {"config": {}, "data": {}}) as checkpoints:
        checkpoints.save(1, {}, {})
    for path in (tmp_path / "file", tmp_path / "model", tmp_path / "run", tmp_path / "run" / "step-1"):
        before = {entry: entry.stat().st_mtime_ns for entry in tmp_path.rglob("*")}
        with pytest.raises(FileExistsError, match="exists and is not just a saved model"):
            save_model(first, path)
        assert {entry: entry.stat().st_mtime_ns for entry in tmp_path.rglob("*")} == before


def test_a_fitted_state_replaces_that_of_another_estimator():
    frame = pytest.importorskip("pandas").DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    first, second = fit(data=X), fit(NCVis, frame, random_state=5)
    tensors, manifest = model_state(first)
    restore_model(second, tensors, json.loads(json.dumps(manifest)))
    np.testing.assert_array_equal(second.embedding_, first.embedding_)
    assert second.random_state == 5
    assert not hasattr(second, "log_z_")
    assert not hasattr(second, "feature_names_in_")


# ---- the format ---------------------------------------------------------------------------------------


def test_the_files_are_json_and_bare_numbers_and_nothing_else(tmp_path):
    estimator = fit()
    save_model(estimator, tmp_path / "model")
    assert sorted(entry.name for entry in tmp_path.rglob("*") if entry.is_file()) == [MANIFEST, STATE]
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    assert manifest["format"] == "torchdr_cne"
    assert manifest["library_version"] == torchdr_cne.__version__
    content = (tmp_path / "model" / STATE).read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert set(json.loads(content[8 : 8 + header])) == set(manifest["tensors"])
    n_bytes = sum(tensor.nbytes for tensor in read_folder(tmp_path / "model")[0].values())
    assert len(content) == 8 + header + n_bytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.int64, torch.uint16])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 4, 5)])
def test_tensors_of_every_dtype_and_shape_come_back(dtype, shape, tmp_path):
    tensor = torch.randint(0, 2, shape).to(dtype)
    tensors = {"plain": tensor, "again": tensor, "turned": tensor.T if tensor.ndim == 2 else tensor}
    write_folder(tmp_path / "state", tensors, {})
    found = read_folder(tmp_path / "state")[0]
    for name in tensors:
        assert_same(found[name], tensors[name])


def test_a_relative_path_and_a_link_are_written_where_they_lead(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(fit(random_state=1), "model")
    (tmp_path / "link").symlink_to("model")
    save_model(fit(random_state=2), "link")
    assert (tmp_path / "link").is_symlink()
    assert load("model").random_state == load("link/").random_state == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "model"]


def test_a_missing_parent_is_said(tmp_path):
    with pytest.raises(OSError, match=r"nowhere/model could not be written: No such file or directory"):
        save_model(fit(), tmp_path / "nowhere" / "model")
    with pytest.raises(FileNotFoundError, match="model does not exist"):
        load(tmp_path / "model")


def test_a_pickle_is_refused_wherever_it_lies(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    def torch_save(path):
        torch.save({"a": torch.ones(3)}, path)

    def plain_pickle(path):
        path.write_bytes(pickle.dumps(Evil()))

    for write in (torch_save, plain_pickle):
        write(tmp_path / "model")
        with pytest.raises(FormatError, match="model is a pickle or an archive of torch.save or NumPy"):
            load(tmp_path / "model")
        (tmp_path / "model").unlink()
        for name in (MANIFEST, STATE):
            path = tmp_path / f"{write.__name__}-{name}"
            write_folder(path, {"a": torch.ones(3)}, {})
            write(path / name)
            with pytest.raises(FormatError, match=f"{name}: {name} is a pickle or an archive"):
                read_folder(path)


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / MANIFEST).write_text('{"manifest_version": 3}')
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="text is a file; torchdr_cne writes folders"):
        load(tmp_path / "text")
    with pytest.raises(FormatError, match="extension is not of torchdr_cne"):
        load(tmp_path / "extension")
    with pytest.raises(DamagedError, match=r"empty is damaged or not of torchdr_cne: manifest.json is missing"):
        load(tmp_path / "empty")


def test_a_later_version_is_refused_with_the_reason(tmp_path):
    write_folder(tmp_path / "state", {}, {})
    manifest = json.loads((tmp_path / "state" / MANIFEST).read_text())
    manifest.pop("sha256")
    (tmp_path / "state" / MANIFEST).write_bytes(seal(manifest | {"format_version": 2, "library_version": "9.0"}))
    with pytest.raises(FormatError, match=r"version 2, written by torchdr_cne 9.0; this .* reads 1: upgrade"):
        read_folder(tmp_path / "state")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"sha256": NaN, "format": "torchdr_cne"}',
        b'{"format": "torchdr_cne", "n": 1e999}',
        b'{"format": "torchdr_cne", "n": ' + b"9" * 5000 + b"}",
        b'{"format": "torchdr_cne", "sha256": {}}',
    ],
    ids=lambda content: content[:20],
)
def test_any_bytes_for_a_manifest_are_an_error_and_no_crash(content, tmp_path):
    write_folder(tmp_path / "state", {"a": torch.ones(3)}, {})
    (tmp_path / "state" / MANIFEST).write_bytes(content)
    with pytest.raises(DamagedError, match="state is damaged"):
        read_folder(tmp_path / "state")


def test_a_state_that_lies_about_itself_is_refused_even_with_the_right_hash(tmp_path):
    import hashlib

    for content in (b"", b"\xff" * 8, (10**15).to_bytes(8, "little") + b"{}", b"\2\0\0\0\0\0\0\0{}", b"{" * 100):
        write_folder(tmp_path / "state", {"a": torch.ones(3)}, {})
        manifest = json.loads((tmp_path / "state" / MANIFEST).read_text())
        manifest.pop("sha256")
        manifest["files"] = {STATE: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
        (tmp_path / "state" / MANIFEST).write_bytes(seal(manifest))
        (tmp_path / "state" / STATE).write_bytes(content)
        with pytest.raises(DamagedError, match="no safetensors file|state.safetensors does not hold the tensors"):
            read_folder(tmp_path / "state")


# ---- checkpoints --------------------------------------------------------------------------------------

IDENTITY = {"config": {"max_iter": 300, "s": None}, "data": {"shape": [300, 64], "sha256": "ab"}}


def saved_steps(folder):
    return sorted(int(entry.name.removeprefix("step-")) for entry in folder.glob("step-*"))


def test_the_newest_checkpoint_comes_back_and_older_ones_go(tmp_path):
    embedding = fit().embedding_
    with Checkpoints(tmp_path / "a" / "run", IDENTITY, keep=2) as checkpoints:
        assert checkpoints.newest() is None
        for step in (50, 100, 150):
            assert checkpoints.save(step, {"embedding": torch.from_numpy(embedding + step)}, {"step": step})
    assert saved_steps(tmp_path / "a" / "run") == [100, 150]
    with Checkpoints(
        tmp_path / "a" / "run", {"config": {"s": None, "max_iter": 300}, "data": IDENTITY["data"]}
    ) as again:
        step, tensors, record = again.newest()
    assert (step, record) == (150, {"step": 150})
    np.testing.assert_array_equal(tensors["embedding"].numpy(), embedding + 150)


def test_checkpoints_of_an_abandoned_fit_never_outlive_those_of_the_present_one(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        for step in (100, 200, 20, 40):
            checkpoints.save(step, {}, {})
        assert saved_steps(tmp_path) == [20, 40]
        checkpoints.save(40, {}, {"again": True})
        assert checkpoints.newest() == (40, {}, {"again": True})


def test_another_configuration_is_refused_with_both_values(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, {}, {})
    other = {"config": {"max_iter": 400, "s": None, "nu": 1.0}, "data": {"shape": [9, 9], "sha256": "ab"}}
    with (
        Checkpoints(tmp_path, other) as checkpoints,
        pytest.raises(ValueError, match=r"other parameters: max_iter was 300 and is 400; nu was absent and is 1.0;"),
    ):
        checkpoints.newest()


def test_other_data_are_refused_with_what_differs(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, {}, {})
    other = {"config": IDENTITY["config"], "data": {"shape": [300, 64], "sha256": "cd" * 99}}
    with (
        Checkpoints(tmp_path, other) as checkpoints,
        pytest.raises(ValueError, match="other data: sha256 was 'ab' and is 'cdcd.*…; choose another folder"),
    ):
        checkpoints.newest()


def test_the_marker_of_a_preempted_fit_stays_until_another_checkpoint_or_the_end(tmp_path):
    marker = tmp_path / torchdr_cne.storage.PREEMPTED
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(7, {}, {}, last=True)
        checkpoints.mark_preempted(7)
    assert json.loads(marker.read_text())["step"] == 7
    assert json.loads(marker.read_text())["time"].endswith("+00:00")
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        assert checkpoints.newest()[0] == 7
        assert marker.exists()
        checkpoints.save(9, {}, {})
        assert not marker.exists()
        checkpoints.mark_preempted(9)
        checkpoints.clear_marker()
        assert not marker.exists()


def test_a_model_in_place_of_a_checkpoint_is_refused(tmp_path):
    save_model(fit(), tmp_path / "step-3")
    with (
        Checkpoints(tmp_path, IDENTITY) as checkpoints,
        pytest.raises(FormatError, match="not the checkpoint of step 3"),
    ):
        checkpoints.newest()


def test_a_checkpoint_that_is_kept_must_be_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep=0 must be at least 1"):
        Checkpoints(tmp_path, IDENTITY, keep=0)


def test_loading_is_silent(tmp_path):
    fitted = fit()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = round_trip(fitted, tmp_path)
    assert caught == []
    np.testing.assert_array_equal(loaded.embedding_, fitted.embedding_)


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_the_longest_name_that_a_folder_can_have_is_saved(tmp_path, name):
    fitted = NegTSNE(max_iter=2, n_neighbors=5).fit(np.random.default_rng(0).normal(size=(30, 3)))
    for _ in range(2):  # the second replaces the first
        fitted.save(tmp_path / name)
    np.testing.assert_array_equal(load(tmp_path / name).embedding_, fitted.embedding_)
