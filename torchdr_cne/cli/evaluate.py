"""``torchdr-cne evaluate``: judge an embedding against its data."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torchdr_cne.cli.messages import UsageError, library_errors, show
from torchdr_cne.cli.options import LABELS, QUIET, Command, Option

COMMAND = Command(
    name="evaluate",
    positionals={
        "data": "Rows that were embedded: npy, npz, csv or parquet.",
        "embedding": "Their embedding, rows in the same order.",
    },
    groups={
        "files": (
            *LABELS,
            Option("json", "bool", False, "Print JSON instead of a table."),
            QUIET,
        ),
        "metrics": (
            Option("n_neighbors", "int", 15, "Neighbours of knn_recall and trustworthiness."),
            Option("n_voters", "int", 10, "Neighbours that vote in knn_accuracy."),
            Option("n_samples", "int | None", 3000, "Rows that are judged; null for all."),
            Option("n_pairs", "int | None", 100_000, "Pairs of distance_correlation; null for all."),
            Option("random_state", "int", 0, "Seed of the samples."),
        ),
    },
    description="Print how well an embedding keeps neighbours, classes and distances.",
    example="torchdr-cne evaluate data.npy embedding.npy --labels labels.npy",
)


read = COMMAND.parse


def run(values: Any, tokens: Sequence[str]) -> None:
    """Print the metrics."""
    from torchdr_cne.cli.reading import column_of_labels, labels_of, read_matrix
    from torchdr_cne.evaluation import evaluate

    X = read_matrix(values.data, key=values.key, leave_out=column_of_labels(values))
    embedding = read_matrix(values.embedding)
    if X.shape[0] != embedding.shape[0]:
        raise UsageError(
            f"{values.data} has {X.shape[0]} rows and {values.embedding} {embedding.shape[0]}; "
            "give the embedding of exactly these rows"
        )
    sizes = {option.key: getattr(values, option.key) for option in COMMAND.groups["metrics"]}
    with library_errors():
        scores = evaluate(X, embedding, labels_of(values, X.shape[0]), **sizes)
    show(_as_json(scores) if values.json else table([["metric", "value"], *_lines(scores)]))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text with aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _lines(scores: Mapping[str, float]) -> list[list[str]]:
    return [[name, f"{value:.4f}"] for name, value in scores.items()]


def _as_json(scores: Mapping[str, float]) -> str:
    """Return the scores as JSON; a score that is not defined is null, as JSON has no NaN."""
    defined = {name: None if math.isnan(value) else value for name, value in scores.items()}
    return json.dumps(defined, indent=2)
