"""The command line: ``torchdr-cne fit``, ``evaluate`` and ``demo``.

There is one file per subcommand. `options` turns arguments into values, `parameters` knows those of the estimators,
and `reading`, `tables` and `writing` handle files. NumPy, torch and matplotlib are imported by the first line
that needs them, so that help, version and a mistyped option get an immediate answer.
"""

from torchdr_cne.cli.entry import main

__all__ = ["main"]
