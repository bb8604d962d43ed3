"""Forged manifests, with the right hashes: each is the model that it describes, or one clear error.

``TORCHDR_CNE_FAULTS`` sets the number of random forgeries, by default 200.
"""

import copy
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import interrupt_at
from torchdr_cne import LearnedMap, NegTSNE, catalogue, persistence
from torchdr_cne.persistence import load
from torchdr_cne.storage import DamagedError, FormatError, folders, read_folder, write_folder
from torchdr_cne.storage.folders import MANIFEST, STATE, seal
from torchdr_cne.storage.replacing import LARGEST_MANIFEST, looks_like_ours

N_FORGERIES = int(os.environ.get("TORCHDR_CNE_FAULTS", 200))
SAVED = Path(__file__).parents[1] / "data" / "saved"
MODELS = sorted(path.name for path in SAVED.glob("model-*"))
DOCUMENTED = (DamagedError, FormatError, ValueError)


def manifest_of(folder):
    content = json.loads((folder / MANIFEST).read_text())
    del content["sha256"]
    return content


@pytest.fixture
def forged(tmp_path):
    """Return a copy of a saved model in which a function has changed the manifest; its hash is right."""

    def forged(name, change):
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SAVED / name, folder)
        content = manifest_of(folder)
        change(content)
        (folder / MANIFEST).write_bytes(seal(content))
        return folder

    return forged


# ---- random forgeries -----------------------------------------------------------------------------------

VALUES = [None, True, -1, 0, 1, 7, 10**30, 1e308, 0.5, "", "x", "\x1b[31m", [], [[]], {}, [0, -1], "embedding_"]
VALUES += [{"float": "nan"}, {"float": "x"}, {"tuple": [3, 3]}, {"dict": {}}, {"strings": ["a"]}, {"csr": [10**12, 3]}]
VALUES += [{"tensor": "embedding_"}, {"array": "embedding_"}, {"array": "nowhere"}, {"rows": {}}, {"network": {}}]
VALUES += [{"device": "nowhere"}, {"device": "meta"}, {"type": "torch.optim.Adam"}]
VALUES += [{"class": "NegTSNE", "parameters": {}}, {"class": "torch.optim.Adam", "parameters": {}}]
VALUES += [{"class": "os.system", "parameters": {"command": "ls"}}]
NAMES = ["__class__", "__dict__", "__init__", "fit", "transform", "save", "_plan", "embedding_", "graph_", "encoder_"]
NAMES += ["n_components", "x", "x_", "__x_", "", "a b_", "checkpoint_dir", "class", "parameters", "array", "network"]


METHODS = [catalogue.load(entry) for entry in catalogue.by_command().values()] + [LearnedMap]
LEFT_OUT = {"checkpoint_dir", "callbacks"}.union(*(method._former_parameters for method in METHODS))
"""Parameters that are not loaded: a path, functions, and those that earlier versions had."""


def places_in(node, above=()):
    """Yield the path of every value in a JSON value."""
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in parts:
        yield (*above, key)
        yield from places_in(value, (*above, key))


def at(node, place):
    for key in place:
        node = node[key]
    return node


