"""The table of names: where each class is, and what it is called on the command line and as a loss.

The lazy imports of the top level, the command line, `Relation` and saved files all use it, so that one line here makes
a class known everywhere. Nothing is imported before it is needed.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A class and its names.

    Attributes
    ----------
    name : str
        Name of the class, also in saved files.
    module : str
        Module from which the class is imported.
    command : str
        Name of the class after ``--method`` on the command line; "" if it has none.
    loss : str
        Name of the class as the loss of a `Relation`; "" if it has none.
    is_public : bool
        Whether ``torchdr_cne.<name>`` is this class.
    """

    name: str
    module: str
    command: str = ""
    loss: str = ""
    is_public: bool = True

    def load(self) -> type:
        """Import and return the class."""
        found = getattr(importlib.import_module(self.module), self.name)
        assert isinstance(found, type)
        return found


_METHODS = (
    Entry("NegTSNE", "torchdr_cne.methods.negtsne", "negtsne", "negative_sampling"),
    Entry("UMAP", "torchdr_cne.methods.umap", "umap", "umap"),
    Entry("NCVis", "torchdr_cne.methods.ncvis", "ncvis", "noise_contrastive"),
    Entry("InfoTSNE", "torchdr_cne.methods.infotsne", "infotsne", "info_nce"),
    Entry("TSNE", "torchdr_cne.methods.tsne", "tsne"),
    Entry("LargeVis", "torchdr_cne.methods.largevis", "largevis"),
    Entry("PACMAP", "torchdr_cne.methods.pacmap", "pacmap"),
    Entry("SNE", "torchdr_cne.methods.sne", "sne"),
    Entry("COSNE", "torchdr_cne.methods.cosne", "cosne"),
    Entry("TSNEkhorn", "torchdr_cne.methods.tsnekhorn", "tsnekhorn"),
)


def _entries(module: str, names: str, *, is_public: bool = False) -> tuple[Entry, ...]:
    return tuple(Entry(name, f"torchdr_cne.{module}", is_public=is_public) for name in names.split())


_TABLE = (
    *_METHODS,
    *_entries("matching", "AffinityMatcher NeighborEmbedding NegativeSamplingNeighborEmbedding", is_public=True),
    *_entries("matching", "AllPairsNeighborEmbedding FixedPairsNeighborEmbedding", is_public=True),
    *_entries("optimization.callbacks", "Every", is_public=True),
    *_entries("optimization.phase", "Phase", is_public=True),
    *_entries("parametric", "LearnedMap ParametricTSNE ParametricUMAP SupervisedContrastive", is_public=True),
    *_entries("images", "SimCLR TSimCNE", is_public=True),
    *_entries("parametric", "Classification InfoNCE LabelContrast Position Reconstruction Relation WeightedSum"),
    *_entries("affinity", "EntropicAffinity SymmetricEntropicAffinity UMAPAffinity UnionAffinity ScaledAffinity"),
    *_entries("affinity", "GaussianAffinity StudentAffinity SelfTuningAffinity SinkhornAffinity"),
    *_entries("affinity", "DoublyStochasticQuadraticAffinity ComposedAffinity"),
    *_entries("affinity", "Binary Connectivity Function Normalize Perplexity Symmetrize"),
    *_entries("optimization.delta_bar_delta", "DeltaBarDelta"),
    *_entries("optimization.poincare", "PoincareSGD"),
    *_entries("optimization.schedules", "WarmCosine"),
    *_entries("similarities", "Cauchy StudentT Gaussian HyperbolicCauchy CosineExp"),
    *_entries("neighbors", "FaissConfig"),
    *_entries("distributed", "DistributedConfig"),
)
_OURS = {entry.name: entry for entry in _TABLE}
_registered: dict[str, Entry] = {}
_registered_classes: dict[str, type] = {}


def register(cls: type, *, command: str = "", loss: str = "") -> type:
    """Register names for a class of your own; this is also usable as a decorator.

    Parameters
    ----------
    cls : type
        A method, an affinity, a loss or a similarity.
    command : str, default=""
        Name of a method as the loss of `torchdr_cne.parametric.Relation` and, in this process, after ``--method``.
    loss : str, default=""
        Name of a method as the loss of a `Relation`, if it is different; "" is ``command``.

    Returns
    -------
    type
        The class.

    Raises
    ------
    ValueError
        If a name is taken by another class.

    Examples
    --------
    >>> from torchdr_cne import NegTSNE, catalogue
    >>> class Sharper(NegTSNE):
    ...     nu: float | None = 0.1
    >>> catalogue.register(Sharper, command="sharper") is Sharper
    True
    """
    qualified = qualified_name(cls)
    entry = Entry(cls.__name__, cls.__module__, command, loss or command, is_public=False)
    for other in entries():
        same = other.name == entry.name and other.module == entry.module
        taken = {name for name in (entry.command, entry.loss) if name and name in (other.command, other.loss)}
        if taken and not same:
            raise ValueError(f"{', '.join(sorted(taken))} is the name of {other.name} already; choose another.")
    _registered[qualified], _registered_classes[qualified] = entry, cls
    return cls


def qualified_name(cls: type) -> str:
    """Return the dotted name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def entries() -> Iterator[Entry]:
    """Yield all entries, the registered ones last."""
    yield from _OURS.values()
    yield from _registered.values()


def by_command() -> dict[str, Entry]:
    """Return the methods by their names on the command line."""
    return {entry.command: entry for entry in entries() if entry.command}


def by_loss() -> dict[str, Entry]:
    """Return the methods by the names of their losses."""
    return {entry.loss: entry for entry in entries() if entry.loss}


def public() -> dict[str, Entry]:
    """Return the entries that the top level offers, by name."""
    return {name: entry for name, entry in _OURS.items() if entry.is_public}


def load(entry: Entry) -> type:
    """Return the class of an entry."""
    for qualified, registered in _registered.items():
        if registered is entry:
            return _registered_classes[qualified]
    return entry.load()


def stored_name(cls: type) -> str:
    """Return the name of a class in files: names of our classes are bare, those of others include the module."""
    entry = _OURS.get(cls.__name__)
    return cls.__name__ if entry is not None and entry.load() is cls else qualified_name(cls)


def find_stored(name: str) -> type | None:
    """Return the class that a file names, if it is ours or registered; no other module is imported."""
    entry = _OURS.get(name)
    return entry.load() if entry is not None else _registered_classes.get(name)
