"""Entry point of ``python -m torchdr_cne.cli``, which is the same as ``torchdr-cne``."""

import sys

from torchdr_cne.cli import main

sys.exit(main())