def forge(content, rng):
    """Change one or two values, names or places of a manifest."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        roots = [key for key in ("parameters", "fitted", "class", "kind", "modules") if key in content]
        places = list(places_in({key: content[key] for key in roots}))
        place = rng.choice(places)
        parent, key = at(content, place[:-1]), place[-1]
        match rng.randrange(5):
            case 0:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
            case 1:
                del parent[key]
            case 2 if isinstance(parent, dict):
                parent[rng.choice(NAMES)] = parent.pop(key)
            case 3 if isinstance(parent, dict):
                parent[rng.choice(NAMES)] = copy.deepcopy(rng.choice(VALUES))
            case _:
                parent[key] = copy.deepcopy(at(content, rng.choice(places)))


def canonical(node, tensors):
    """Return a JSON value with shapes and values in place of the names of tensors."""
    match node:
        case {"array": str(key)} | {"tensor": str(key)} if len(node) == 1 and key in tensors:
            return [tuple(tensors[key].shape), tensors[key].double().numpy().tobytes()]
        case dict():
            return {key: canonical(value, tensors) for key, value in node.items()}
        case list():
            return [canonical(value, tensors) for value in node]
    return node


def is_as(found, described):
    """Return whether a saved value is as another one describes it; objects may have further, default parameters."""
    if isinstance(described, dict) and isinstance(found, dict):
        of_object = "class" in described
        parameters = described["parameters"] if of_object else described
        rest = found["parameters"] if of_object else found
        same = (found.get("class") == described.get("class")) if of_object else set(found) == set(described)
        return same and all(is_as(rest[key], value) for key, value in parameters.items() if key not in LEFT_OUT)
    if isinstance(described, list) and isinstance(found, list):
        return len(found) == len(described) and all(map(is_as, found, described))
    return found == described


def outcome_of(folder):
    """Return the model in a folder, or the error that loading it raises."""
    try:
        return load(folder), None
    except Exception as error:
        return None, error


def test_each_forgery_is_the_model_that_it_describes_or_one_clear_error(forged, tmp_path):
    rng, outcomes = random.Random(0), {"loaded": 0, "refused": 0}
    for _ in range(N_FORGERIES):
        name, seed = rng.choice(MODELS), rng.getrandbits(64)
        folder = forged(name, lambda content, seed=seed: forge(content, random.Random(seed)))
        loaded, error = outcome_of(folder)
        outcomes["refused" if error else "loaded"] += 1
        if error:
            assert isinstance(error, DOCUMENTED), (name, seed, error)
            assert len(str(error)) < 700, (name, seed)
            assert str(error).isprintable(), (name, seed)
            continue
        tensors, content = read_folder(folder)
        persistence.save_model(loaded, tmp_path / "again")
        same_tensors, same = read_folder(tmp_path / "again")
        found, described = canonical(same, same_tensors), canonical(content, tensors)
        assert found["fitted"] == described["fitted"], (name, seed)
        assert is_as(found, described), (name, seed)
    assert min(outcomes.values()) > N_FORGERIES // 20


# ---- single forgeries -----------------------------------------------------------------------------------


def put(root, name, value):
    def change(content):
        content[root][name] = value

    return change


def rename(old, new):
    def change(content):
        content["fitted"][new] = content["fitted"].pop(old)

    return change


def rows(part, value):
    def change(content):
        content["fitted"]["training_rows_"]["rows"][part] = value

    return change


@pytest.mark.parametrize("name", ["__class__", "__dict__", "fit", "transform", "_private_", "dunder__", "n_components"])
def test_only_names_of_fitted_attributes_are_set(forged, name):
    with pytest.raises(FormatError, match=f"'{name}' is no name of a fitted attribute of NegTSNE"):
        load(forged("model-negtsne", put("fitted", name, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("fitted", "embedding_", {"array": "training_rows_.values"}), "embedding_ has 24 columns, and n_comp"),
        (put("fitted", "embedding_", {"tensor": "training_rows_.centre"}), "embedding_ is not a finite table"),
        (put("fitted", "embedding_", [1, 2]), "embedding_ is not a finite table"),
        (rows("values", {"tensor": "embedding_"}), "training_rows_ is not a finite table with a centre and a positive"),
        (rows("scale", 0.0), "training_rows_ is not a finite table with a centre and a positive scale"),
        (rows("scale", {"float": "nan"}), "training_rows_ is not a finite table with a centre and a positive scale"),
        (rows("scale", -1.0), "training_rows_ is not a finite table with a centre and a positive scale"),
        (put("fitted", "n_features_in_", 5), r"training_rows_ has shape \(\d+, 24\), and \(\d+, 5\) is needed by"),
        (put("fitted", "n_iter_", -1), "n_iter_ is not a whole number >= 0"),
        (put("fitted", "history_", {"dict": {"loss": ["low"]}}), "history_ is not lists of numbers by name"),
        (put("fitted", "graph_", 5), "graph_ is not a sparse matrix of finite numbers"),
        (put("fitted", "embedding_", {"network": {}}), "there is no embedding_"),
        (put("parameters", "n_components", 10**9), "embedding_ has 2 columns, and n_components is 1000000000"),
        (rename("embedding_", "other_"), "there is no embedding_"),
    ],
)
def test_what_does_not_fit_the_other_results_is_refused(forged, change, message):
    with pytest.raises(FormatError, match=message):
        load(forged("model-negtsne", change))


def test_a_graph_of_absurd_size_is_refused(forged):
    def change(content):
        content["fitted"]["graph_"]["csr"] = [10**12, 10**12]

    with pytest.raises(FormatError, match="a sparse matrix is damaged"):
        load(forged("model-negtsne", change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("fitted", "encoder_", {"network": {"dict": {}}}), "the saved encoder has no weights"),
        (put("fitted", "classifier_", {"network": {"dict": {}}}), "the saved classifier has no weights"),
        (put("parameters", "encoder", {"tuple": [10**9, 10**9]}), "the saved encoder does not fit encoder="),
        (put("parameters", "encoder", None), "the saved encoder does not fit encoder=None"),
        (put("fitted", "encoder_", 5), "encoder_ is to be a network"),
    ],
)
def test_networks_have_the_layers_that_the_parameters_say_before_they_are_made(forged, change, message):
    with pytest.raises(ValueError, match=message):
        load(forged("model-encoder", change))


def test_no_path_is_loaded_or_saved(forged, tmp_path):
    folder = forged("model-negtsne", put("parameters", "checkpoint_dir", str(tmp_path / "elsewhere")))
    assert load(folder).checkpoint_dir is None
    fitted = NegTSNE(max_iter=2, checkpoint_dir=tmp_path / "run").fit(np.random.default_rng(0).normal(size=(60, 3)))
    fitted.save(tmp_path / "model")
    assert "checkpoint_dir" not in manifest_of(tmp_path / "model")["parameters"]
    assert load(tmp_path / "model").checkpoint_dir is None


def test_what_a_manifest_says_of_itself_cannot_steer_a_terminal(forged):
    def change(content):
        content |= {"format_version": 2, "library_version": "\x1b[2J\x1b[31m9\n"}

    with pytest.raises(FormatError, match=r"written by torchdr_cne \\x1b\[2J\\x1b\[31m9; this version") as error:
        load(forged("model-negtsne", change))
    assert str(error.value).isprintable()


# ---- sizes ----------------------------------------------------------------------------------------------

HUGE = 40 * 10**9


@pytest.fixture
def unread(monkeypatch):
    """Fail where a large file is read as a whole."""
    read = Path.read_bytes

    def read_bytes(path):
        assert path.stat().st_size < 10**9, f"{path} would be read"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def sparse(path, size, start=b""):
    path.write_bytes(start)
    os.truncate(path, size)


def test_a_file_of_tensors_that_is_too_large_is_not_read(forged, unread):
    folder = forged("model-negtsne", lambda content: None)
    sparse(folder / STATE, HUGE)
    with pytest.raises(DamagedError, match=rf"state.safetensors has {HUGE} bytes instead of \d+"):
        load(folder)
    folder = forged("model-negtsne", lambda content: content["files"][STATE].update(bytes=HUGE))
    sparse(folder / STATE, HUGE)
    with pytest.raises(DamagedError, match=r"state.safetensors (is no safetensors file|does not hold the tensors)"):
        load(folder)


def test_tensors_that_are_larger_than_memory_are_not_read(tmp_path, unread, monkeypatch):
    monkeypatch.setattr(folders, "available_memory", lambda: 10**9)
    write_folder(tmp_path / "model", {"a": torch.zeros(3)}, {"kind": "model"})
    content = manifest_of(tmp_path / "model")
    content["tensors"]["a"]["shape"] = [HUGE // 4]
    header = json.dumps({"a": {"dtype": "F32", "shape": [HUGE // 4], "data_offsets": [0, HUGE]}}).encode()
    start = len(header).to_bytes(8, "little") + header
    content["files"][STATE]["bytes"] = HUGE + len(start)
    (tmp_path / "model" / MANIFEST).write_bytes(seal(content))
    sparse(tmp_path / "model" / STATE, HUGE + len(start), start)
    with pytest.raises(MemoryError, match=r"model has 40\.0 GB, and 1\.0 GB of memory are free"):
        load(tmp_path / "model")


def test_a_manifest_that_is_too_large_is_not_read(forged, unread):
    folder = forged("model-negtsne", lambda content: None)
    sparse(folder / MANIFEST, HUGE, b"{")
    assert HUGE > LARGEST_MANIFEST
    with pytest.raises(FormatError, match=r"manifest.json has 40\.0 GB"):
        load(folder)
    assert not looks_like_ours(folder)
    with pytest.raises(FileExistsError, match="is not just a saved model"):
        NegTSNE(max_iter=2).fit(np.random.default_rng(0).normal(size=(60, 3))).save(folder)


# ---- checkpoints ----------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The checkpoints of a fit that failed after 20 of 40 iterations."""
    folder = tmp_path_factory.mktemp("run")
    failing = NegTSNE(**FIT, checkpoint_dir=folder, callbacks=[interrupt_at(25, ZeroDivisionError)])
    with pytest.raises(ZeroDivisionError):
        failing.fit(X)
    return folder


