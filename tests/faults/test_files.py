"""Checkpoints meet damaged files, killed writers, full disks and second fits, and none of it goes unnoticed.

``TORCHDR_CNE_FAULTS`` sets the number of random byte changes, by default 200.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.distributed.harness import run_script
from tests.helpers import repeated
from torchdr_cne import NegTSNE
from torchdr_cne.persistence import load, model_state, save_model
from torchdr_cne.storage import Checkpoints, DamagedError, FormatError, read_folder
from torchdr_cne.storage.folders import MANIFEST, STATE, seal

N_FAULTS = int(os.environ.get("TORCHDR_CNE_FAULTS", 200))
IDENTITY = {"config": {"max_iter": 300}, "data": {"shape": [300, 64]}}
X = load_digits().data[:300].astype(np.float32)


@pytest.fixture(scope="module")
def states():
    """Tensors and record of two checkpoints of a real fit."""
    fits = [NegTSNE(random_state=0, max_iter=n).fit(X) for n in (50, 100)]
    return {fit.n_iter_: (model_state(fit)[0], {"history": fit.history_}) for fit in fits}


@pytest.fixture
def run(states, tmp_path):
    """A folder with the checkpoints of steps 50 and 100."""
    with Checkpoints(tmp_path / "run", IDENTITY) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, *state)
        yield checkpoints


def is_whole(found, states):
    step, tensors, record = found
    expected, expected_record = states[step]
    same = [
        torch.equal(tensors[name], expected[name]) and tensors[name].dtype == expected[name].dtype for name in expected
    ]
    return tensors.keys() == expected.keys() and all(same) and record == expected_record


def newest_after(run, file, content):
    """Return what is loaded and what was warned of while ``file`` has this content."""
    good = file.read_bytes()
    file.write_bytes(content)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = run.newest()
    file.write_bytes(good)
    return found, [str(warning.message) for warning in seen]


# ---- damaged files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [STATE, MANIFEST])
def test_a_cut_file_costs_one_checkpoint_and_is_told(name, run, states):
    file = run.folder / "step-100" / name
    content = file.read_bytes()
    lengths = np.unique([0, 1, 7, 8, 9, len(content) - 1, *np.linspace(0, len(content) - 1, 58, dtype=int)])
    for length in lengths.tolist():
        found, told = newest_after(run, file, content[:length])
        assert found[0] == 50, length
        assert is_whole(found, states)
        assert len(told) == 1
        assert told[0].startswith(f"checkpoint skipped: {run.folder}/step-100 is damaged: {name} ")
    found, told = newest_after(run, file, content + b"x")
    assert found[0] == 50
    assert len(told) == 1


def test_no_changed_byte_is_ever_loaded(run, states):
    rng = random.Random(0)
    contents = {name: (run.folder / "step-100" / name).read_bytes() for name in (STATE, MANIFEST)}
    for _ in range(N_FAULTS):
        name = rng.choice((STATE, MANIFEST))
        content = bytearray(contents[name])
        where = rng.choice((rng.randrange(len(content)), rng.randrange(256)))
        content[where] ^= rng.randrange(1, 256)
        found, told = newest_after(run, run.folder / "step-100" / name, bytes(content))
        assert is_whole(found, states), (name, where, content[where])
        if found[0] == 100:  # one kind of blank between two entries in place of another
            assert name == MANIFEST
            assert chr(contents[name][where]).isspace()
            assert chr(content[where]).isspace()
        else:
            assert len(told) == 1
            assert (
                f"step-100 is damaged: {name} " in told[0]
                or f"the SHA-256 of {name}" in told[0]
                or "SHA-256 in" in told[0]
            )


@pytest.mark.parametrize("name", [STATE, MANIFEST])
def test_a_missing_file_costs_one_checkpoint(name, run, states):
    (run.folder / "step-100" / name).unlink()
    with pytest.warns(UserWarning, match=f"step-100 is damaged or not of torchdr_cne: {name} is missing"):
        assert is_whole(run.newest(), states)


def test_files_of_two_checkpoints_do_not_mix(run, states):
    shutil.copy(run.folder / "step-50" / STATE, run.folder / "step-100" / STATE)
    with pytest.warns(UserWarning, match=r"step-100 is damaged: .*state.safetensors"):
        assert is_whole(run.newest(), states)


def test_only_damaged_checkpoints_are_an_error_and_no_fresh_start(run):
    for step in (50, 100):
        file = run.folder / f"step-{step}" / STATE
        file.write_bytes(file.read_bytes()[:-1])
    with (
        pytest.warns(UserWarning, match="checkpoint skipped"),
        pytest.raises(DamagedError, match="all checkpoints in .* are damaged; delete its folders step-… to start anew"),
    ):
        run.newest()


def test_a_damaged_checkpoint_is_replaced_by_the_next_one_saved(run, states):
    (run.folder / "step-100" / STATE).write_bytes(b"")
    run.save(75, *states[50])
    assert run.newest()[0] == 75
    assert sorted(entry.name for entry in run.folder.glob("step-*")) == ["step-50", "step-75"]


def test_a_pickle_and_a_later_version_are_refused_and_not_passed_over(run):
    manifest = json.loads((run.folder / "step-100" / MANIFEST).read_text())
    del manifest["sha256"]
    (run.folder / "step-100" / MANIFEST).write_bytes(seal(manifest | {"format_version": 7}))
    with pytest.raises(FormatError, match="step-100 has format version 7"):
        run.newest()
    torch.save({}, run.folder / "step-100" / MANIFEST)
    with pytest.raises(FormatError, match=r"step-100: manifest.json is a pickle or an archive"):
        run.newest()


def test_a_damaged_model_is_told(tmp_path):
    save_model(NegTSNE(random_state=0, max_iter=2).fit(X), tmp_path / "model")
    content = bytearray((tmp_path / "model" / STATE).read_bytes())
    content[-1] ^= 1
    (tmp_path / "model" / STATE).write_bytes(content)
    with pytest.raises(DamagedError, match=r"model is damaged: the SHA-256 of state.safetensors is not the one"):
        load(tmp_path / "model")


# ---- two fits, one folder -------------------------------------------------------------------------------

HOLDER = """
import sys, time
from torchdr_cne.storage import Checkpoints
with Checkpoints(sys.argv[1], {"config": {}, "data": {}}):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_a_second_fit_is_refused_and_a_killed_one_frees_the_folder(holder, tmp_path):
    second = Checkpoints(tmp_path, IDENTITY)
    with pytest.raises(RuntimeError, match=rf"is in use by another fit \(pid {holder.pid} on .*\); wait for it"):
        second.__enter__()
    killing = threading.Timer(0.5, holder.kill)
    killing.start()
    with second as checkpoints:
        assert checkpoints.newest() is None
    killing.join()


