"""PCA and Laplacian eigenmaps as what they are in this library: an affinity of the data, one of the embedding, a loss.

Run with ``python examples/affinity_matching.py``; it prints how far both are from scikit-learn's.
"""

import numpy as np
import torch
from scipy.linalg import subspace_angles
from scipy.spatial import procrustes
from sklearn.datasets import load_digits, make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.manifold import SpectralEmbedding

from torchdr_cne import AffinityMatcher
from torchdr_cne.affinity import UnionAffinity
from torchdr_cne.objectives.matrices import ScalarProduct


def gram(X):
    """Scalar products of rows: the matrix whose best approximation of rank d is PCA's."""
    return X @ X.T


class NormalizedAdjacency:
    """A power of (I + D^-½ A D^-½)/2 of the kNN graph, without its first eigenvector, which the degrees alone decide.

    Its largest eigenvalues belong to the smallest ones of the normalised Laplacian; the power sets them apart.
    """

    def __init__(self, n_neighbors):
        self.n_neighbors = n_neighbors

    def __call__(self, X):
        """Return the matrix (n, n) of rows (n, f)."""
        adjacency = torch.as_tensor(UnionAffinity(n_neighbors=self.n_neighbors)(X).to_scipy().toarray()).double()
        root = adjacency.sum(dim=1).sqrt()
        first = root / root.norm()
        walk = (torch.eye(len(X)) + adjacency / root / root[:, None]) / 2
        return torch.linalg.matrix_power(walk, 64) - torch.outer(first, first)


def fit(X, affinity, start):
    """Match ``affinity`` of the rows with scalar products of places that begin at ``start``."""
    matcher = AffinityMatcher(
        affinity_in=affinity,
        affinity_out=ScalarProduct(),
        loss="square",
        init=start,
        dtype="float64",
        learning_rate=0.05 * float(start.std()),
        max_iter=1000,
        random_state=0,
    )
    return matcher.fit_transform(X)


def pca():
    """Return the disparity of the recovered and PCA's components, up to rotation; 0 is no difference."""
    X = load_digits().data[:500]
    X = X - X.mean(axis=0)
    start = np.random.default_rng(0).normal(size=(len(X), 2)) * X.std()
    return procrustes(PCA(2).fit_transform(X), fit(X, gram, start))[2]


def laplacian_eigenmaps():
    """Return the angle between the planes of the recovered and of scikit-learn's eigenvectors of a roll's graph."""
    X = make_swiss_roll(400, random_state=0)[0]
    affinity = NormalizedAdjacency(n_neighbors=10)
    graph = UnionAffinity(n_neighbors=10)(X).to_scipy()
    expected = SpectralEmbedding(2, affinity="precomputed", random_state=0).fit_transform(graph.toarray())
    expected *= np.sqrt(graph.sum(axis=1))[:, None]  # scikit-learn divides eigenvectors by the roots of degrees
    start = np.random.default_rng(0).normal(size=(len(X), 2)) / len(X) ** 0.5
    return subspace_angles(expected, fit(X, affinity, start)).max()


def main():
    """Print the agreement."""
    print(f"PCA of 500 digits: disparity {pca():.1e}")
    print(f"Laplacian eigenmaps of a swiss roll: {laplacian_eigenmaps():.1e} radians")


if __name__ == "__main__":
    main()
