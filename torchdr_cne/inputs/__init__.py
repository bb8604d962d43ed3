"""Functions that turn the user's data into checked rows, and results into the same kind of data."""

from torchdr_cne.inputs.kinds import OutputKind, read_features, read_new_features, read_table
from torchdr_cne.inputs.labels import UNLABELLED, read_labels
from torchdr_cne.inputs.opening import open_rows
from torchdr_cne.inputs.pairs import PositivePairs
from torchdr_cne.inputs.rows import Rows, as_rows, check_finite
from torchdr_cne.inputs.sources import RowSource

__all__ = [
    "OutputKind",
    "PositivePairs",
    "RowSource",
    "Rows",
    "UNLABELLED",
    "as_rows",
    "check_finite",
    "open_rows",
    "read_features",
    "read_labels",
    "read_new_features",
    "read_table",
]
