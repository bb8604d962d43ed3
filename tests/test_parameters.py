"""Every parameter of the base classes does what its description says."""

import inspect
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from tests.helpers import repeated, torch_threads
from torchdr_cne import PACMAP, UMAP, InfoTSNE, LargeVis, NCVis, NegativeSamplingNeighborEmbedding, NegTSNE
from torchdr_cne.affinity import EntropicAffinity, UMAPAffinity, UnionAffinity
from torchdr_cne.similarities import CosineExp

METHODS = [UMAP, NegTSNE, NCVis, InfoTSNE]
EVERY_METHOD = [*METHODS, LargeVis, PACMAP]
X, Y = load_digits(return_X_y=True)
X = X[:500].astype(np.float32)


def fit(method=NegTSNE, **options):
    return method(**{"random_state": 0, "max_iter": 60, "check_interval": 1, **options}).fit(X)


@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
def test_a_named_scheduler_really_decays_the_learning_rate(gradient):
    falling = fit(gradient=gradient).history_["learning_rate"]
    constant = fit(gradient=gradient, scheduler=None).history_["learning_rate"]
    assert len(set(constant)) == 1
    np.testing.assert_allclose(falling, constant[0] * (1 - np.arange(60) / 60), rtol=1e-9)
    cosine = fit(gradient=gradient, scheduler="CosineAnnealingLR").history_["learning_rate"]
    np.testing.assert_allclose(cosine, constant[0] * (1 + np.cos(np.pi * np.arange(60) / 60)) / 2, rtol=1e-6)


def test_scheduler_keywords_and_classes_are_used():
    step = torch.optim.lr_scheduler.StepLR
    rates = fit(scheduler=step, scheduler_kwargs={"step_size": 20, "gamma": 0.1}).history_["learning_rate"]
    np.testing.assert_allclose(rates[::20], rates[0] * np.array([1, 0.1, 0.01]))


def test_the_schedule_runs_on_across_the_end_of_early_exaggeration():
    estimator = fit(InfoTSNE, early_exaggeration_iter=30)
    rates = np.array(estimator.history_["learning_rate"])
    base = 0.2 * InfoTSNE._base_learning_rate  # the least share, as 500 points are few
    np.testing.assert_allclose(rates[:30], base / 4 * (1 - np.arange(30) / 60), rtol=1e-9)
    np.testing.assert_allclose(rates[30:], base * (1 - np.arange(30, 60) / 60), rtol=1e-9)


