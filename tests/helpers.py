"""What several test files do alike."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torchdr_cne.distributed import Share
from torchdr_cne.objectives.sampled import force_problem
from torchdr_cne.optimization.state import initial_state


def repeated(*values):
    """Return parameters that repeat a property shown with others; `make test-all` tries them."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.repetition)
        for value in values
    ]


def interrupt_at(step, error=KeyboardInterrupt):
    """Return a callback that raises ``error`` at a step."""

    def callback(estimator, done):
        if done == step:
            raise error

    return callback


@contextmanager
def torch_threads(count):
    """Let torch use that many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def state_of(estimator, graph, z, seed, phase, share=None):
    """Return the state in which a fit of ``graph`` begins at ``z``, as the stages of a fit make it."""
    share = Share.whole(graph.n_points) if share is None else share
    return initial_state(graph, z, seed, phase, share, estimator._learned_scalars())


def problem_of(estimator, state, z):
    """Return what a fit's force engine is given, and how many blocks a step draws."""
    return force_problem(estimator._pair_loss(), estimator._drawn_blocks, state, z)


def on_threads(function, counts=(1, 2, 3)):
    """Return what ``function`` gives with each number of torch's threads."""
    found = []
    for count in counts:
        with torch_threads(count):
            found.append(function())
    return found


def loss_and_gradient(make, repulsion, graph, z, *, phase=-1, **options):
    """Return an exact method's loss, NaN where it is never formed, and its gradient (n, d), as a step of a fit does."""
    estimator = make(n_components=z.shape[1], repulsion=repulsion, **options)
    estimator._check_parameters()
    estimator.init = z.numpy()
    state = state_of(estimator, graph, z, 3, estimator._phases(len(z))[phase])
    state.rows = SimpleNamespace(values=torch.linspace(0.1, 2, len(z), dtype=torch.float64).unsqueeze(1))
    objective = estimator._make_objective(state, z)
    objective.compute_gradients(state)
    loss = float(state.losses["loss"]) if state.losses else np.nan
    return loss, objective.to_points(objective.parameter.grad).detach()
