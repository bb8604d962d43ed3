"""Ranks that die, hang or are asked to leave: nothing is lost, and nobody waits in vain."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.harness import ROOT, codes_of_ranks, environment, run_ranks
from tests.helpers import repeated

WORKER = Path(__file__).with_name("worker.py")
MAX_ITER, EVERY = 60, 10
PATIENCE = 90.0


class Job:
    """The worker under torchrun, two ranks on this machine unless told otherwise."""

    def __init__(self, folder, *, ranks=2, restarts=0, **options):
        self.folder = folder
        self.log = folder / "log.txt"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        arguments = [str(WORKER), json.dumps({"folder": str(folder), "max_iter": MAX_ITER, "every": EVERY, **options})]
        launched = [*launcher, f"--max-restarts={restarts}"] if ranks > 1 else []
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *launched, *arguments],
                env=environment(),
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [self.process.pid, *self.workers()]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def wait(self, seconds=PATIENCE):
        """Return the exit code."""
        return self.process.wait(timeout=seconds)

    def wait_for(self, pattern, seconds=PATIENCE):
        """Wait until the log has a line."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text()):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text()}"
            assert self.process.poll() is None or re.search(pattern, self.text()), self.text()
            time.sleep(0.02)

    def text(self):
        return self.log.read_text()

    def workers(self):
        """Return the processes that run this job's worker, whoever is their parent."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if (
                str(WORKER) in command
                and "torch.distributed.run" not in command
                and str(self.folder) in " ".join(command)
            ):
                found.append(int(entry.name))
        return [process for process in found if process != self.process.pid]

    def checkpoints(self):
        return sorted(int(path.name.removeprefix("step-")) for path in (self.folder / "checkpoints").glob("step-*"))


def finished(folder, **options):
    """Run a job to its end; return it."""
    with Job(folder, **options) as job:
        assert job.wait() == 0, job.text()
        return job


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What two ranks find that are left in peace: the embedding and the history."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_ranks(2, "tests.faults.worker:main", str(folder), "none", -1, 1, MAX_ITER, EVERY)
    return fit_in(folder)


def fit_in(folder):
    """Return the embedding and the history that a job has left in a folder."""
    return np.load(folder / "embedding.npy"), json.loads((folder / "history.json").read_text())


def assert_same_fit(folder, uninterrupted):
    embedding, history = fit_in(folder)
    np.testing.assert_array_equal(embedding, uninterrupted[0])
    assert history == uninterrupted[1]


@pytest.mark.parametrize(
    ("start", "at"), [("forks", 35), *repeated(("processes", 35), ("processes", 0), ("processes", MAX_ITER - 1))]
)
def test_a_killed_rank_is_replaced_and_at_most_one_interval_is_lost(start, at, tmp_path, uninterrupted):
    if start == "forks":  # five processes that need not import anything
        options = {"max_iter": MAX_ITER, "every": EVERY, "fault": "kill", "at": at}
        (text,) = run_ranks(1, "tests.faults.elastic:two_ranks", str(tmp_path), 1, options, timeout=PATIENCE)
    else:
        text = finished(tmp_path, restarts=1, fault="kill", at=at).text()
    assert_same_fit(tmp_path, uninterrupted)
    resumed_at = at // EVERY * EVERY
    assert f"rank 0 attempt 1 did steps [{resumed_at}] to [{MAX_ITER - 1}]" in text


@pytest.mark.repetition  # of killed ranks, above, and of killed writers in test_files.py
def test_a_rank_killed_while_it_saves_leaves_the_checkpoint_before(tmp_path, uninterrupted):
    job = finished(tmp_path, restarts=1, fault="kill while saving", at=40, rank=0)
    assert_same_fit(tmp_path, uninterrupted)
    assert "rank 0 attempt 1 did steps [30]" in job.text()


@pytest.mark.repetition  # of killed ranks, above, and of other numbers of ranks in distributed/test_fit.py
def test_without_restarts_a_killed_rank_ends_all_long_before_the_timeout(tmp_path, uninterrupted):
    with Job(tmp_path, fault="kill", at=35, timeout=100 * PATIENCE) as job:
        assert job.wait() != 0
        assert not job.workers()
    assert job.checkpoints() == [20, 30]
    # The same fit goes on with another number of ranks, from the same graph.
    for ranks in (3, 1):
        other = tmp_path / f"by {ranks}"
        other.mkdir()
        subprocess.run(["cp", "-r", str(tmp_path / "checkpoints"), str(other)], check=True)
        assert "did steps [30] to [59]" in finished(other, ranks=ranks).text()
        np.testing.assert_array_equal(fit_in(other)[0], uninterrupted[0])


def test_workers_leave_when_their_launcher_is_killed(tmp_path):
    with Job(tmp_path, max_iter=10_000, pace=0.02) as job:
        job.wait_for("rank 0 attempt 0 step 20")
        assert len(job.workers()) == 2
        os.kill(job.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while job.workers() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not job.workers()
        stopped_at = json.loads((tmp_path / "checkpoints" / "PREEMPTED").read_text())["step"]
        assert 20 < stopped_at < 10_000


@pytest.mark.repetition  # of a job that Slurm preempts, in test_launch.py
def test_a_terminated_job_saves_says_so_and_goes_on_when_begun_again(tmp_path, uninterrupted):
    marker = tmp_path / "checkpoints" / "PREEMPTED"
    with Job(tmp_path, pace=0.05) as job:
        job.wait_for("rank 1 attempt 0 step 23")
        job.process.send_signal(signal.SIGTERM)
        assert job.wait() != 0
        assert not job.workers()
    stopped_at = job.checkpoints()[-1]
    assert 23 < stopped_at < MAX_ITER
    assert json.loads(marker.read_text())["step"] == stopped_at
    again = finished(tmp_path)
    assert f"did steps [{stopped_at}] to [59]" in again.text()
    assert_same_fit(tmp_path, uninterrupted)
    assert not marker.exists()


def test_a_rank_that_hangs_is_given_up_with_the_name_of_collective_and_step(tmp_path):
    fault = ("hang", 12, 1, MAX_ITER, EVERY, 5.0)
    codes = codes_of_ranks(2, tmp_path, "tests.faults.worker:main", str(tmp_path), *fault, timeout=PATIENCE)
    assert codes[0] not in (0, None)
    assert codes[1] is None, "the one that hangs is not waited for"
    assert "rank 1 attempt 0 step 12" in (tmp_path / "1.out").read_text()
    assert re.search(
        r"RankError: rank 0 of 2 waited for the others in the (exchange of positions|agreement to go on) at step 1[34] "
        r"and gave up: one of them did not come within 5 s",
        (tmp_path / "0.err").read_text(),
    )


@pytest.mark.repetition  # of a rank that fails in distributed/test_fit.py
def test_a_mistake_on_one_rank_ends_all_long_before_the_timeout(tmp_path):
    with Job(tmp_path, fault="raise", at=12, timeout=100 * PATIENCE) as job:
        assert job.wait() != 0
        assert not job.workers()
    assert "ZeroDivisionError: a mistake of the user's" in job.text()