def test_momentum_rises_when_early_exaggeration_ends(monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        seen.append(self.param_groups[0]["momentum"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    fit(InfoTSNE, early_exaggeration_iter=20)
    assert seen == [0.5] * 20 + [0.8] * 40


@pytest.mark.parametrize("optimizer", ["Adam", torch.optim.AdamW, "RMSprop"])
def test_other_optimisers_improve_the_embedding(optimizer):
    from torchdr_cne.evaluation import knn_accuracy

    estimator = fit(optimizer=optimizer, learning_rate=0.3, init="random", max_iter=200)
    assert knn_accuracy(estimator.embedding_, Y[:500]) > 0.85


def test_optimizer_keywords_are_used_and_wrong_ones_are_refused():
    plain = fit(optimizer_kwargs={"momentum": 0.0}).embedding_
    assert not np.array_equal(plain, fit(optimizer_kwargs={"momentum": 0.9}).embedding_)
    assert np.array_equal(plain, fit(optimizer_kwargs=None).embedding_)
    with pytest.raises(ValueError, match="optimizer_kwargs=.*momentun.* do not fit"):
        fit(optimizer_kwargs={"momentun": 0.9})


def test_a_given_learning_rate_is_used_as_it_is_and_auto_is_divided_by_the_exaggeration():
    assert fit(exaggeration=4.0).learning_rate_ == pytest.approx(fit().learning_rate_ / 4)
    assert fit(exaggeration=4.0, learning_rate=0.3).learning_rate_ == 0.3


def test_exaggeration_and_repulsion_strength_are_inverse_to_each_other():
    """ρ · attraction + repulsion at rate lr/ρ is attraction + repulsion/ρ at rate lr."""
    options = {"init_scaling": 1.0, "min_grad_norm": 0.0}
    by_attraction = fit(exaggeration=2.0, learning_rate=0.5, **options).embedding_
    by_repulsion = fit(repulsion_strength=0.5, learning_rate=1.0, **options).embedding_
    np.testing.assert_allclose(by_attraction, by_repulsion, atol=5e-3 * np.abs(by_repulsion).max())
    assert fit(repulsion_strength=0.1).embedding_.std() < 0.8 * fit().embedding_.std()


def test_early_exaggeration_runs_for_the_given_iterations_only():
    none = fit(early_exaggeration=1.0).embedding_
    assert np.array_equal(none, fit(early_exaggeration=12.0, early_exaggeration_iter=0).embedding_)
    tight = fit(early_exaggeration=12.0, early_exaggeration_iter=60).embedding_
    assert tight.std() < none.std()


def test_infotsne_and_negtsne_start_at_the_attractive_end_of_the_spectrum():
    phases = InfoTSNE(max_iter=300)._phases(70_000)
    assert [(p.start, p.stop, p.exaggeration) for p in phases] == [(0, 60, 4.0), (60, 300, 1.0)]
    phases = NegTSNE(nu=0.01, max_iter=300)._phases(70_000)
    assert [(p.start, p.stop) for p in phases] == [(0, 60), (60, 300)]
    assert [p.parameters["log_nu"] for p in phases] == pytest.approx([0.0, np.log(0.01)])
    assert len(NegTSNE()._phases(70_000)) == 1
    assert len(UMAP()._phases(70_000)) == 1


def test_a_small_gradient_stops_the_fit_at_a_check():
    assert fit(min_grad_norm=1e6, check_interval=7).n_iter_ == 7
    assert fit(min_grad_norm=0.0, check_interval=7).n_iter_ == 60


def test_init_scaling_sets_the_first_embeddings_spread():
    seen = []
    for scaling in (1e-4, 3.0):
        fit(init_scaling=scaling, learning_rate=1e-12, callbacks=lambda e, _: seen.append(e.embedding_.std(0).max()))
    assert seen[0] == pytest.approx(1e-4, rel=1e-3)
    assert seen[-1] == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_tiny_start_is_left(method):
    from torchdr_cne.evaluation import knn_accuracy

    estimator = method(init_scaling=1e-4, random_state=0).fit(X)
    assert estimator.embedding_.std() > 1
    assert knn_accuracy(estimator.embedding_, Y[:500]) > 0.9


def test_negatives_per_row_changes_the_noise_and_not_the_objective():
    few = fit(negatives_per_row=64, max_iter=300).embedding_.std()
    many = fit(negatives_per_row=448, max_iter=300).embedding_.std()
    assert few == pytest.approx(many, rel=0.1)
    odds = fit(n_negatives=50, max_iter=300).embedding_.std()
    assert odds > 1.2 * few


@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
def test_discard_neighbors_spares_neighbours_their_repulsion(gradient):
    options = {"gradient": gradient, "n_neighbors": 60, "max_iter": 200}
    assert fit(discard_neighbors=True, **options).embedding_.std() != fit(**options).embedding_.std()


def test_discarding_all_others_is_refused():
    with pytest.raises(ValueError, match="discard_neighbors=True leaves a point without any negative"):
        NegTSNE(discard_neighbors=True).fit(X[:12], graph=np.ones((12, 12)) - np.eye(12))


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_graph_is_reused_without_changing_the_answer(method, monkeypatch):
    first = fit(method)
    monkeypatch.setattr("torchdr_cne.affinity.base.neighbors_of_rows", lambda *a, **k: pytest.fail("searched again"))
    again = method(random_state=0, max_iter=60, check_interval=1).fit(X, graph=first.graph_)
    np.testing.assert_allclose(again.embedding_, first.embedding_, atol=1e-4 * np.abs(first.embedding_).max())


def test_a_precomputed_affinity_takes_the_place_of_the_data():
    graph = fit().graph_
    by_graph = NegTSNE(affinity_in="precomputed", random_state=0).fit(graph)
    dense = NegTSNE(affinity_in="precomputed", random_state=0).fit(graph.toarray())
    assert by_graph.n_features_in_ == 500
    np.testing.assert_array_equal(by_graph.embedding_, dense.embedding_)
    from torchdr_cne.evaluation import knn_accuracy

    assert knn_accuracy(by_graph.embedding_, Y[:500]) > 0.9


@pytest.mark.parametrize("affinity", [UnionAffinity(n_neighbors=5), UMAPAffinity(), EntropicAffinity(perplexity=10)])
def test_any_affinity_can_be_given(affinity):
    estimator = fit(affinity_in=affinity)
    expected = affinity(X).to_scipy()
    np.testing.assert_allclose(estimator.graph_.toarray(), expected.toarray(), rtol=1e-6)
    assert clone(estimator).affinity_in.get_params() == affinity.get_params()


def test_the_scale_of_the_affinities_does_not_matter():
    graph = fit().graph_
    options = {"random_state": 0, "max_iter": 60}
    small = NegTSNE(**options).fit(X, graph=graph * 1e-6).embedding_
    np.testing.assert_allclose(small, NegTSNE(**options).fit(X, graph=graph).embedding_, atol=1e-3)


@pytest.mark.parametrize("method", [NegTSNE, InfoTSNE, *repeated(UMAP, NCVis)])
def test_cosine_similarity_works_through_the_hooks(method):
    from torchdr_cne.evaluation import knn_accuracy

    estimator = method(
        n_components=3, similarity=CosineExp(0.5), random_state=0, max_iter=200, init_scaling=1.0, learning_rate=0.3
    ).fit(X)
    assert np.isfinite(estimator.embedding_).all()
    directions = estimator.embedding_ / np.linalg.norm(estimator.embedding_, axis=1, keepdims=True)
    assert knn_accuracy(directions, Y[:500]) > 0.8


def test_callbacks_see_the_current_embedding_and_can_stop():
    seen = []

    def watch(estimator, step):
        assert estimator.n_iter_ == step
        seen.append(estimator.embedding_.copy())
        return step == 5

    estimator = fit(callbacks=[watch])
    assert estimator.n_iter_ == len(seen) == 5
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[-1], estimator.embedding_)


def test_lifecycle_hooks_are_called_in_order():
    calls = []

    class Watched(NegTSNE):
        def on_affinity_computation_start(self):
            calls.append("affinity start")

        def on_affinity_computation_end(self):
            calls.append(f"affinity end {self.graph_.shape}")

        def on_training_step_start(self):
            calls.append(f"step start {self.n_iter_}")

        def on_training_step_end(self):
            calls.append(f"step end {self.n_iter_}")

    fit(Watched, max_iter=2)
    assert calls == [
        "affinity start",
        "affinity end (500, 500)",
        "step start 0",
        "step end 1",
        "step start 1",
        "step end 2",
    ]


def test_the_loss_may_be_overridden_as_a_whole():
    class Quadratic(NegTSNE):
        """Pulls everything to the unit circle."""

        def _compute_loss(self, embedding_nd, state):
            return (embedding_nd.square().sum(1) - 1).square().sum()

    estimator = Quadratic(random_state=0, learning_rate=0.01, max_iter=200, init_scaling=1.0).fit(X)
    np.testing.assert_allclose(np.linalg.norm(estimator.embedding_, axis=1), 1, atol=1e-2)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_ctrl_c_leaves_a_fitted_estimator(method):
    def interrupt(estimator, step):
        if step == 10:
            signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    with pytest.warns(UserWarning, match="interrupted after 1[01] iterations"):
        estimator = fit(method, callbacks=interrupt)
    assert estimator.embedding_.shape == (500, 2)
    assert estimator.n_iter_ in (10, 11)
    resumed = method(init=estimator.embedding_, max_iter=5, random_state=0).fit(X)
    assert np.isfinite(resumed.embedding_).all()


def test_a_diverging_fit_names_the_iteration_and_the_learning_rate():
    class Exploding(NegTSNE):
        def _compute_attractive_loss(self, pairs):
            return torch.exp(1e4 * (1 - pairs.log_q_edges))

    with pytest.raises(FloatingPointError, match=r"at iteration 0 with learning rate 0\.5"):
        Exploding(learning_rate=0.5, random_state=0).fit(X)


def test_an_overridden_hook_never_meets_the_inherited_forces():
    class Changed(NegTSNE):
        def _compute_repulsive_loss(self, pairs):
            return 2 * super()._compute_repulsive_loss(pairs)

    with pytest.raises(ValueError, match="_compute_repulsive_loss is overridden below"):
        fit(Changed, gradient="pairwise")
    assert fit(Changed).embedding_.std() > fit(gradient="autograd").embedding_.std()


def test_forgetting_a_hook_is_an_error_at_construction():
    class Half(NegativeSamplingNeighborEmbedding):
        def _compute_attractive_loss(self, pairs):
            return -pairs.log_q_edges

    with pytest.raises(TypeError, match="abstract.*_compute_repulsive_loss"):
        Half()


def test_overriding_a_default_without_annotation_is_refused():
    with pytest.raises(TypeError, match="overrides max_iter without a type annotation"):
        type("Silent", (NegTSNE,), {"max_iter": 7})


def test_a_default_is_changed_in_one_line():
    class Long(NegTSNE):
        max_iter: int = 777

    assert Long().max_iter == 777
    assert NegTSNE().max_iter != 777
    assert clone(Long(s=0.5)).get_params()["s"] == 0.5


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda self, pairs: pairs.log_q_edges.mean(), "one value per edge"),
        (lambda self, pairs: -pairs.log_q_edges[:, None], "one value per edge"),
    ],
)
def test_a_reduced_attraction_is_refused(loss, match):
    bad = type("Bad", (NegTSNE,), {"_compute_attractive_loss": loss})
    with pytest.raises(ValueError, match=match):
        fit(bad)


