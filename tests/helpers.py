"""What several test files do alike."""

import torch


def interrupt_at(step, error=KeyboardInterrupt):
    """Return a callback that raises ``error`` at a step."""

    def callback(estimator, done):
        if done == step:
            raise error

    return callback


def on_threads(function, counts=(1, 2, 3)):
    """Return what ``function`` gives with each number of torch's threads."""
    before = torch.get_num_threads()
    try:
        return [(torch.set_num_threads(count), function())[1] for count in counts]
    finally:
        torch.set_num_threads(before)
