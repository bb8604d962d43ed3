"""The entry point of the command line, which turns arguments into an exit code."""

import importlib
import sys
import warnings
from collections.abc import Sequence

from torchdr_cne import __version__
from torchdr_cne.catalogue import by_command
from torchdr_cne.cli.launching import rank
from torchdr_cne.cli.messages import FitError, UsageError, choose, show, tell, warnings_as_lines

_READER_LEFT = 141
SUBCOMMANDS = ("fit", "evaluate", "demo")

HELP = f"""\
usage: torchdr-cne {{{",".join(SUBCOMMANDS)}}} ... | --version | --help

Contrastive neighbour embeddings: a table of rows in, an embedding out.

subcommands:
  fit       embed a file
  evaluate  judge an embedding against its data
  demo      embed handwritten digits with five methods, and compare them

methods of fit: {", ".join(by_command())}, or a class of your own as module:Class

examples:
  torchdr-cne fit data.npy --method umap --output embedding.npy --plot embedding.png --labels labels.npy
  torchdr-cne evaluate data.npy embedding.npy --labels labels.npy
  torchdr-cne demo --output demo

`torchdr-cne fit --method umap --help` lists the options of that method.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str or None, default=None
        Arguments without the name of the program; None takes those of the process.

    Returns
    -------
    int
        0 on success; 1 if the optimisation diverged, memory or the disk ran out, or a worker process failed; 2 if
        arguments or files cannot be used; 130 if interrupted before there was a result; 141 if the reader of the
        output has left; 143 if workers were ended by SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        own_rank = rank()
    except UsageError:  # a fit will refuse it, and nothing else depends on it
        own_rank = 0
    speaker = f"error (rank {own_rank})" if own_rank else "error"
    try:
        with warnings_as_lines(silent=own_rank > 0):
            return _dispatch(arguments)
    except UsageError as error:
        tell(f"{speaker}: {error}")
        return 2
    except (FitError, FloatingPointError) as error:
        tell(f"{speaker}: {error}")
        return 1
    except MemoryError as error:
        tell(f"{speaker}: out of memory ({error}); embed fewer rows or columns")
        return 1
    except BrokenPipeError:
        return _READER_LEFT
    except OSError as error:
        tell(f"{speaker}: {error}")
        return 1
    except KeyboardInterrupt:
        tell("interrupted")
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        raise UsageError(f"no subcommand given; choose one of {', '.join(SUBCOMMANDS)}, or see --help")
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        show(HELP.rstrip("\n"))
    elif name == "--version":
        show(f"torchdr-cne {__version__}")
    elif name in SUBCOMMANDS:
        subcommand = importlib.import_module(f"torchdr_cne.cli.{name}")
        values = subcommand.read(rest)
        if values is None:
            return 0
        if values.quiet:
            warnings.simplefilter("ignore")
        return subcommand.run(values, rest) or 0
    else:
        known = [*SUBCOMMANDS, "--help", "--version"]
        raise UsageError(f"unknown subcommand {name!r}; {choose(name, known)}")
    return 0
