"""What torchrun starts in every process: ``torchdr-cne fit`` with the arguments that follow.

RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, which torchrun sets, are read by the library: its ``fit``
joins the other processes by itself, and rank 0 writes the output.
"""

import sys

from torchdr_cne.cli import main

if __name__ == "__main__":
    sys.exit(main(["fit", *sys.argv[1:]]))
