"""Whether a launcher, such as torchrun, has started this process as one of several: one answer for all who ask."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MOST_PORTS = 65535


class LaunchError(ValueError):
    """The error that the variables of a launcher are incomplete, or contradict each other."""


@dataclass(frozen=True)
class Launch:
    """What a launcher has told this process.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    address : str
        Host at whose store the processes meet.
    port : int
        Port of the store.
    """

    rank: int
    size: int
    address: str
    port: int

    def __str__(self) -> str:
        values = (self.rank, self.size, self.address, self.port)
        return ", ".join(f"{name}={value}" for name, value in zip(VARIABLES, values, strict=True))


def launch_of(environment: Mapping[str, str] | None = None) -> Launch | None:
    """Return what a launcher has told this process; None if this is the only process.

    RANK=0, WORLD_SIZE=1 or neither of them is one process, whatever other variables there are. Empty variables count
    as missing.

    Parameters
    ----------
    environment : mapping of str to str, default=None
        Variables; None takes those of this process.

    Raises
    ------
    LaunchError
        If the variables speak of several processes, but are incomplete or contradict each other.
    """
    variables = os.environ if environment is None else environment
    given = {name: variables[name] for name in VARIABLES if variables.get(name, "").strip()}
    numbers = {name: whole_number(name, given) for name in ("RANK", "WORLD_SIZE") if name in given}
    rank, size = numbers.get("RANK", 0), numbers.get("WORLD_SIZE")
    if size == 0 or (size is not None and rank >= size):
        raise LaunchError(f"RANK={rank} in the environment is not below WORLD_SIZE={size}; {_remedy(given)}.")
    if rank == 0 and size in (None, 1):
        return None
    missing = [name for name in VARIABLES if name not in given]
    if missing or size is None:
        found = " and ".join(f"{name}={number}" for name, number in numbers.items())
        raise LaunchError(
            f"the environment has {found}, as in one of several processes, but no {', '.join(missing)}; "
            f"{_remedy(given)}."
        )
    port = whole_number("MASTER_PORT", given)
    if not 0 < port <= _MOST_PORTS:
        raise LaunchError(f"MASTER_PORT={port} in the environment is no port, 1 to {_MOST_PORTS}; {_remedy(given)}.")
    return Launch(rank, size, given["MASTER_ADDR"].strip(), port)


def whole_number(name: str, environment: Mapping[str, str]) -> int:
    """Return the whole number >= 0 that a variable of a launcher holds; raise a LaunchError if it holds none."""
    text = environment[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise LaunchError(f"{name}={environment[name]!r} in the environment is no whole number; {_remedy([name])}.")
    return int(text)


def _remedy(names: Mapping[str, str] | list[str]) -> str:
    """Return advice about variables that cannot be used."""
    return f"start all processes with torchrun or, for a fit in one process, unset {', '.join(names)}"
