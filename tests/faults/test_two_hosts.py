"""Two hosts, played by two network namespaces with a cable between them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.harness import ROOT, environment, run_ranks

WORKER = Path(__file__).with_name("worker.py")
ADDRESSES = ("10.213.7.1", "10.213.7.2")
HOSTS, DEVICES = ("cne-host-0", "cne-host-1"), ("cne-veth-0", "cne-veth-1")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Two namespaces, connected; they vanish afterwards, and with them their devices."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", DEVICES[0], "netns", HOSTS[0], "type", "veth", "peer", "name", DEVICES[1], "netns", HOSTS[1])
        for host, device, address in zip(HOSTS, DEVICES, ADDRESSES, strict=True):
            ip("-n", host, "address", "add", f"{address}/24", "dev", device)
            ip("-n", host, "link", "set", device, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield HOSTS
    except FileNotFoundError:
        pytest.skip("the command ip (iproute2), which makes network namespaces, is missing")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


def test_two_hosts_find_what_one_host_finds(hosts, tmp_path):
    on_one, on_two = tmp_path / "one", tmp_path / "two"
    on_one.mkdir()
    on_two.mkdir()
    run_ranks(2, "tests.faults.worker:main", str(on_one))

    launcher = [sys.executable, "-m", "torch.distributed.run"]
    options = ["--nnodes=2", "--nproc_per_node=1", "--rdzv-backend=c10d", "--rdzv-id=two-hosts"]
    endpoint = f"--rdzv-endpoint={ADDRESSES[0]}:29411"
    work = [*launcher, *options, endpoint, str(WORKER), json.dumps({"folder": str(on_two)})]
    running = []
    for host, device, address in zip(hosts, DEVICES, ADDRESSES, strict=True):
        # Each host has a name of its own, which is its address.
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', address, *work]
        command = ["ip", "netns", "exec", host, *named]
        log = (tmp_path / f"{host}.txt").open("w")
        with log:
            running.append(
                subprocess.Popen(
                    command, env=environment(GLOO_SOCKET_IFNAME=device), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
                )
            )
    try:
        codes = [process.wait(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert codes == [0, 0], [(tmp_path / f"{host}.txt").read_text() for host in hosts]
    np.testing.assert_array_equal(np.load(on_two / "embedding.npy"), np.load(on_one / "embedding.npy"))
