"""The last stage of a fit: the loop and its result."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from torchdr_cne.distributed import RankError, Signal, listening
from torchdr_cne.fitting.part import InputGraph, Part, Prepared
from torchdr_cne.fitting.result import FitResult
from torchdr_cne.networks.fitting import network_objective
from torchdr_cne.optimization.loop import LoopSettings, Outcome, run
from torchdr_cne.optimization.objective import Objective
from torchdr_cne.optimization.phase import number_phases
from torchdr_cne.optimization.progress import Progress
from torchdr_cne.optimization.snapshot import Snapshot, restore_learned
from torchdr_cne.optimization.state import FitState, initial_state
from torchdr_cne.resources import torch_threads
from torchdr_cne.storage import FormatError


def optimise(prepared: Prepared, graph: InputGraph | None, start_nd: Tensor, part: Part) -> None:
    """Run the loop from ``start_nd``, or from the networks, and publish and save the result."""
    plan, resumed = part.plan, part.checkpoint.resumed
    with listening(part.share.ranks, resumable=plan.options.checkpoint_dir is not None):
        objective, state = _objective(prepared, graph, start_nd, part)
        phases = number_phases(prepared.phases, objective.epoch_length)
        if resumed is not None:
            with _of_this_fit(resumed):
                restore_learned(state, resumed, part.run.device)
                objective.load(resumed.tensors)
        visible = plan.options.visible and part.share.ranks.is_first
        with (
            Progress(phases[-1].stop, plan.name, visible=visible) as progress,
            torch_threads(1) if objective.own_threads else nullcontext(),
        ):
            so_far = replace(part.result(graph), training_rows=prepared.kept)
            watch = _Watch(part, objective, state, so_far, progress)
            outcome = run(objective, state, phases, plan.optimizers, _settings(part), watch, resumed)
        _conclude(watch, outcome, part)


@contextmanager
def _of_this_fit(resumed: Snapshot) -> Iterator[None]:
    """Raise a FormatError if a snapshot lacks tensors of this fit, or has them in other shapes."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise FormatError(
            f"the checkpoint of step {resumed.step} has not the tensors of this fit ({error})."
        ) from error


def _objective(
    prepared: Prepared, graph: InputGraph | None, start_nd: Tensor, part: Part
) -> tuple[Objective, FitState]:
    """Return the objective that the loop minimises, and the state that it carries from step to step."""
    plan, found = part.plan, None if graph is None else graph.graph
    training = None if prepared.training is None else replace(prepared.training, graph=found and found.on_host())
    state = initial_state(
        found if training is None else None,  # networks draw their edges on the host
        start_nd,
        part.seed,
        prepared.phases[0],
        part.share,
        plan.learned(),
    )
    state.rows, state.training = prepared.rows, training
    if training is not None:
        assert plan.networks is not None
        return network_objective(plan.networks, training), state
    assert plan.points is not None
    return plan.points.make_objective(state, start_nd), state


def _settings(part: Part) -> LoopSettings:
    plan = part.plan
    return LoopSettings(
        ranks=part.share.ranks,
        check_interval=plan.options.check_interval,
        # The gradient of a mini-batch may vanish by chance, as that of a classifier does without labelled rows.
        min_grad_norm=0.0 if plan.points is None else plan.points.min_grad_norm,
        constants=plan.reported,
        is_resumable=plan.options.checkpoint_dir is not None,
    )


class _Watch:
    """An observer of the loop that notifies the fit's observer, the progress bar and the checkpoint."""

    def __init__(
        self, part: Part, objective: Objective, state: FitState, so_far: FitResult, progress: Progress
    ) -> None:
        self._part, self._so_far, self._progress = part, so_far, progress
        self.objective, self.state = objective, state

    def before_step(self, outcome: Outcome) -> None:
        self._part.observer.before_step(outcome)

    def after_step(self, outcome: Outcome) -> bool:
        return self._part.observer.after_step(outcome, lambda: self.result(outcome))

    def checked(self, outcome: Outcome, losses: Mapping[str, float]) -> None:
        self._progress(outcome.n_iter, losses)

    def recorded(self, outcome: Outcome) -> None:
        self._part.checkpoint.save(outcome, self.objective, self.state)

    def result(self, outcome: Outcome, embedding_nd: Tensor | None = None) -> FitResult:
        """Return the result of the fit so far."""
        embedding_nd = self.objective.embedding() if embedding_nd is None else embedding_nd
        return replace(
            self._so_far,
            embedding=self._part.given.kind.wrap(embedding_nd),
            n_iter=outcome.n_iter,
            learning_rate=outcome.learning_rate,
            history=outcome.history,
            learned={name: float(value.detach()) for name, value in self.state.learned.items()},
            networks=dict(self.objective.networks.items()),
        )


def _conclude(watch: _Watch, outcome: Outcome, part: Part) -> None:
    """Publish and save the result; an embedding that is not finite is an error."""
    objective, state, ranks = watch.objective, watch.state, part.share.ranks
    embedding_nd = objective.embedding()
    if not bool(torch.isfinite(embedding_nd).all()):
        raise FloatingPointError(
            f"the embedding became NaN or infinite by iteration {outcome.n_iter} with learning rate "
            f"{outcome.learning_rate:.4g}; lower learning_rate, or check the loss hooks of a method of your own."
        )
    result = watch.result(outcome, embedding_nd)
    if state.training is not None:
        state.training.release()
    result = replace(result, extras={**result.extras, **part.plan.conclude(objective, state)})
    part.observer.publish(result)
    part.checkpoint.finish(outcome, objective, state)
    if Signal.PREEMPTED in outcome.signal and Signal.PREEMPTED not in ranks.signal:
        raise RankError(
            f"another rank was told to leave by SIGTERM; the fit is saved after {outcome.n_iter} iterations in "
            f"{part.plan.options.checkpoint_dir} and goes on from there when it is begun again."
        )
