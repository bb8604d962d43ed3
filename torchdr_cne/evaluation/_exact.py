"""Exact Euclidean neighbours and neighbour ranks of some rows among all rows."""

from collections.abc import Iterator

import numpy as np

_BLOCK_VALUES = 2**23  # 64 MB of float64 distances at a time
_SLACK = 16


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return squared Euclidean distances between matching rows, computed from differences in float64."""
    difference = left.astype(np.float64) - right
    return np.einsum("...d,...d->...", difference, difference)


class ExactSearch:
    """Exact search for neighbours in the order of (distance, id); a point itself is removed by its id.

    Blocks of |x|² + |y|² − 2xy, a matrix product, find candidates. Wherever the rounding error of that form could
    change the order, differences of rows in float64 decide. The rows are centred first, as the error grows with
    their norms.

    Parameters
    ----------
    points : numpy.ndarray of shape (n, d)
        Finite numbers; a centred copy in float64 is kept.

    Notes
    -----
    The centre is a median of rows, so that it is (nearly) one of the values. Subtracting it is then exact for
    integers, and almost always for float32, and equal distances stay equal.
    """

    def __init__(self, points: np.ndarray) -> None:
        n, d = points.shape
        self._points = np.array(points, dtype=np.float64)
        self._points -= np.median(self._points[:: max(1, n // 1000)], axis=0)
        self._sq_norms = np.einsum("nd,nd->n", self._points, self._points)
        self._relative_error = 0.0 if self._products_are_exact() else 4 * (d + 4) * np.finfo(np.float64).eps

    def neighbors(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Return the ids (r, k) of the k < n nearest other points of each row, nearest first."""
        n_candidates = min(k + _SLACK, len(self._points) - 1)
        found = [np.empty((0, k), dtype=np.int64)]
        for block_rows, distances, tolerance in self._blocks(rows):
            candidates = np.argpartition(distances, n_candidates - 1, axis=1)[:, :n_candidates]
            ids, exact = self._sort_by_distance(block_rows, candidates)
            if n_candidates < len(self._points) - 1:
                excluded_from = np.take_along_axis(distances, candidates, axis=1).max(axis=1) - tolerance
                for row in np.flatnonzero(exact[:, k - 1] >= excluded_from):
                    within = np.flatnonzero(distances[row] <= exact[row, k - 1] + tolerance[row])
                    values = self._settle(block_rows[row], within, distances[row], tolerance[row])
                    ids[row, :k] = within[np.argsort(values, kind="stable")[:k]]
            found.append(ids[:, :k])
        return np.concatenate(found)

    def ranks(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the rank of each of ``others`` (r, k) among the neighbours of its row; the nearest has rank 1."""
        ranks = np.empty(others.shape, dtype=np.int64)
        start = 0
        for block_rows, distances, tolerance in self._blocks(rows):
            for row_id, row_distances, error in zip(block_rows, distances, tolerance, strict=True):
                ranks[start] = self._ranks_in_row(row_id, row_distances, error, others[start])
                start += 1
        return ranks

    def _ranks_in_row(self, row_id: int, distances: np.ndarray, error: float, others: np.ndarray) -> np.ndarray:
        exact = squared_distances(self._points[others], self._points[row_id])
        nearer = np.array([np.count_nonzero(distances < value - error) for value in exact])
        not_farther = np.array([np.count_nonzero(distances <= value + error) for value in exact])
        for position in np.flatnonzero(not_farther - nearer > 1):
            value, other = exact[position], others[position]
            close = np.flatnonzero(np.abs(distances - value) <= error)
            close_values = self._settle(row_id, close, distances, error)
            before = (close_values < value) | ((close_values == value) & (close < other))
            nearer[position] = np.count_nonzero(distances < value - error) + np.count_nonzero(before)
        return nearer + 1

    def _products_are_exact(self) -> bool:
        """Return whether all values are multiples of ½ so small that no product or sum is rounded.

        Such data have the most equal distances, and without this check differences would settle every tie.
        """
        is_whole = all(np.array_equal(2 * row, np.rint(2 * row)) for row in self._points)
        return is_whole and float(self._sq_norms.max()) < 2.0**48

    def _settle(self, row_id: int, ids: np.ndarray, distances: np.ndarray, error: float) -> np.ndarray:
        """Return squared distances of one row to ``ids`` without the rounding error of its ``distances``."""
        if error == 0.0:
            return distances[ids]
        return squared_distances(self._points[ids], self._points[row_id])

    def _blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield row ids, squared distances to all points (inf to itself), and each row's rounding error."""
        size = max(1, _BLOCK_VALUES // len(self._points))
        largest = self._sq_norms.max()
        for start in range(0, len(rows), size):
            block_rows = rows[start : start + size]
            distances = (-2.0 * self._points[block_rows]) @ self._points.T
            distances += self._sq_norms
            distances += self._sq_norms[block_rows, None]
            distances[np.arange(len(block_rows)), block_rows] = np.inf
            yield block_rows, distances, self._relative_error * (self._sq_norms[block_rows] + largest)

    def _sort_by_distance(self, rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sort each row of ``ids`` (r, c) by (exact squared distance, id); return ids and distances."""
        exact = squared_distances(self._points[ids], self._points[rows][:, None])
        order = np.lexsort((ids, exact), axis=1)
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(exact, order, axis=1)
