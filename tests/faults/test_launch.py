"""The scripts in launch/: well-formed, started as they say, and a Slurm job that survives its preemption.

Slurm is played by stubs on the PATH. What srun starts is torchrun: a stand-in for it and the fit, or the real ones.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.helpers import repeated
from torchdr_cne import NegTSNE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for bash")
LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
TOOLS = Path(sys.executable).parent
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


def write_program(path, text):
    path.write_text(text)
    path.chmod(0o755)


class TestForm:
    def test_shellcheck_finds_nothing(self):
        shellcheck = shutil.which("shellcheck", path=f"{TOOLS}:{os.environ['PATH']}")
        done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("", 0)

    @each_script
    def test_bash_can_read_it_and_it_stops_at_errors(self, script):
        assert subprocess.run(["bash", "-n", script]).returncode == 0
        assert "\nset -euo pipefail\n" in script.read_text()
        assert os.access(script, os.X_OK)

    def test_readme_explains_every_file_and_variable(self):
        readme = (LAUNCH / "README.md").read_text()
        text = "".join(script.read_text() for script in SCRIPTS)
        variables = {name for name in ("NPROC", "MAX_RESTARTS", "HOST", "PORT", "MIN_NODES", "MAX_NODES", "JOB_ID")}
        variables |= {"CHECKPOINT_DIR", "FIT", "OMP_NUM_THREADS", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"}
        for name in variables:
            assert f"${{{name}:" in text
            assert f"| `{name}` |" in readme
        for file in LAUNCH.iterdir():
            assert file.name == "README.md" or file.name.startswith("__") or file.name in readme

    def test_trainjob_has_the_fields_that_kubeflow_needs(self):
        job = yaml.safe_load((LAUNCH / "kubeflow-trainjob.yaml").read_text())
        assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
        assert job["metadata"]["name"]
        assert job["spec"]["runtimeRef"]["name"] == "torch-distributed"
        trainer = job["spec"]["trainer"]
        assert {"image", "numNodes", "numProcPerNode", "command", "args", "resourcesPerNode"} <= set(trainer)
        assert trainer["command"][0] == "torchrun"
        assert trainer["command"][-1].endswith("/fit.py")
        (patch,) = job["spec"]["runtimePatches"]
        (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        pod = node["template"]["spec"]["template"]["spec"]
        assert [volume["name"] for volume in pod["volumes"]] == ["data"]
        assert pod["containers"][0]["volumeMounts"][0]["name"] == "data"

    def test_trainjob_says_that_it_was_not_run(self):
        assert (LAUNCH / "kubeflow-trainjob.yaml").read_text().startswith("# NOT RUN")


class TestOneOrMoreNodes:
    @pytest.fixture
    def start(self, tmp_path):
        """Run a script with a torchrun that prints its arguments, and return exit code and output."""
        write_program(tmp_path / "torchrun", '#!/usr/bin/env bash\nprintf "%s\\n" "$OMP_NUM_THREADS" "$@"\n')
        names = ("NPROC", "HOST", "PORT", "MIN_NODES", "MAX_NODES", "OMP_NUM_THREADS", "MAX_RESTARTS", "JOB_ID")
        clean = {name: value for name, value in os.environ.items() if name not in names}

        def start(script, *arguments, **variables):
            environment = clean | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | variables
            done = subprocess.run([LAUNCH / script, *arguments], env=environment, capture_output=True, text=True)
            return done.returncode, done.stdout.splitlines(), done.stderr

        return start

    def test_one_node_meets_itself_and_passes_the_options_on(self, start):
        code, (threads, *arguments), _ = start("single_node.sh", "my data.npy", "--s", "1", NPROC="2")
        assert code == 0
        assert int(threads) == max(1, len(os.sched_getaffinity(0)) // 2)
        options = ["--standalone", "--nproc_per_node=2", "--max-restarts=1"]
        assert arguments == [*options, "--", f"{LAUNCH}/fit.py", "my data.npy", "--s", "1"]

    def test_several_nodes_meet_at_the_host(self, start):
        variables = {"HOST": "n1", "MIN_NODES": "2", "MAX_NODES": "4", "OMP_NUM_THREADS": "3", "NPROC": "8"}
        code, (threads, *arguments), _ = start("multi_node.sh", "d.npy", **variables)
        assert (code, threads) == (0, "3")
        meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=n1:29400", "--rdzv-id=torchdr_cne", "--max-restarts=3"]
        assert arguments == ["--nnodes=2:4", "--nproc_per_node=8", *meeting, "--", f"{LAUNCH}/fit.py", "d.npy"]

    @pytest.mark.parametrize(
        ("script", "arguments", "variables", "sentence"),
        [
            ("single_node.sh", [], {}, "usage: "),
            ("multi_node.sh", [], {}, "usage: "),
            ("multi_node.sh", ["d.npy"], {}, "HOST: name the machine where the others meet"),
            ("multi_node.sh", ["d.npy"], {"HOST": "n1"}, "MIN_NODES: say how many machines"),
        ],
    )
    def test_what_is_missing_is_said_before_anything_starts(self, start, script, arguments, variables, sentence):
        code, output, error = start(script, *arguments, **variables)
        assert code != 0
        assert output == []
        assert sentence in error

    @pytest.mark.repetition  # of the arguments above, and of the ranks that the command line starts in test_cli.py
    def test_one_node_fits(self, tmp_path):
        np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))
        options = ["--output", "out.npy", "--max_iter", "10", "--s", "1"]  # --s is no short form of --standalone
        command = [LAUNCH / "single_node.sh", "data.npy", *options]
        environment = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}", "NPROC": "2"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("wrote out.npy") == 1
        assert np.load(tmp_path / "out.npy").shape == (200, 2)


WORKER = """\
#!{python}
# Stands in for torchrun and the fit: counts steps, saves and leaves PREEMPTED on SIGTERM, and continues from there.
import os, pathlib, signal, sys, time

