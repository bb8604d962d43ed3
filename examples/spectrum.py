"""The attraction–repulsion spectrum by three methods: rows of maps that differ in one number.

Run with ``python examples/spectrum.py``; it writes ``spectrum-NegTSNE.png``, ``-InfoTSNE.png`` and ``-TSNE.png``.
"""

from pathlib import Path

from sklearn.datasets import load_digits

from torchdr_cne import TSNE, InfoTSNE, NegTSNE, spectrum

METHODS = {"NegTSNE": NegTSNE(n_negatives=1), "InfoTSNE": InfoTSNE(), "TSNE": TSNE()}


def main(folder=".", max_iter=None):
    """Write a picture a method; with labels, though no method sees them."""
    X, y = load_digits(return_X_y=True)
    for name, method in METHODS.items():
        maps = spectrum.sweep(method.set_params(random_state=0, max_iter=max_iter), X)
        spectrum.pictures(maps, y).savefig(Path(folder) / f"spectrum-{name}.png", dpi=100)


if __name__ == "__main__":
    main()
