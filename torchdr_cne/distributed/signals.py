"""SIGTERM and Ctrl-C as requests, on which all ranks agree between two steps."""

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchdr_cne.distributed.ranks import Ranks, Signal


@contextmanager
def listening(ranks: Ranks, *, resumable: bool) -> Iterator[None]:
    """Turn signals into ``ranks.signal`` within the block; a SIGTERM is raised again at its end.

    Parameters
    ----------
    ranks : Ranks
        The ranks whose ``signal`` is set.
    resumable : bool
        Whether the fit is saved before it ends, which is possible only between two steps.
    """
    wishes = {signal.SIGTERM: Signal.PREEMPTED} if resumable else {}
    if resumable or ranks.size > 1:  # no rank may leave alone
        wishes[signal.SIGINT] = Signal.INTERRUPTED
    if threading.current_thread() is not threading.main_thread():
        wishes = {}

    def wish(number: int, frame: Any) -> None:
        asked = wishes[signal.Signals(number)]
        if asked == Signal.INTERRUPTED and asked in ranks.signal:  # for the second time
            raise KeyboardInterrupt
        ranks.signal |= asked

    before = {number: signal.signal(number, wish) for number in wishes}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if Signal.PREEMPTED in ranks.signal:
        signal.raise_signal(signal.SIGTERM)
        warnings.warn(
            "SIGTERM has ended the fit early, and a handler has kept the process; the estimator is fitted with "
            "the embedding so far, and the same fit goes on when it is begun again.",
            UserWarning,
            stacklevel=5,
        )