folder = pathlib.Path(sys.argv[sys.argv.index("--checkpoint_dir") + 1])
log = pathlib.Path(os.environ["STUBS"]) / "log"

def preempted(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.3)  # saving takes its time
    (folder / "step").write_text("40")
    (folder / "PREEMPTED").write_text("40")
    sys.exit(1)

signal.signal(signal.SIGTERM, preempted)
begun_at = int((folder / "step").read_text()) if (folder / "step").exists() else 0
with log.open("a") as file:
    file.write(f"begun at {{begun_at}}, {{sorted(file.name for file in folder.iterdir())}}\\n")
if os.environ.get("WORKER") == "fails":
    sys.exit(7)
if not begun_at:
    time.sleep(60)
"""
SLURM = {
    # Takes the script as Slurm does, a copy in another folder, and notes which signal its shell wants.
    "sbatch": """\
cp "$1" "$STUBS/slurm_script"
sed -n 's/^#SBATCH --signal=B:\\([A-Z0-9]*\\)@.*/\\1/p' "$1" > "$STUBS/signal"
shift
exec bash "$STUBS/slurm_script" "$@"
""",
    # As the real one, kills its task at once when it gets SIGTERM.
    "srun": """\
while [[ $1 == -* ]]; do shift; done
"$@" & task=$!
echo "$task" > "$STUBS/task"
trap 'kill -KILL $task' TERM
wait $task
""",
    "scancel": """\
[[ $* == "--signal=TERM 41" ]] && kill -TERM "$(cat "$STUBS/task")"
""",
    "scontrol": """\