def test_a_reduced_repulsion_is_refused():
    bad = type("Bad", (NegTSNE,), {"_compute_repulsive_loss": lambda self, pairs: pairs.log_q_negatives.sum()})
    with pytest.raises(ValueError, match="_compute_repulsive_loss must return shape"):
        fit(bad)


def test_both_versions_of_the_example_method_give_the_same_kind_of_map():
    from torchdr_cne.evaluation import knn_accuracy

    examples = load_example("new_method")
    for method in (examples.SquaredRepulsion, examples.FastSquaredRepulsion):
        estimator = method(random_state=0).fit(X)
        assert (estimator._why_not_forces() == "") == (method is examples.FastSquaredRepulsion)
        assert knn_accuracy(estimator.embedding_, Y[:500]) > 0.9
    lines = inspect.getsource(examples.SquaredRepulsion).splitlines()
    assert len([line for line in lines if line.strip()]) <= 10


def load_example(name):
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", EVERY_METHOD)
@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
def test_double_precision_is_used_throughout(method, gradient):
    estimator = fit(method, dtype="float64", gradient=gradient, max_iter=5)
    assert estimator.embedding_.dtype == np.float64
    assert not np.array_equal(estimator.embedding_, estimator.embedding_.astype(np.float32))


@pytest.mark.parametrize("method", [UMAP, NCVis, InfoTSNE, *repeated(NegTSNE, LargeVis)])
def test_both_ways_to_a_gradient_give_maps_of_the_same_quality(method):
    from torchdr_cne.evaluation import knn_recall, trustworthiness

    by_forces = method(random_state=0).fit(X).embedding_
    by_hooks = method(random_state=0, gradient="autograd", negatives_per_row=64).fit(X).embedding_
    assert trustworthiness(X, by_hooks) == pytest.approx(trustworthiness(X, by_forces), abs=0.01)
    assert knn_recall(X, by_hooks) == pytest.approx(knn_recall(X, by_forces), abs=0.05)


