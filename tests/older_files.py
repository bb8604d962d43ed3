"""The fits whose files lie in tests/data/saved, as earlier versions wrote them.

``python -m tests.older_files`` writes those that are not there yet, with what they give. What is there stays: it is to
be read for ever.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tests.helpers import interrupt_at
from torchdr_cne import PACMAP, TSNE, UMAP, LearnedMap, NCVis, NegTSNE, Phase
from torchdr_cne.affinity import Connectivity, Neighbors, Symmetrize, UMAPAffinity
from torchdr_cne.neighbors import FaissConfig
from torchdr_cne.parametric import Classification, Position, Reconstruction, Relation
from torchdr_cne.similarities import CosineExp

FOLDER = Path(__file__).parent / "data" / "saved"
EXPECTED = FOLDER / "expected.json"
X, Y = load_digits().data[:100, 16:40].astype(np.float32), load_digits().target[:80]
STOPPED = 15

COMMON = {"random_state": 0, "n_jobs": 1, "max_iter": 20, "check_interval": 5}
STEADY = {"optimizer": "Adam", "optimizer_kwargs": {"eps": 1e-3}}
"""Adam makes steps of gradients that are rounding alone, others on each processor, unless it is told not to."""
PLAIN = {"init": "pca", "init_scaling": 1.0}
"""What used to be the default of all methods."""
BATCHES = {"encoder": (10,), "batch_size": 64, **STEADY}
OWN_GRAPH = Neighbors(8, backend=FaissConfig(n_lists=0)) | Connectivity() | Symmetrize("mean")
PHASES = [
    Phase(8, Position("pca") + 0.5 * Reconstruction(), optimizer="SGD", learning_rate=0.01),
    Phase(
        12,
        0.7 * Relation(NegTSNE(nu=0.5, **PLAIN), affinity=UMAPAffinity(n_neighbors=6)) + 0.3 * Classification(),
        **STEADY,
    ),
]

MODELS = {
    "negtsne": (NegTSNE, {"n_neighbors": 5, "init": X[:80, 3:5] / 16}),
    "umap": (UMAP, {"affinity_in": OWN_GRAPH}),
    "pacmap": (PACMAP, {"n_neighbors": 5}),
    "tsne": (TSNE, {"perplexity": (3, 5)}),
    "encoder": (NCVis, {"decoder": (8,), "extra_loss": 0.3 * Classification(), "n_neighbors": 5, **BATCHES}),
    "cosine": (NCVis, {"similarity": CosineExp(0.5), "n_components": 3, "store_training_data": False, **BATCHES}),
    "learned_map": (LearnedMap, {"phases": PHASES, "decoder": (8,), "n_neighbors": 5, **BATCHES}),
}
CHECKPOINTS = {
    "negtsne": (NegTSNE, {"n_neighbors": 5, "learning_rate": 0.5, **PLAIN}),
    "tsne": (TSNE, {"perplexity": 4.0, "learning_rate": 0.1, **STEADY}),
    "encoder": (NCVis, {"n_neighbors": 5, **BATCHES, **PLAIN}),
    "learned_map": (LearnedMap, {"phases": PHASES, "decoder": (8,), "n_neighbors": 5, **BATCHES}),
}


_HOW = ("checkpoint_dir", "checkpoint_every", "callbacks")


def make(kind, parameters, **more):
    return kind(**{**COMMON, **parameters, **more})


def begin(name, folder, **more):
    """Begin a fit with checkpoints, or go on with the one in ``folder``."""
    kind, parameters = CHECKPOINTS[name]
    return make(kind, parameters, checkpoint_dir=folder, checkpoint_every=10, **more).fit(X[:80], Y)


def told(estimator):
    """Return the parameters in words, arrays as lists, without where the files are and who looks on."""
    parameters = estimator.get_params(deep=False).items()
    rest = {name: value for name, value in parameters if name not in _HOW}
    return {name: repr(value.tolist() if isinstance(value, np.ndarray) else value) for name, value in rest.items()}


def described(estimator):
    """Return what a fitted estimator is and gives, as JSON values."""
    found = {
        "class": type(estimator).__name__,
        "parameters": told(estimator),
        "steps": estimator.history_["step"],
        "embedding": np.round(estimator.embedding_.astype(float), 6).tolist(),
        "placed": None,
    }
    if hasattr(estimator, "encoder_") or estimator.store_training_data:
        found["placed"] = np.round(estimator.transform(X[80:]).astype(float), 6).tolist()
    scalars = ("log_z_", "kl_divergence_")
    return found | {name: getattr(estimator, name) for name in scalars if hasattr(estimator, name)}


def write():
    """Write the files that are missing, with what they give."""
    FOLDER.mkdir(exist_ok=True)
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    for name, (kind, parameters) in MODELS.items():
        if f"model-{name}" not in expected:
            fitted = make(kind, parameters).fit(X[:80], Y)
            fitted.save(FOLDER / f"model-{name}")
            expected[f"model-{name}"] = described(fitted)
    for name in CHECKPOINTS:
        if f"checkpoint-{name}" not in expected:
            warnings.filterwarnings("ignore", "interrupted after")
            begin(name, FOLDER / f"checkpoint-{name}", callbacks=interrupt_at(STOPPED))
            (FOLDER / f"checkpoint-{name}" / "lock").unlink()  # which tells whose it was
            kind, parameters = CHECKPOINTS[name]
            expected[f"checkpoint-{name}"] = described(make(kind, parameters).fit(X[:80], Y))
    lines = (f"{json.dumps(name)}: {json.dumps(found)}" for name, found in expected.items())
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write()
