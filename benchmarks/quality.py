"""Scores of embeddings of one data set, by exact search on a fixed sample of rows."""

import numpy as np

from benchmarks.data import Dataset

N_SAMPLES = 3000
_FAR = 100


def sample_rows(n: int, n_samples: int = N_SAMPLES) -> np.ndarray:
    """Return the judged rows: those that `torchdr_cne.evaluation` draws with ``random_state=0``."""
    return np.arange(n) if n <= n_samples else np.random.default_rng(0).choice(n, n_samples, replace=False)


class Judge:
    """Scores embeddings of one data set; the data's own neighbours are sought once."""

    def __init__(self, data: Dataset, n_samples: int = N_SAMPLES) -> None:
        from torchdr_cne.evaluation._exact import ExactSearch

        self._data = data
        self._n_samples = n_samples
        self._rows = sample_rows(len(data.X), n_samples)
        self._true_rk = ExactSearch(data.X).neighbors(self._rows, min(_FAR, len(data.X) - 1))

    def scores(self, embedding: np.ndarray) -> dict[str, float]:
        """Return recall_15, recall_100, accuracy, trustworthiness and spearman of an embedding (n, 2)."""
        from torchdr_cne.evaluation import evaluate
        from torchdr_cne.evaluation._exact import ExactSearch

        scores = evaluate(self._data.X, embedding, self._data.y, n_samples=self._n_samples)
        found_rk = ExactSearch(embedding).neighbors(self._rows, self._true_rk.shape[1])
        return {
            "recall_15": scores["knn_recall"],
            "recall_100": self._share_found(found_rk),
            "accuracy": scores["knn_accuracy"],
            "trustworthiness": scores["trustworthiness"],
            "spearman": scores["distance_correlation"],
        }

    def search_recall(self, neighbors_rk: np.ndarray) -> float:
        """Share of the judged rows' true neighbours that a neighbour search has found."""
        return self._share_found(neighbors_rk)

    def _share_found(self, found_rk: np.ndarray) -> float:
        k = found_rk.shape[1]
        n = len(self._data.X)
        row_offsets = np.arange(len(found_rk), dtype=np.int64)[:, None] * n
        return float(np.isin(row_offsets + found_rk, row_offsets + self._true_rk[:, :k]).mean())