def test_the_spectrum_tightens_monotonically_for_any_number_of_points():
    for n in (50, 400, 499, 501, 10_000, 10**6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            log_nu = [NegTSNE(s=s)._log_nu(n) for s in (-0.5, 0, 0.25, 0.5, 1, 1.5)]
        assert log_nu == sorted(log_nu)
        assert log_nu[4] == 0
    assert NegTSNE(s=0)._log_nu(70_000) == pytest.approx(np.log(5 * 100 * 70_000 / 70_000**2))
    assert NegTSNE(Z_bar=1e6)._log_nu(1000) == pytest.approx(np.log(5.0))
    assert InfoTSNE(s=1)._main_exaggeration() == InfoTSNE(exaggeration=4.0)._main_exaggeration() == 4


def test_a_spectrum_parameter_without_effect_warns():
    with pytest.warns(UserWarning, match="s=0.5 has no effect for n=500 <= 100"):
        fit(s=0.5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"s": 0, "nu": 1.0}, "exclude each other"),
        ({"s": 0, "Z_bar": 1.0}, "exclude each other"),
        ({"nu": -1.0}, "nu=-1.0 must be a number > 0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be 'auto' or a positive number"),
        ({"optimizer": "Newton"}, "optimizer='Newton' is unknown"),
        ({"scheduler": "Lunar"}, "scheduler='Lunar' is unknown"),
        ({"gradient": "fast"}, "gradient='fast' is unknown"),
        ({"max_iter": 0}, "max_iter=0 must be an integer >= 1"),
        ({"n_components": "2"}, "n_components='2' must be an integer >= 1"),
        ({"s": float("nan")}, "s=nan must be a finite number"),
        ({"n_components": None}, "n_components=None must be an integer >= 1"),
        ({"n_neighbors": 2.5}, "n_neighbors=2.5 must be an integer >= 1"),
        ({"scheduler": "ReduceLROnPlateau"}, "needs a metric at each step"),
        ({"optimizer": "LBFGS"}, "needs closures or sparse gradients"),
        ({"affinity_in": np.eye(3)}, "pass an Affinity such as"),
        ({"callbacks": 3}, "callbacks=3 must be a callable"),
        ({"similarity": "cosine"}, "similarity='cosine' must be None or a Similarity"),
        ({"device": "nonsense"}, "device='nonsense' is unknown"),
        ({"init": np.zeros((500, 2))}, "all rows of the init array are equal"),
        ({"exaggeration": 0}, "exaggeration=0 must be a number > 0"),
        ({"n_jobs": 0}, "n_jobs=0 has no meaning"),
        ({"random_state": "seed"}, "random_state='seed' must be None"),
    ],
)
def test_impossible_options_are_refused_before_any_work(options, match):
    with pytest.raises(ValueError, match=match):
        fit(**options)


