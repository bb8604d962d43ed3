"""The attraction–repulsion spectrum: embeddings from t-SNE-like to beyond UMAP-like (Böhm et al., 2022)."""

from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

DEFAULT_S = (0.0, 0.25, 0.5, 1.0, 1.5)


def sweep(estimator: Any, X: Any, s: Sequence[float] = DEFAULT_S, *, graph: Any = None) -> dict[float, Any]:
    """Fit a method with several values of the spectrum parameter s, on one graph.

    s = 0 weights attraction as t-SNE does, s = 1 about as UMAP does; smaller s shows finer structure, larger s shows
    continuous structure. NegTSNE and InfoTSNE use their parameter ``s``; all other methods use the
    exaggeration 4^s.

    Parameters
    ----------
    estimator : NeighborEmbedding
        Estimator whose copies are fitted; it is not changed. Set ``random_state``, so that only s makes a difference.
    X : array-like of shape (n, f)
        The data.
    s : sequence of float, default=(0, 0.25, 0.5, 1, 1.5)
        Values of the spectrum parameter.
    graph : sparse matrix of shape (n, n), default=None
        Input affinities; None computes them once.

    Returns
    -------
    dict of float to NeighborEmbedding
        The fitted estimators by s.

    Raises
    ------
    TypeError
        If the estimator has no attraction and repulsion that could be weighted.
    ValueError
        If ``s`` is empty.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from torchdr_cne import TSNE, spectrum
    >>> maps = spectrum.sweep(TSNE(max_iter=100, random_state=0), load_digits().data[:200], s=(0, 1))
    >>> bool(maps[0].embedding_.std() > maps[1].embedding_.std())  # more attraction makes a smaller map
    True
    """
    parameters = getattr(estimator, "_spectrum_parameters", None)
    if parameters is None:
        raise TypeError(
            f"{type(estimator).__name__} has no attraction and repulsion to weigh; pass a NeighborEmbedding such as "
            "NegTSNE() or TSNE()."
        )
    if not len(s):
        raise ValueError("s is empty; pass at least one place on the spectrum.")
    fitted: dict[float, Any] = {}
    for place in s:
        fitted[place] = clone(estimator).set_params(**parameters(place)).fit(X, graph=graph)
        graph = fitted[place].graph_
    return fitted


def pictures(fitted: dict[float, Any], labels: Any = None, **options: Any) -> Any:
    """Draw the embeddings of a sweep in a row.

    Parameters
    ----------
    fitted : dict of float to NeighborEmbedding
        The result of `sweep` with estimators of two components.
    labels : array-like of shape (n,), default=None
        Labels that colour the points, as in `torchdr_cne.plotting.scatter`.
    **options
        Options of `torchdr_cne.plotting.panels`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from torchdr_cne.plotting import panels

    named = {f"s = {place:g}": estimator.embedding_ for place, estimator in fitted.items()}
    return panels(named, labels, **{"columns": len(named), **options})
