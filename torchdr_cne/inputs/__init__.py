"""From whatever the user holds to checked rows, and back to the user's kind of output."""

from torchdr_cne.inputs.kinds import OutputKind, read_features, read_table
from torchdr_cne.inputs.rows import Rows, as_rows, check_finite

__all__ = ["OutputKind", "Rows", "as_rows", "check_finite", "read_features", "read_table"]
