"""``torchdr-cne fit``: embed a file."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torchdr_cne.catalogue import by_command
from torchdr_cne.cli.configuration import read_config, shown
from torchdr_cne.cli.launching import is_worker, launch, rank, world_size
from torchdr_cne.cli.messages import FitError, UsageError, closest, library_errors, tell
from torchdr_cne.cli.options import LABELS, QUIET, Command, Option, scan
from torchdr_cne.cli.parameters import estimator_class, options_of

_FILE_OPTIONS = (
    Option("output", "str | None", help="Where the embedding goes: npy, npz, csv or parquet.", metavar="FILE"),
    Option("plot", "str | None", help="Picture of the embedding: png, pdf or svg.", metavar="FILE"),
    *LABELS,
    Option("graph", "str | None", help="Affinity graph (sparse npz) that replaces the search.", metavar="FILE"),
    Option("save-graph", "str | None", help="Where the affinity graph goes: npz.", metavar="FILE"),
    Option("config", "str | None", help="YAML file of options; the command line overrides it.", metavar="FILE"),
    QUIET,
)
_PROCESS_OPTIONS = (
    Option("nproc-per-node", "int | None", None, "Processes of this machine that fit together, under torchrun."),
    Option("max-restarts", "int", 0, "How often they start again, from a checkpoint, after one has failed."),
)


def read(tokens: Sequence[str]) -> Any:
    """Return the values that ``tokens`` and the configuration file set; None if the user asked for the help."""
    config_file = scan(tokens, "config")
    config = {} if config_file is None else read_config(config_file)
    method = scan(tokens, "method") or config.get("method", "negtsne")
    if not isinstance(method, str):
        raise UsageError(f"method in the configuration is {shown(method)} and needs a NAME")
    return _command(method).parse(tokens, config)


def run(values: Any, tokens: Sequence[str]) -> int:
    """Embed a file, in this process or in several that also receive ``tokens``, and return the exit code."""
    parameters = {name: getattr(values, name) for name in options_of(values.method)}
    if values.nproc_per_node is None:
        _fit(values.method, values, parameters)
        return 0
    _check_launch(values, parameters)
    # Repeated at the end, the option is undone for the workers, wherever else it may be.
    return launch(["fit", *tokens, "--nproc-per-node=null"], values.nproc_per_node, values.max_restarts)


def _fit(method: str, values: Any, parameters: dict[str, Any]) -> None:
    """Read, embed, write and report; under a launcher only the first rank writes and reports."""
    is_first = rank() == 0
    _check_graph_is_whole(values, parameters, world_size())
    targets = _targets(values, parameters) if is_first else {}
    X, labels, graph = _read_inputs(values, parameters)
    start = time.perf_counter()
    with library_errors(), _failures():
        estimator = estimator_class(method)(**parameters, verbose=is_first and not values.quiet)
        estimator.fit(X, graph=graph)
    seconds = time.perf_counter() - start
    _write(estimator, method, labels, targets)
    if is_first and not values.quiet:
        n, f = X.shape
        written = ", ".join(str(path) for path in targets.values())
        tell(
            f"{method.rpartition(':')[2]}: embedded {n} rows of {f} columns in {seconds:.1f} s, "
            f"{estimator.n_iter_} iterations; wrote {written}"
        )


def _command(method: str) -> Command:
    methods = f"One of {', '.join(by_command())}, or a class of your own, module:Class; negtsne if not given."
    files = (Option("method", "str", "negtsne", methods, "NAME"), *_FILE_OPTIONS)
    parameters = options_of(method)
    for option in (*files, *_PROCESS_OPTIONS, Option("data", "str")):
        if option.key in parameters:
            raise UsageError(f"{method} has a parameter {option.key}, as fit has an option; give it another name")
    return Command(
        name="fit",
        positionals={
            "data": "Rows to embed: npy, npz, csv or parquet; a zarr folder; a folder of npy or parquet files, or a "
            "pattern in quotes."
        },
        groups={
            "files": files,
            "processes": _PROCESS_OPTIONS,
            f"parameters of --method {method}": tuple(parameters.values()),
        },
        description="Embed the rows of a file. Options may be written with dashes or underscores.",
        example="torchdr-cne fit data.npy --method umap --n_neighbors 30 --output embedding.npy",
        explain=partial(_of_another_method, method),
    )


def _of_another_method(method: str, name: str, known: Sequence[str]) -> str | None:
    """Return a message about the methods that have the option ``name``, or one like it; None if there are none."""
    options = {other: options_of(other) for other in by_command()}
    meant = closest(name, {*known, *chain(*options.values())})
    owners = ", ".join(other for other, names in options.items() if meant in names)
    if meant is None or meant in known:
        return None
    if meant == name:
        return f"--{name} is no option of {method} but of {owners}; choose with --method"
    return f"unknown option --{name}; did you mean --{meant}, an option of {owners}?"


def _check_launch(values: Any, parameters: dict[str, Any]) -> None:
    """Raise a UsageError for mistakes that can be seen before any process is started."""
    from torchdr_cne.cli.reading import existing, is_source, open_source

    if is_worker():
        raise UsageError("--nproc-per-node starts processes, and torchrun has started this one; leave it out")
    for option, value, least in (
        ("--nproc-per-node", values.nproc_per_node, 1),
        ("--max-restarts", values.max_restarts, 0),
    ):
        if value < least:
            raise UsageError(f"{option} {value} must be at least {least}")
    _check_graph_is_whole(values, parameters, values.nproc_per_node)
    _targets(values, parameters)
    if is_source(values.data):
        open_source(values.data, key=values.key)
    for name in (None if is_source(values.data) else values.data, values.labels, values.graph):
        if name is not None:
            existing(name)


def _check_graph_is_whole(values: Any, parameters: dict[str, Any], n_processes: int) -> None:
    """Raise a UsageError if the graph that is to be saved might be divided among ranks."""
    if values.save_graph and n_processes > 1 and parameters["distributed"] is not False:
        raise UsageError(
            f"--save-graph needs one process, since each of {n_processes} keeps the graph of its rows only; save the "
            "graph in a run of its own"
        )


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the failure of another rank, or to write a checkpoint, into a `FitError` of one sentence."""
    from torchdr_cne.distributed import RankError

    try:
        yield
    except (RankError, OSError) as error:
        raise FitError(str(error)) from error


