"""Whether a launcher has started the process: one answer for the library and the command line, and clear refusals."""

import os
import socket
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest

from tests.distributed.harness import free_port
from torchdr_cne import NegTSNE
from torchdr_cne.cli import main
from torchdr_cne.distributed import RankError
from torchdr_cne.distributed.group import _connection, own_device, ranks_of_this_machine
from torchdr_cne.launcher import VARIABLES, Launch, LaunchError, launch_of

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "29400"}
ONE = [
    {},
    {"RANK": "0"},
    {"WORLD_SIZE": "1"},
    {"RANK": "0", "WORLD_SIZE": ""},
    {"RANK": "", "WORLD_SIZE": "", "MASTER_ADDR": ""},
    {"MASTER_ADDR": "n1", "MASTER_PORT": "29400"},
    WHOLE | {"RANK": "0", "WORLD_SIZE": "1"},
]
UNUSABLE = [
    ({"RANK": "1"}, "has RANK=1, as in one of several processes, but no WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
    ({"WORLD_SIZE": "2"}, "has WORLD_SIZE=2, as in one of several processes, but no RANK, MASTER_ADDR, MASTER_PORT"),
    ({"RANK": "1", "WORLD_SIZE": "2"}, "has RANK=1 and WORLD_SIZE=2, as in .* but no MASTER_ADDR, MASTER_PORT"),
    ({"RANK": "1", "WORLD_SIZE": ""}, "has RANK=1, as in one of several processes, but no WORLD_SIZE"),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n1"}, "has RANK=0 and WORLD_SIZE=2, .* but no MASTER_PORT"),
    ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK=1 in the environment is not below WORLD_SIZE=1"),
    ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 in the environment is not below WORLD_SIZE=0"),
    ({"RANK": "abc", "WORLD_SIZE": "2"}, "RANK='abc' in the environment is no whole number"),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1' in the environment is no whole number"),
    ({"RANK": "0", "WORLD_SIZE": "2.0"}, "WORLD_SIZE='2.0' in the environment is no whole number"),
    (WHOLE | {"MASTER_PORT": "http"}, "MASTER_PORT='http' in the environment is no whole number"),
    (WHOLE | {"MASTER_PORT": "99999"}, "MASTER_PORT=99999 in the environment is no port, 1 to 65535"),
]


@pytest.fixture
def launched_with(monkeypatch):
    """Set just these variables of a launcher."""

    def launched_with(variables):
        for name in (*VARIABLES, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return launched_with


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save("data.npy", X)
    return X


def test_a_whole_set_is_a_launch():
    assert launch_of(WHOLE) == Launch(1, 2, "n1", 29400)
    assert str(launch_of(WHOLE)) == "RANK=1, WORLD_SIZE=2, MASTER_ADDR=n1, MASTER_PORT=29400"


@pytest.mark.parametrize("variables", ONE)
def test_one_process_fits_and_writes_whatever_else_is_set(data, launched_with, variables):
    launched_with(variables)
    assert launch_of() is None
    assert main(["fit", "data.npy", "--output", "out.npy", "--max_iter", "3", "--n_neighbors", "5", "--quiet"]) == 0
    assert np.load("out.npy").shape == (60, 2)


@pytest.mark.parametrize(("variables", "message"), UNUSABLE)
def test_incomplete_and_contradicting_variables_are_named_everywhere(data, launched_with, capsys, variables, message):
    launched_with(variables)
    with pytest.raises(LaunchError, match=f"{message}.*unset "):
        launch_of()
    with pytest.raises(ValueError, match=message):
        NegTSNE(max_iter=3, n_neighbors=5).fit(data)
    assert main(["fit", "data.npy", "--output", "out.npy", "--max_iter", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not os.path.exists("out.npy")


def test_unusable_variables_do_not_matter_to_a_fit_that_is_not_distributed(data, launched_with):
    launched_with({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "many"})
    assert NegTSNE(max_iter=3, n_neighbors=5, distributed=False).fit(data).n_ranks_ == 1
    assert ranks_of_this_machine() == 1


def test_help_and_version_need_no_launch(launched_with, capsys):
    launched_with({"RANK": "abc"})
    assert main(["--version"]) == 0
    assert main(["fit", "--help"]) == 0
    capsys.readouterr()


def test_a_local_rank_that_is_no_number_is_named(launched_with):
    import torch

    launched_with({"LOCAL_RANK": "first"})
    with pytest.raises(ValueError, match="LOCAL_RANK='first' in the environment is no whole number"):
        own_device(torch.device("cuda"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_whole_set_of_leftovers_is_named_when_nobody_comes(data, rank):
    variables = WHOLE | {"RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    script = (
        "import numpy as np; from torchdr_cne import NegTSNE; from torchdr_cne.distributed import DistributedConfig; "
        "NegTSNE(distributed=DistributedConfig(timeout=1.0)).fit(np.load('data.npy'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **variables}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"If the variables {launch_of(variables)} are left over from another run, unset them."
    )


class TestStore:
    """Rank 0 listens only where the others look for it."""

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
    @pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
    def test_listens_only_on_the_interface_of_the_address(self, address):
        port = free_port()
        store = _connection(address, port, 1, True, timedelta(seconds=5))
        store.set("key", "value")
        assert store.get("key") == b"value"
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0

    def test_a_second_timeout_finds_the_first_store(self):
        port = free_port()
        first, second = (_connection("127.0.0.1", port, 1, True, timedelta(seconds=s)) for s in (5, 6))
        first.set("key", "value")
        assert second.get("key") == b"value"

    def test_a_port_in_use_is_named(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            message = f"port {port} of 127.0.0.1, which another program uses; set MASTER_PORT to a free port"
            with pytest.raises(RankError, match=message):
                _connection("127.0.0.1", port, 1, True, timedelta(seconds=5))
