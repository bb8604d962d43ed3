"""The agent of torchrun, in a process that has imported what its ranks need, and forks them."""

import warnings

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests.faults.worker import main


def two_ranks(folder: str, restarts: int, options: dict[str, object]) -> None:
    """Run the worker as ``torchrun --standalone --nproc_per_node=2 worker.py`` does."""
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "two-ranks"}
    ranks = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, "start_method": "fork"}
    elastic_launch(LaunchConfig(**meeting, **ranks, max_restarts=restarts, monitor_interval=0.1), rank)(folder, options)


def rank(folder: str, options: dict[str, object]) -> None:
    """Be one of the ranks."""
    main(folder, **options)