if [[ $1 == show ]]; then tr , '\\n' <<< "$3"; else echo "$*" >> "$STUBS/requests"; fi
""",
}


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Cluster:
    """A Slurm that runs one job, number 41."""

    def __init__(self, folder):
        self.folder, self.stubs = folder, folder / "stubs"
        self.checkpoints = folder / "checkpoints" / "41"
        self.stubs.mkdir()
        for name, text in SLURM.items():
            write_program(self.stubs / name, f"#!/usr/bin/env bash\n{text}")

    def stand_in(self):
        write_program(self.stubs / "torchrun", WORKER.format(python=sys.executable))

    def submit(self, *arguments, **variables):
        environment = os.environ | {
            "PATH": f"{self.stubs}:{TOOLS}:{os.environ['PATH']}",
            "STUBS": str(self.stubs),
            "FIT": str(LAUNCH / "fit.py"),
            "SLURM_JOB_ID": "41",
            "SLURM_JOB_NODELIST": "node1,node2",
            "SLURM_CPUS_PER_TASK": "4",
        }
        command = ["sbatch", str(LAUNCH / "slurm.sbatch"), "data.npy", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment | variables, stderr=subprocess.PIPE, text=True
        )

    def wait_for_runs(self, count):
        wait_until(lambda: len(self.lines("log")) == count)

    def warn(self, job):
        """Send the batch shell, and it alone, the signal that it asked for."""
        name = (self.stubs / "signal").read_text().strip()
        job.send_signal(signal.Signals[f"SIG{name}"])

    def lines(self, name):
        file = self.stubs / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def requests(self):
        return self.lines("requests")


def finish(job):
    """Return exit code and stderr."""
    error = job.communicate(timeout=120)[1]
    return job.returncode, error


class TestSlurm:
    @pytest.fixture
    def cluster(self, tmp_path):
        cluster = Cluster(tmp_path)
        cluster.stand_in()
        return cluster

    def test_a_preempted_job_saves_is_requeued_once_and_then_finishes(self, cluster):
        job = cluster.submit("--output", "out.npy")
        cluster.wait_for_runs(1)
        cluster.warn(job)
        code, _ = finish(job)
        assert code != 0
        assert cluster.requests == ["requeue 41"]
        assert (cluster.checkpoints / "PREEMPTED").exists()

        assert finish(cluster.submit("--output", "out.npy", SLURM_RESTART_COUNT="1")) == (0, "")
        assert cluster.lines("log") == ["begun at 0, []", "begun at 40, ['step']"]
        assert cluster.requests == ["requeue 41"]

    def test_a_second_warning_changes_nothing(self, cluster):
        job = cluster.submit()
        cluster.wait_for_runs(1)
        for _ in range(3):
            cluster.warn(job)
            time.sleep(0.05)
        finish(job)
        assert cluster.requests == ["requeue 41"]

    def test_ranks_that_slurm_warns_itself_are_requeued_too(self, cluster):
        job = cluster.submit()
        cluster.wait_for_runs(1)
        os.kill(int(cluster.lines("task")[0]), signal.SIGTERM)
        finish(job)
        assert cluster.requests == ["requeue 41"]

    def test_a_failing_job_ends_with_the_steps_code_and_is_not_requeued(self, cluster):
        assert finish(cluster.submit(WORKER="fails")) == (7, "")
        assert cluster.requests == []

    def test_a_marker_of_the_run_before_does_not_requeue_a_failing_job(self, cluster):
        cluster.checkpoints.mkdir(parents=True)
        (cluster.checkpoints / "PREEMPTED").touch()
        assert finish(cluster.submit(WORKER="fails"))[0] == 7
        assert cluster.requests == []

    def test_a_cancelled_job_is_not_requeued(self, cluster):
        job = cluster.submit()
        cluster.wait_for_runs(1)
        job.send_signal(signal.SIGTERM)  # as scancel does to every process of a job
        os.kill(int(cluster.lines("task")[0]), signal.SIGTERM)
        assert finish(job)[0] == -signal.SIGTERM
        assert cluster.requests == []

    @pytest.mark.parametrize("n_ranks", [1, *repeated(2)])
    def test_the_real_fit_continues_with_the_same_bits_where_it_was_preempted(self, n_ranks, tmp_path):
        X = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
        np.save(tmp_path / "data.npy", X)
        cluster = Cluster(tmp_path)
        options = ["--output", "out.npy", "--max_iter", "1000", "--random_state", "0"]
        options += ["--distributed", "true"] if n_ranks > 1 else []
        slurm = {"SLURM_JOB_NODELIST": "localhost", "NPROC": str(n_ranks)}
        job = cluster.submit(*options, **slurm)
        wait_until(lambda: list(cluster.checkpoints.glob("step-*")))
        cluster.warn(job)
        code, error = finish(job)
        assert code != 0
        assert cluster.requests == ["requeue 41"], error
        assert not (tmp_path / "out.npy").exists()

        code, error = finish(cluster.submit(*options, **slurm, SLURM_RESTART_COUNT="1"))
        assert (code, cluster.requests) == (0, ["requeue 41"]), error
        assert not (cluster.checkpoints / "PREEMPTED").exists()
        expected = NegTSNE(max_iter=1000, random_state=0).fit_transform(X)
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)

    @pytest.mark.parametrize(
        ("arguments", "variables", "sentence"),
        [
            (["--checkpoint-dir", "other"], {}, "give the folder as CHECKPOINT_DIR=…"),
            ([], {"FIT": "launch/fit.py"}, "there is no launch/fit.py in"),
        ],
    )
    def test_what_cannot_work_is_said_before_anything_starts(self, cluster, arguments, variables, sentence):
        code, error = finish(cluster.submit(*arguments, **variables))
        assert code == 2
        assert sentence in error
        assert cluster.lines("log") == []
