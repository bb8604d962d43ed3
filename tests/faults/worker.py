"""A fit under torchrun to which something happens: python worker.py '{"folder": …, …}'."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from torchdr_cne import NegTSNE
from torchdr_cne.distributed import DistributedConfig
from torchdr_cne.storage import folders


def kill_while_saving(at):
    """Die in the middle of the checkpoint of step ``at``."""
    write = folders._write_files

    def write_half(path, tensors, manifest):
        if path.name.startswith(f".step-{at}."):  # the name before it is whole
            (path / "state.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, tensors, manifest)

    folders._write_files = write_half


def main(folder, fault="none", at=-1, rank=1, max_iter=60, every=10, timeout=60.0, pace=0.0):
    """Embed the digits; rank ``rank`` suffers ``fault`` at step ``at`` of the first attempt."""
    own, attempt = int(os.environ.get("RANK", 0)), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    hit = own == rank and attempt == 0
    done = []

    class Faulty(NegTSNE):
        def on_training_step_start(self):
            time.sleep(pace)
            done.append(self.n_iter_)
            print(f"rank {own} attempt {attempt} step {self.n_iter_}", flush=True)
            if hit and self.n_iter_ == at:
                if fault == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault == "hang":
                    time.sleep(600)
                if fault == "raise":
                    raise ZeroDivisionError("a mistake of the user's")

    if fault == "kill while saving" and hit:
        kill_while_saving(at)
    X = load_digits().data.astype(np.float32)
    distributed = DistributedConfig(min_rows=0, timeout=timeout) if "RANK" in os.environ else False
    estimator = Faulty(
        random_state=0,
        max_iter=max_iter,
        checkpoint_dir=Path(folder) / "checkpoints",
        checkpoint_every=every,
        distributed=distributed,
    )
    estimator.fit(X)
    if own == 0:
        np.save(Path(folder) / "embedding.npy", estimator.embedding_)
        (Path(folder) / "history.json").write_text(json.dumps(estimator.history_))
    print(f"rank {own} attempt {attempt} did steps {done[:1]} to {done[-1:]}", flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