FIT = {"max_iter": 40, "random_state": 0, "checkpoint_every": 10}


def resumed(run, tmp_path, change, name="step-20"):
    """Fit on from a copy of the checkpoints, after a change of one's tensors and manifest."""
    shutil.copytree(run, tmp_path / "run")
    tensors, content = read_folder(tmp_path / "run" / name)
    change(tensors, content)
    shutil.rmtree(tmp_path / "run" / name)
    added = ("format", "format_version", "library_version", "files", "tensors")
    write_folder(tmp_path / "run" / name, tensors, {k: v for k, v in content.items() if k not in added})
    return NegTSNE(**FIT, checkpoint_dir=tmp_path / "run").fit(X)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, content: tensors.update(embedding=torch.zeros(299, 2)),
        lambda tensors, content: tensors.update(embedding=torch.zeros(300, 3)),
        lambda tensors, content: tensors.update(embedding=torch.full((300, 2), torch.nan)),
        lambda tensors, content: tensors.pop("embedding"),
        lambda tensors, content: tensors.update({"optimizer/embedding/momentum_buffer": torch.zeros(7)}),
        lambda tensors, content: content.update(record={}),
        lambda tensors, content: content.update(record=5),
        lambda tensors, content: content["record"].update(seed="x"),
        lambda tensors, content: content["record"].update(history={"loss": 5}),
        lambda tensors, content: content["record"].update(finished=None),
        lambda tensors, content: content.pop("identity"),
        lambda tensors, content: content.update(identity={"config": 5}),
        lambda tensors, content: content.update(step=None),
    ],
)
def test_a_forged_checkpoint_is_one_clear_error(run, tmp_path, change):
    with pytest.raises(FormatError, match="checkpoint of step 20"):
        resumed(run, tmp_path, change)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, content: tensors["indices"].fill_(10**9),
        lambda tensors, content: tensors["indices"].fill_(-1),
        lambda tensors, content: tensors["weights"].fill_(torch.nan),
        lambda tensors, content: tensors["indptr"].mul_(3),
        lambda tensors, content: tensors.update(indptr=tensors["indptr"].flip(0)),
        lambda tensors, content: tensors.update(indices=tensors["indices"].long()),
        lambda tensors, content: tensors.pop("weights"),
        lambda tensors, content: content.update(rows=[0, 10**12]),
        lambda tensors, content: content.update(rows=None),
        lambda tensors, content: tensors.update(indptr=tensors["indptr"][:1]) or content.update(rows=[0, 0]),
        lambda tensors, content: content.update(rows=[1, 301]),
        lambda tensors, content: content.pop("identity"),
    ],
)
def test_a_forged_graph_is_computed_again(run, tmp_path, change):
    with pytest.warns(UserWarning, match="the saved graph is not used: "):
        found = resumed(run, tmp_path, change, "graph-0-of-1")
    np.testing.assert_array_equal(found.embedding_, NegTSNE(**FIT).fit_transform(X))