def _targets(values: Any, parameters: dict[str, Any]) -> dict[str, Path]:
    """Return the files to write by option, after checking that they can be written."""
    from torchdr_cne.cli.reading import files_read, would_be_read
    from torchdr_cne.cli.writing import EMBEDDING_ENDINGS, FIGURE_ENDINGS, check_name, check_target

    for name in (values.data, values.labels, values.graph):
        if name is not None:
            check_name("the input", Path(name))
    endings = {"output": EMBEDDING_ENDINGS, "plot": FIGURE_ENDINGS, "save-graph": (".npz",)}
    names = {option: getattr(values, option.replace("-", "_")) for option in endings}
    inputs = [*files_read(values.data), values.labels, values.graph, values.config]
    targets = {
        option: check_target(f"--{option}", name, endings[option], inputs)
        for option, name in names.items()
        if name is not None
    }
    for option, path in targets.items():
        if would_be_read(values.data, path):
            raise UsageError(
                f"--{option} {path} would be one of the files that {values.data} stands for; write to another folder"
            )
    if not targets:
        raise UsageError("nothing would be written; give --output, --plot or --save-graph a file")
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise UsageError("--output, --plot and --save-graph name the same file; give each its own")
    if "plot" in targets and parameters.get("n_components", 2) != 2:
        raise UsageError(f"--plot needs n_components=2, got {parameters['n_components']}; leave one of them out")
    return targets


def _read_inputs(values: Any, parameters: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return data, labels and graph; if ``init`` names a file, the first embedding is read into ``parameters``."""
    import scipy.sparse

    from torchdr_cne.cli.reading import ENDINGS, column_of_labels, is_source, labels_of, open_source, read_matrix

    own_labels = column_of_labels(values)
    if is_source(values.data):
        if own_labels:
            raise UsageError(f"{values.data} is no single file to take labels from; save them and give --labels")
        X = open_source(values.data, key=values.key)
    else:
        X = read_matrix(values.data, key=values.key, leave_out=own_labels)
    if scipy.sparse.issparse(X) and parameters.get("affinity_in") != "precomputed":
        raise UsageError(
            f"{values.data} holds a sparse matrix; add --affinity_in precomputed if it is a graph of "
            "affinities, or save its dense rows"
        )
    start = parameters.get("init")
    if isinstance(start, str) and Path(start).suffix in ENDINGS:
        parameters["init"] = read_matrix(start)
    return X, labels_of(values, X.shape[0]), None if values.graph is None else read_matrix(values.graph)


def _write(estimator: Any, method: str, labels: Any, targets: dict[str, Path]) -> None:
    from torchdr_cne.cli.writing import write_embedding, write_figure, write_graph

    if "output" in targets:
        names = [str(name) for name in estimator.get_feature_names_out()]
        write_embedding(targets["output"], estimator.embedding_, names)
    if "save-graph" in targets:
        write_graph(targets["save-graph"], estimator.graph_)
    if "plot" in targets:
        from torchdr_cne.plotting import scatter

        with library_errors():
            figure = scatter(estimator.embedding_, labels, title=type(estimator).__name__).figure
        write_figure(targets["plot"], figure)