def test_a_second_fit_in_the_same_process_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torchdr_cne.storage.checkpoints._PATIENCE", 0.1)
    with Checkpoints(tmp_path, IDENTITY):
        with pytest.raises(RuntimeError, match=rf"in use by another fit \(pid {os.getpid()} "):
            Checkpoints(tmp_path, IDENTITY).__enter__()
    with Checkpoints(tmp_path, IDENTITY):
        pass


# ---- killed writers -------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time, warnings
from pathlib import Path
import torch
from torchdr_cne.storage import Checkpoints, read_folder, write_folder
warnings.simplefilter("error")
torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
folder, rounds, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)

def state(step):
    return {"a": torch.full((200_000,), step), "b": torch.full((3,), float(step))}

def whole(step, tensors, record):
    assert record["step"] == step
    assert all(bool((tensor == step).all()) for tensor in tensors.values()), step
    return step

class Steps:
    def read(self):
        with Checkpoints(folder / "run", {"config": {}, "data": {}}) as checkpoints:
            found = checkpoints.newest()
            assert not list((folder / "run").glob(".*"))
        return 0 if found is None else whole(*found)

    def writer(self):
        checkpoints = Checkpoints(folder / "run", {"config": {}, "data": {}}).__enter__()
        return lambda step: checkpoints.save(step, state(step), {"step": step})

class Model:
    def read(self):
        if not (folder / "model").exists() and not list(folder.glob(".model.*.old")):
            return 0
        tensors, manifest = read_folder(folder / "model")
        return whole(manifest["step"], tensors, manifest)

    def writer(self):
        return lambda step: write_folder(folder / "model", state(step), {"step": step})

def forked(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    return pid

def time_of_a_save(kind):
    begun = time.monotonic()
    assert os.waitpid(forked(lambda: kind.writer()(1)), 0)[1] == 0
    return time.monotonic() - begun

def at_random_moments(kind):
    longest, start = 4 * time_of_a_save(kind), kind.read()
    for _ in range(rounds):
        before = kind.read()
        reading, writing = os.pipe()
        def work():
            save = kind.writer()
            for step in range(before + 1, before + 1000):
                save(step)
                os.write(writing, b".")
        pid = forked(work)
        time.sleep(rng.uniform(0.002, longest))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        os.close(writing)
        acknowledged = before + len(os.read(reading, 1000))
        os.close(reading)
        assert kind.read() in (acknowledged, acknowledged + 1)
    assert kind.read() > start + rounds // 2

def before_every_operation(kind):
    operations = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}
    for last in range(1, 1000):
        before = kind.read()
        def work():
            seen = []
            def watch(event, arguments):
                if event in operations:
                    seen.append(event)
                    if len(seen) == last:
                        os._exit(9)
            save = kind.writer()
            sys.addaudithook(watch)
            save(before + 1)
        status = os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1])
        assert status in (0, 9), status
        assert kind.read() in (before, before + 1)
        if status == 0:
            return last

