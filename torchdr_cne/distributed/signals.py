"""SIGTERM and Ctrl-C as wishes that all ranks agree on between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchdr_cne.distributed.ranks import Ranks, Signal


@contextmanager
def listening(ranks: Ranks, *, preemptible: bool) -> Iterator[None]:
    """Turn signals into ``ranks.signal`` within the block; a SIGTERM is passed on at its end.

    Parameters
    ----------
    ranks : Ranks
        Receives the wish.
    preemptible : bool
        Whether there is something to save before SIGTERM ends the process.
    """
    wishes = {signal.SIGTERM: Signal.PREEMPTED} if preemptible else {}
    if ranks.size > 1:  # where one rank may not leave alone
        wishes[signal.SIGINT] = Signal.INTERRUPTED
    if threading.current_thread() is not threading.main_thread():
        wishes = {}

    def wish(number: int, frame: Any) -> None:
        ranks.signal |= wishes[signal.Signals(number)]

    before = {number: signal.signal(number, wish) for number in wishes}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if Signal.PREEMPTED in ranks.signal:
        signal.raise_signal(signal.SIGTERM)
