"""Whether the library computes on a GPU what it should, and how fast: ``python -m benchmarks.gpu_check``.

One command of at most 8 minutes. Each stage (``--only`` chooses some) has a deadline; each result is one JSON line, on
the screen and in ``--out``, as soon as it is known; an error is recorded, and the rest goes on. A short table comes
last. ``--device cpu --small`` tries all stages anywhere.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.relay import Relay
from benchmarks.gpu.table import BY_NAME, select, summary


def main() -> int:
    """Run the stages and print the table; 1 unless all of them have ended well."""
    asked = _arguments()
    if asked.inside:
        return _inside(asked)
    found: list[dict[str, Any]] = []
    out = None if asked.out is None else asked.out.open("w", encoding="utf-8")

    def tell(result: dict[str, Any]) -> None:
        found.append(result)
        for stream in (sys.stdout, out):
            if stream is not None:
                stream.write(json.dumps(result) + "\n")
                stream.flush()

    is_good = Relay(lambda names, seconds: _command(asked, names, seconds), tell).run(
        select(asked.only), 60 * asked.minutes
    )
    print(summary(found), flush=True)
    if out is not None:
        out.close()
    return 0 if is_good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--small", action="store_true", help="few points, to try the stages themselves")
    parser.add_argument("--only", help=f"some of {','.join(BY_NAME)}")
    parser.add_argument("--data", type=Path, help="archive with X (n, 50) and y (n,); default: MNIST, or else blobs")
    parser.add_argument("--out", type=Path, help="file for the results")
    parser.add_argument("--minutes", type=float, default=7.5, help="for all stages together; default: 7.5")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _command(asked: argparse.Namespace, names: Sequence[str], seconds: float) -> list[str]:
    """Return the command of the process that runs some stages."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--inside", "--device", asked.device]
    command += ["--only", ",".join(names), "--minutes", str(seconds / 60)]
    command += ["--small"] if asked.small else []
    return command + (["--data", str(asked.data)] if asked.data is not None else [])


def _inside(asked: argparse.Namespace) -> int:
    """Run the stages in this process."""
    import torch

    from benchmarks.gpu.inside import run_stages
    from benchmarks.gpu.setting import Setting

    if asked.small:
        torch.set_num_threads(1)
    setting = Setting(torch.device(asked.device), asked.small, asked.data)
    return run_stages(select(asked.only), setting, 60 * asked.minutes)


if __name__ == "__main__":
    raise SystemExit(main())