def test_infotsne_refuses_two_names_for_one_number():
    with pytest.raises(ValueError, match="s=1 and exaggeration=2 exclude each other"):
        fit(InfoTSNE, s=1, exaggeration=2)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the tracer looks at it
def test_the_compiled_definition_gives_the_same_map():
    options = {"gradient": "autograd", "max_iter": 5}
    plain, compiled = fit(**options).embedding_, fit(compile=True, **options).embedding_
    np.testing.assert_allclose(compiled, plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.parametrize("how", ["callback", "Ctrl-C"])
def test_a_fit_that_stops_early_never_hands_out_nan(how):
    class Broken(NegTSNE):
        def _compute_attractive_loss(self, pairs):
            return pairs.log_q_edges * float("nan")

    def stop(estimator, step):
        if how == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        return step == 3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(FloatingPointError, match="became NaN or infinite"):
            fit(Broken, callbacks=stop, check_interval=50)


@pytest.mark.parametrize("hook", ["_loss_of_pairs", "_force_parameters", "_learned_scalars"])
def test_forces_are_not_trusted_below_any_hook_they_depend_on(hook):
    changed = type("Changed", (NCVis,), {hook: lambda self, *args: getattr(NCVis, hook)(self, *args)})
    assert f"{hook} is overridden below" in changed()._why_not_forces()


def test_forces_must_cover_the_learned_scalars():
    class Two(NCVis):
        def _learned_scalars(self):
            return {"log_z": 0.0, "other": 3.0}

        def _pair_forces(self):
            return NCVis._pair_forces(self)

    assert "derivatives for 1 of 2 learned scalars" in Two()._why_not_forces()


def test_points_without_an_edge_are_named():
    graph = fit().graph_.tolil()
    graph[7, :] = 0
    graph[:, 7] = 0
    with pytest.warns(UserWarning, match="1 rows of the input graph have no edge, first row 7"):
        NegTSNE(random_state=0, max_iter=5).fit(X, graph=graph.tocsr())


@pytest.mark.parametrize("make", [lambda: CosineExp(0), lambda: UMAP(a=-1.0, b=1.0).fit(X)])
def test_an_impossible_similarity_is_refused(make):
    with pytest.raises(ValueError, match="must be a positive number"):
        make()


@pytest.mark.parametrize("gradient", ["pairwise", "autograd"])
def test_more_negatives_than_points_are_cut_to_all_others_with_a_warning(gradient):
    options = {"gradient": gradient, "random_state": 0, "max_iter": 20}
    with pytest.warns(UserWarning, match="negatives_per_row=900 is more than the 59 other points"):
        many = NegTSNE(negatives_per_row=900, **options).fit(X[:60]).embedding_
    np.testing.assert_array_equal(many, NegTSNE(negatives_per_row=59, **options).fit(X[:60]).embedding_)


def test_fits_in_threads_of_joblib_use_one_thread_each_and_leave_torchs_number_alone():
    from joblib import Parallel, delayed

    seen = []

    def watch(estimator, step):
        seen.append(torch.get_num_threads())

    def embed(seed):
        return NegTSNE(random_state=seed, max_iter=3, callbacks=watch, gradient="autograd").fit_transform(X[:200])

    with torch_threads(2):
        maps = Parallel(2, backend="threading")(delayed(embed)(seed) for seed in (0, 0, 1))
        assert torch.get_num_threads() == 2
    assert set(seen) == {1}
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_limits_of_threads_that_end_in_any_order_leave_the_first_number():
    from torchdr_cne.resources import torch_threads

    before = torch.get_num_threads()
    first, second = torch_threads(1), torch_threads(3)
    first.__enter__()
    second.__enter__()
    assert torch.get_num_threads() == 3
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 3
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_n_jobs_is_the_number_of_threads_of_every_stage(n_jobs, monkeypatch):
    import faiss

    from torchdr_cne import workers
    from torchdr_cne.forces import compiled
    from torchdr_cne.neighbors import FaissConfig

    monkeypatch.setattr(compiled, "_BLOCKS_WORTH_A_THREAD", 1)
    teams, begin, faiss_threads = [], workers.Workers.__init__, []

    def watch(self, *arguments):
        begin(self, *arguments)
        teams.append(self.n_threads)

    monkeypatch.setattr(workers.Workers, "__init__", watch)
    monkeypatch.setattr(faiss, "omp_set_num_threads", faiss_threads.append)
    data = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    for n_lists in (0, 64):  # FAISS's flat index, and our own scan of lists
        UMAP(n_jobs=n_jobs, max_iter=2, random_state=0, backend=FaissConfig(n_lists=n_lists)).fit(data)
    assert len(teams) >= 5
    assert set(teams) == {n_jobs}
    assert faiss_threads[0] == n_jobs
