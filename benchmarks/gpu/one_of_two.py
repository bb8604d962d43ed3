"""What each of two ranks runs: ``torchrun --nproc_per_node=2 -m benchmarks.gpu.one_of_two DATA DEVICE OUT``."""

import os
import sys

import numpy as np
import torch

from torchdr_cne import UMAP, NegTSNE


def main() -> None:
    """Fit the rows of an archive with the other rank; rank 0 writes both embeddings."""
    data, device, out = sys.argv[1:]
    X = np.load(data)
    found = [fitted(method, X, device, distributed=True) for method in (NegTSNE, UMAP)]
    if os.environ["RANK"] == "0":
        np.save(out, np.stack(found))


def fitted(method: type, X: np.ndarray, device: str, *, distributed: bool) -> np.ndarray:
    """Return the embedding of a fit from exact neighbours and a given start, which are the same for any ranks."""
    start = np.array(X[:, :2], dtype=np.float32)
    estimator = method(
        init=start, random_state=0, backend="torch", device=device, distributed=distributed, max_iter=100
    )
    return np.asarray(torch.as_tensor(estimator.fit_transform(X)).cpu())


if __name__ == "__main__":
    main()
