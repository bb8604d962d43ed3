"""Folders are replaced in one step, whoever else writes or reads, and nothing that is not ours is touched."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.distributed.harness import run_scripts
from tests.helpers import interrupt_at, repeated
from torchdr_cne import NegTSNE, load
from torchdr_cne.storage import read_folder, write_folder
from torchdr_cne.storage.folders import MANIFEST

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state(number):
    return {"a": torch.full((2000,), float(number))}


def test_neighbours_of_a_model_that_have_likely_names_are_left_alone(tmp_path):
    for name in ("m.tmp", "m.old", ".m.tmp", ".m.0123456789abcdef.tmp", ".m.0123456789abcdef.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    estimator = NegTSNE(random_state=0, max_iter=2).fit(X)
    for _ in range(2):
        estimator.save(tmp_path / "m")
    assert {name: text for name, text in contents(tmp_path).items() if not name.startswith("m/")} == before


def test_a_backup_is_not_taken_for_the_model_that_is_missing(tmp_path):
    estimator = NegTSNE(random_state=0, max_iter=2).fit(X)
    estimator.save(tmp_path / "m.old")
    before = contents(tmp_path)
    estimator.save(tmp_path / "m")
    assert {name: text for name, text in contents(tmp_path).items() if name.startswith("m.old/")} == before


def test_folders_of_another_program_among_the_checkpoints_stay(tmp_path):
    options = {"random_state": 0, "max_iter": 20, "checkpoint_dir": tmp_path, "checkpoint_every": 5}
    for name, file in (("step-1000", "model.bin"), ("step-final.tmp", "weights"), ("step-3", "notes")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("theirs")
    (tmp_path / "step-7").mkdir()
    (tmp_path / "step-7" / MANIFEST).write_text(json.dumps({"manifest_version": 3}))
    before = contents(tmp_path)
    with pytest.warns(UserWarning, match="interrupted after"):
        NegTSNE(**options, callbacks=interrupt_at(12)).fit(X)
    assert NegTSNE(**options).fit(X).n_iter_ == 20
    assert contents(tmp_path).items() >= before.items()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_modes_that_the_umask_allows(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        write_folder(tmp_path / "state", state(1), {})
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").iterdir()}
    assert modes == {mode}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o777 & ~mask


WRITER = """
import os, sys, time, torch
from pathlib import Path
from torchdr_cne.storage import replacing, write_folder
if sys.argv[2] == "renames":
    replacing._exchange = lambda *_: False
number, end = 1 + int(os.environ["NUMBER"]), time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    write_folder(Path(sys.argv[1]), {"a": torch.full((2000,), float(number))}, {"number": number})
    number += 2
"""


@pytest.mark.parametrize("how", ["swaps", "renames"])
@pytest.mark.parametrize("seconds", [2, *repeated(60)])
def test_two_writers_and_a_reader_of_one_path_never_see_half_of_it(how, seconds, tmp_path):
    path = tmp_path / "model"
    write_folder(path, state(0), {"number": 0})
    n_read, seen = 0, set()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(run_scripts, 2, WRITER, path, how, seconds)
        while not writing.done():
            tensors, manifest = read_folder(path)
            assert bool((tensors["a"] == manifest["number"]).all())
            if manifest["number"]:
                n_read += 1
                seen.add(manifest["number"] % 2)
        writing.result()
    assert n_read > 100
    assert seen == {0, 1}  # both were seen
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_an_estimator_saved_under_a_relative_path_and_through_a_link_is_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    estimator = NegTSNE(random_state=0, max_iter=2).fit(X)
    estimator.save("link/m")
    estimator.save("link/m")
    np.testing.assert_array_equal(load("real/m").embedding_, estimator.embedding_)
    assert [entry.name for entry in (tmp_path / "real").iterdir()] == ["m"]
