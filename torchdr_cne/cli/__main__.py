"""``python -m torchdr_cne.cli`` is ``torchdr-cne``."""

import sys

from torchdr_cne.cli import main

sys.exit(main())
