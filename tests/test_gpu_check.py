"""The GPU check: all its stages run without a GPU, and neither errors, deadlines, crashes nor hangs stop the rest."""

import json
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.gpu import relay
from benchmarks.gpu.inside import run_stages
from benchmarks.gpu.problems import random_graph
from benchmarks.gpu.setting import Setting, attempt
from benchmarks.gpu.table import STAGES, StageSpec, select, summary

SETTING = Setting(torch.device("cpu"), small=True)
CHILD = """
import json, os, sys, time
for name in sys.argv[1].split(","):
    if name == "crash":
        os._exit(9)
    if name == "hang":
        time.sleep(60)
    print("no result of ours")
    lost = ", device lost" if name == "lost" else ""
    print(json.dumps({"stage": name, "status": "ok" + lost, "seconds": 0.0}), flush=True)
    if lost:
        os._exit(3)
"""


def test_all_stages_run_on_a_cpu(tmp_path):
    out = tmp_path / "found.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--small", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert {each["stage"]: each["status"] for each in found if "status" in each} == {spec.name: "ok" for spec in STAGES}
    assert [each for each in found if each.get("ok") is False] == []
    assert [json.loads(line) for line in done.stdout.splitlines()[: len(found)]] == found
    assert done.stdout.endswith(summary(found) + "\n")
    assert done.returncode == 0


def raising(setting):
    yield {"result": "before", "ok": True}
    yield attempt("one of several", lambda: {}["missing"])
    raise ValueError("broken")


def sleeping(setting):
    time.sleep(30)
    yield {"result": "late", "ok": True}


def good(setting):
    yield {"result": "good", "ok": None, "value": float("nan")}


def test_errors_and_deadlines_are_results_and_the_rest_goes_on(capsys):
    specs = [StageSpec(name, f"{__name__}:{name}", 1.0) for name in ("raising", "sleeping", "good")]
    assert run_stages(specs, SETTING, seconds=20) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ends = {each["stage"]: each["status"] for each in found if "status" in each}
    assert ends == {"raising": "crashed", "sleeping": "out of time", "good": "ok"}
    errors = {each["result"]: each for each in found if "error" in each}
    assert errors["one of several"]["error"] == "KeyError: 'missing'"
    assert errors["crash"]["error"] == "ValueError: broken"
    assert "raise ValueError" in errors["crash"]["where"][-1]
    assert "time.sleep" in errors["deadline"]["where"][-1]


def test_a_stage_without_time_left_says_so(capsys):
    run_stages([StageSpec("good", f"{__name__}:good", 1.0)], SETTING, seconds=0)
    assert json.loads(capsys.readouterr().out) == {"stage": "good", "status": "no time", "seconds": 0.0}


def test_crashed_hanging_and_lost_processes_are_followed_by_others(monkeypatch):
    monkeypatch.setattr(relay, "_GRACE", 0.5)
    monkeypatch.setattr(relay, "_STARTING", 1.0)
    specs = [StageSpec(name, "", 0.5) for name in ("first", "crash", "hang", "lost", "last")]
    found = []
    runner = relay.Relay(lambda names, seconds: [sys.executable, "-c", CHILD, ",".join(names)], found.append)
    assert not runner.run(specs, seconds=30)
    assert {each["stage"]: each["status"] for each in found if "status" in each} == {
        "first": "ok",
        "crash": "crashed",
        "hang": "crashed",
        "lost": "ok, device lost",
        "last": "ok",
    }
    errors = {each["stage"]: each["error"] for each in found if "error" in each}
    assert errors == {"crash": "its process ended with status 9", "hang": "hangs, and was killed"}


def test_stages_are_selected_in_their_own_order():
    assert [spec.name for spec in select("steps, machine")] == ["machine", "steps"]
    with pytest.raises(ValueError, match="stage 'step' is unknown; choose from machine"):
        select("step")


@pytest.mark.parametrize("weighted", [False, True])
def test_the_random_graph_is_symmetric_without_loops(weighted):
    graph = random_graph(300, torch.device("cpu"), weighted=weighted).to_scipy()
    assert abs(graph - graph.T).max() == 0
    assert graph.diagonal().max() == 0
    assert 18 < graph.nnz / 300 < 22
