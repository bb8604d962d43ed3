"""A new method in ten lines, and its fast version: a repulsion that fades with the square of the similarity.

Run with ``python examples/new_method.py``; it writes ``new_method.png``.
"""

from torchdr_cne import NegativeSamplingNeighborEmbedding
from torchdr_cne.forces import PairForces


class SquaredRepulsion(NegativeSamplingNeighborEmbedding):
    """Attraction −log q, repulsion q² for each negative."""

    max_iter: int = 500

    def _compute_attractive_loss(self, pairs):
        return -pairs.log_q_edges

    def _compute_repulsive_loss(self, pairs):
        return (2 * pairs.log_q_negatives).exp()


def attractive(d2, p, power):
    """d/d(d²) of −log q = log(1 + d²)."""
    return 1.0 / (1.0 + d2)


def repulsive(d2, p, power):
    """d/d(d²) of q² = (1 + d²)⁻²."""
    return -2.0 / ((1.0 + d2) * (1.0 + d2) * (1.0 + d2))


class FastSquaredRepulsion(SquaredRepulsion):
    """The same method, with its forces declared: compiled on a CPU, tiled on a GPU."""

    def _pair_forces(self):
        return PairForces(attractive=attractive, repulsive=repulsive)


if __name__ == "__main__":
    import time

    from sklearn.datasets import load_digits

    from torchdr_cne.plotting import panels

    X, y = load_digits(return_X_y=True)
    embeddings = {}
    for method in (SquaredRepulsion, FastSquaredRepulsion):
        start = time.perf_counter()
        embeddings[method.__name__] = method(random_state=0).fit_transform(X)
        print(f"{method.__name__}: {time.perf_counter() - start:.1f} s")
    panels(embeddings, y).savefig("new_method.png", dpi=150)
