"""``torchdr-cne fit``: embed a file."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchdr_cne.cli.fields import METHODS, Field, estimator_class, fields_of
from torchdr_cne.cli.launching import is_worker, launch, rank, world_size
from torchdr_cne.cli.messages import FitError, UsageError, choose, closest, library_errors, tell
from torchdr_cne.cli.options import Command
from torchdr_cne.cli.tokens import Option, read_config, scan

_FILE_OPTIONS = (
    Option("output", str | None, help="Where the embedding goes: npy, npz, csv or parquet.", metavar="FILE"),
    Option("plot", str | None, help="Picture of the embedding: png, pdf or svg.", metavar="FILE"),
    Option("labels", str | None, help="One label a row, to colour the picture.", metavar="FILE"),
    Option("labels-column", str | None, help="Column of the labels, in LABELS or DATA.", metavar="NAME"),
    Option("labels-key", str | None, help="npz array of the labels, in LABELS or DATA.", metavar="NAME"),
    Option("key", str | None, help="Array of an npz file or zarr group; by default the only one.", metavar="NAME"),
    Option("graph", str | None, help="Affinity graph (sparse npz) that replaces the search.", metavar="FILE"),
    Option("save-graph", str | None, help="Where the affinity graph goes: npz.", metavar="FILE"),
    Option("config", str | None, help="YAML file of options; the command line overrides it.", metavar="FILE"),
    Option("quiet", None, help="No progress bar, no warnings, no summary."),
)
_PROCESS_OPTIONS = (
    Option("nproc-per-node", int | None, None, "Processes of this machine that fit together, under torchrun."),
    Option("max-restarts", int, 0, "How often they start again, from a checkpoint, after one has failed."),
)
_TYPES = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "None": None,
    "Backend": str,
    "Mapping[str, Any]": dict[str, Any],
}
_TYPES_OF_ANY = {"init": str, "random_state": int | None}


def run(tokens: Sequence[str]) -> int:
    """Embed a file as ``tokens`` say, in this process or in several, and return the exit code."""
    config_file = scan(tokens, "config")
    config = {} if config_file is None else read_config(config_file)
    method = scan(tokens, "method") or config.get("method", "negtsne")
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; {choose(str(method), METHODS)}")
    fields = _field_options(method)
    command = _command(method, list(fields.values()))
    _check_method_has(method, command, [*config, *_names_in(tokens)])
    values = command.parse(tokens, config)
    if values is None:
        return 0
    parameters = {name: values[name] for name in fields}
    if values.nproc_per_node is None:
        _fit(method, values, parameters)
        return 0
    _check_launch(values, parameters)
    # Said again at the end, the option is undone for the workers, wherever else it stands.
    return launch(["fit", *tokens, "--nproc-per-node=null"], values.nproc_per_node, values.max_restarts)


def _fit(method: str, values: Any, parameters: dict[str, Any]) -> None:
    """Read, embed, write and report; of the ranks of a launcher the first one writes and reports."""
    is_first = rank() == 0
    _check_graph_is_whole(values, parameters, world_size())
    targets = _targets(values, parameters["n_components"]) if is_first else {}
    X, labels, graph = _read_inputs(values, parameters)
    start = time.perf_counter()
    with library_errors(), _failures():
        estimator: Any = estimator_class(method)(**parameters, verbose=is_first and not values.quiet)
        _check_device(parameters["device"])
        estimator.fit(X, graph=graph)
    seconds = time.perf_counter() - start
    _write(estimator, method, labels, targets)
    if is_first and not values.quiet:
        n, f = X.shape
        written = ", ".join(str(path) for path in targets.values())
        tell(
            f"{method}: embedded {n} rows of {f} columns in {seconds:.1f} s, {estimator.n_iter_} iterations; "
            f"wrote {written}"
        )


def _command(method: str, field_options: list[Option]) -> Command:
    choice = Option("method", str, "negtsne", f"One of {', '.join(METHODS)}; negtsne if not given.", "NAME")
    return Command(
        name="fit",
        positionals={
            "data": "Rows to embed: npy, npz, csv or parquet; a zarr folder; a folder of npy or parquet files, or a "
            "pattern in quotes."
        },
        groups={
            "files": (choice, *_FILE_OPTIONS),
            "processes": _PROCESS_OPTIONS,
            f"parameters of {METHODS[method][1]} (--method {method})": field_options,
        },
        description="Embed the rows of a file. Options may be written with dashes or underscores.",
        example="torchdr-cne fit data.npy --method umap --n_neighbors 30 --output embedding.npy",
    )


def _field_options(method: str) -> dict[str, Option]:
    """Return an option for every field that text can express."""
    typed = {field: _option_type(field) for field in fields_of(method).values() if field.name != "verbose"}
    return {
        field.name: Option(field.name, kind, field.default, field.doc)
        for field, kind in typed.items()
        if kind is not None
    }


def _option_type(field: Field) -> Any:
    """Return what of a field's type can be typed in: None if nothing can."""
    members = [_TYPES[member] for member in field.annotation.split(" | ") if member in _TYPES]
    scalars = [member for member in members if member is not None]
    kind: Any = _TYPES_OF_ANY.get(field.name) if field.annotation == "Any" else None
    for scalar in scalars:
        kind = scalar if kind is None else kind | scalar
    return kind | None if kind is not None and None in members else kind


