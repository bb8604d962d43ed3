"""The command line: ``torchdr-cne fit``, ``evaluate`` and ``demo``.

One file a subcommand; `options` turns arguments into values, `fields` knows the estimators' parameters,
`reading`, `tables` and `writing` are the files. NumPy, torch and matplotlib are imported by the first line
that needs them, so that help, version and a mistyped option answer at once.
"""

from torchdr_cne.cli.entry import main

__all__ = ["main"]