for kind in (Steps(), Model()):
    at_random_moments(kind)
    print(before_every_operation(kind))
"""


@pytest.mark.parametrize("n_rounds", [20, *repeated(60)])
def test_a_writer_killed_at_any_moment_leaves_something_whole(n_rounds, tmp_path):
    output = run_script(KILLED, tmp_path, n_rounds)
    assert all(int(n_operations) > 10 for n_operations in output.split())


# ---- a full disk ------------------------------------------------------------------------------------------

FULL = """
import json, resource, sys, warnings
import torch
from torchdr_cne.storage import Checkpoints
from torchdr_cne.storage.folders import STATE

def attempt(checkpoints, step, tensors, record, limit, last):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            result = checkpoints.save(step, tensors, record, last=last)
        except OSError as error:
            result = f"raised {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return result, [str(warning.message) for warning in seen]

state = {"embedding": torch.arange(20_000.0)}
with Checkpoints(sys.argv[1], {"config": {}, "data": {}}) as checkpoints:
    outcomes = [attempt(checkpoints, 1, state, {}, 0, False)]
    assert checkpoints.newest() is None
    checkpoints.save(10, state, {"step": 10})
    size = (checkpoints.folder / "step-10" / STATE).stat().st_size
    small, long = {"embedding": torch.zeros(2)}, {"history": list(range(5000))}
    for limit, tensors, record in [(n, state, {}) for n in (0, 1024, size // 2, size - 1)] + [(4096, small, long)]:
        for last in (False, True):
            outcomes.append(attempt(checkpoints, 20, tensors, record, limit, last))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                step, tensors_found, record_found = checkpoints.newest()
            assert (step, record_found) == (10, {"step": 10})
            assert torch.equal(tensors_found["embedding"], state["embedding"])
            assert sorted(entry.name for entry in checkpoints.folder.iterdir()) == ["lock", "step-10"]
    assert checkpoints.save(20, state, {"step": 20})
    assert checkpoints.newest()[0] == 20
print(json.dumps(outcomes))
"""


def test_a_full_disk_costs_a_warning_and_no_earlier_checkpoint(tmp_path):
    first, *outcomes = json.loads(run_script(FULL, tmp_path))
    assert first[0] is False
    assert "(step" not in first[1][0]
    assert "there is no earlier one" in first[1][0]
    assert len(outcomes) == 10
    for result, told in outcomes[::2]:
        assert result is False
        assert len(told) == 1
        assert told[0].startswith(f"the checkpoint of step 20 could not be written ({Path(tmp_path)}/step-20 could not")
        assert "File too large" in told[0]
        assert told[0].endswith("the fit goes on, the previous one (step 10) is intact.")
    for result, told in outcomes[1::2]:
        assert result.startswith(f"raised {tmp_path}/step-20 could not be written: ")
        assert not told


@pytest.mark.parametrize("swaps", [True, False], ids=["folders are swapped", "folders are renamed"])
def test_a_failing_write_leaves_the_model_that_was_there(swaps, tmp_path, monkeypatch):
    if not swaps:  # not all systems can
        monkeypatch.setattr("torchdr_cne.storage.replacing._exchange", lambda *_: False)
    first, second = (NegTSNE(random_state=seed, max_iter=2).fit(X) for seed in (1, 2))
    save_model(first, tmp_path / "model")
    for name in ("fsync", "rename"):
        for allowed in range(10):
            calls = iter(range(100))
            works = getattr(os, name)

            def fails(*arguments, calls=calls, allowed=allowed, works=works):
                if next(calls) == allowed:
                    raise OSError(28, "No space left on device")
                return works(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, fails)
                try:
                    save_model(second, tmp_path / "model")
                except OSError as error:
                    assert str(error) == f"{tmp_path}/model could not be written: No space left on device."  # noqa: PT017
                else:
                    break
            assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
            assert read_folder(tmp_path / "model")[1]["parameters"]["random_state"] in (1, 2)
        assert allowed >= (2 if name == "fsync" or not swaps else 0)
        assert load(tmp_path / "model").random_state == 2
        save_model(first, tmp_path / "model")