def _names_in(tokens: Sequence[str]) -> list[str]:
    return [token[2:].partition("=")[0].replace("-", "_") for token in tokens if token.startswith("--")]


def _check_method_has(method: str, command: Command, names: Sequence[str]) -> None:
    """Tell an option of another method from a mistyped one."""
    for name in (name for name in names if name not in command.options):
        options = {other: _field_options(other) for other in METHODS}
        meant = closest(name, {*command.options, *(key for known in options.values() for key in known)})
        owners = ", ".join(other for other, known in options.items() if meant in known)
        if meant == name:
            raise UsageError(f"--{name} is no option of {method} but of {owners}; choose with --method")
        if meant is not None and meant not in command.options:
            raise UsageError(f"unknown option --{name}; did you mean --{meant}, an option of {owners}?")


def _check_launch(values: Any, parameters: dict[str, Any]) -> None:
    """Raise a UsageError for what can be seen before any process is started."""
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
    _targets(values, parameters["n_components"])
    if is_source(values.data):
        open_source(values.data, key=values.key)
    for name in (None if is_source(values.data) else values.data, values.labels, values.graph):
        if name is not None:
            existing(name)


def _check_graph_is_whole(values: Any, parameters: dict[str, Any], n_processes: int) -> None:
    """Raise a UsageError if the graph to save might be spread over the ranks."""
    if values.save_graph and n_processes > 1 and parameters["distributed"] is not False:
        raise UsageError(
            f"--save-graph needs one process, since each of {n_processes} keeps the graph of its rows only; save the "
            "graph in a run of its own"
        )


@contextmanager
def _failures() -> Iterator[None]:
    """Say in one sentence that another rank has failed, or that a checkpoint could not be written."""
    from torchdr_cne.distributed import RankError

    try:
        yield
    except (RankError, OSError) as error:
        raise FitError(str(error)) from error


def _targets(values: Any, n_components: int) -> dict[str, Path]:
    """Return the files to write by option, checked before any work."""
    from torchdr_cne.cli.reading import files_read
    from torchdr_cne.cli.writing import EMBEDDING_ENDINGS, FIGURE_ENDINGS, check_target

    endings = {"output": EMBEDDING_ENDINGS, "plot": FIGURE_ENDINGS, "save-graph": (".npz",)}
    names = {option: values[option.replace("-", "_")] for option in endings}
    inputs = [*files_read(values.data), values.labels, values.graph, values.config]
    targets = {
        option: check_target(f"--{option}", name, endings[option], inputs)
        for option, name in names.items()
        if name is not None
    }
    if not targets:
        raise UsageError("nothing would be written; give --output, --plot or --save-graph a file")
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise UsageError("--output, --plot and --save-graph name the same file; give each its own")
    if "plot" in targets and n_components != 2:
        raise UsageError(f"--plot needs n_components=2, got {n_components}; leave one of them out")
    return targets


def _read_inputs(values: Any, parameters: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return data, labels and graph; a start in a file is read into ``parameters``."""
    import scipy.sparse

    from torchdr_cne.cli.reading import ENDINGS, is_source, open_source, read_labels, read_matrix

    own_labels = None if values.labels else values.labels_column or values.labels_key
    if is_source(values.data):
        if own_labels:
            raise UsageError(f"{values.data} is no single file to take labels from; save them and give --labels")
        X = open_source(values.data, key=values.key)
    else:
        X = read_matrix(values.data, key=values.key, leave_out=own_labels)
    if scipy.sparse.issparse(X) and parameters["affinity_in"] != "precomputed":
        raise UsageError(
            f"{values.data} holds a sparse matrix; add --affinity_in precomputed if it is a graph of "
            "affinities, or save its dense rows"
        )
    labels = None
    if values.labels or own_labels:
        source = values.labels or values.data
        labels = read_labels(source, X.shape[0], key=values.labels_key, column=values.labels_column)
    if Path(parameters["init"]).suffix in ENDINGS:
        parameters["init"] = read_matrix(parameters["init"])
    return X, labels, None if values.graph is None else read_matrix(values.graph)


def _check_device(device: str) -> None:
    """Raise a UsageError unless torch can compute on ``device``."""
    import torch

    if device != "auto":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            problem = str(error).splitlines()[0]
            raise UsageError(f"--device {device} cannot be used: {problem}; use auto or cpu") from error


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
            figure = scatter(estimator.embedding_, labels, title=METHODS[method][1]).figure
        write_figure(targets["plot"], figure)
