"""Imports go one way: each folder may import only those before it, and no files import each other in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import torchdr_cne

PACKAGE = Path(torchdr_cne.__file__).parent
ORDER = """
    storable catalogue launcher overriding checks devices hashing workers resources stable_math sinkhorn _compiler
    _optional simd kernel_cache
    distributed inputs kernels similarities losses
    neighbors affinity
    optimization storage
    initialization sampling
    forces objectives
    encoders networks placement persistence
    fitting
    parameters matching methods memory
    parametric images
    evaluation plotting spectrum cli
""".split()
"""The folders and files of the package, lowest first; a line's are on one storey, but in this order too."""
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 45
LONG = {"_tile_force": "one compiled kernel; a part of it would be a call in the innermost loop"}


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in PACKAGE.rglob("*.py")}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def names_at(package):
    """Return where a package's face has its names from: name → module."""
    found = {}
    for node in TREES[package].body:
        if isinstance(node, ast.ImportFrom) and node.module in FILES:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
    return found


def imports_of(module):
    """Return the package's modules that a file imports, also within functions; faces are resolved to what is used."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module in FILES:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                home = names_at(node.module).get(alias.name, node.module)
                yield whole if whole in FILES else home
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES and "." in alias.name)


def storey(module):
    return module.split(".")[1]


GRAPH = {module: set(imports_of(module)) - {"torchdr_cne", module} for module in FILES if module != "torchdr_cne"}


def test_every_folder_has_its_place_in_the_order():
    assert {storey(module) for module in GRAPH} == set(ORDER)


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_go_down(module):
    above = [other for other in GRAPH[module] if ORDER.index(storey(other)) > ORDER.index(storey(module))]
    assert not above, f"{module} imports {above}, which stand above it"


def circle_in(graph):
    """Return the modules of a circle of imports; none if there is no circle."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    assert circle_in(GRAPH) == []


def test_a_circle_of_imports_would_be_found():
    closed = {**GRAPH, "torchdr_cne.checks": {"torchdr_cne.matching.estimator"}}
    assert {"torchdr_cne.checks", "torchdr_cne.matching.estimator"} <= set(circle_in(closed))


def test_files_and_functions_can_be_read_at_once():
    assert not [path.name for path in FILES.values() if len(path.read_text().splitlines()) > MOST_LINES]
    long_functions = {
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and code_lines(node) > MOST_LINES_OF_A_FUNCTION
    }
    assert long_functions <= set(LONG)


def code_lines(function):
    """Return the number of lines of a function without its docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return function.end_lineno - first.lineno + 2


def test_only_the_classes_themselves_see_their_private_parts():
    """Stages, objectives, networks and storage know plans and results, and no estimator."""
    seen = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("estimator", "est")
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and storey(module if "." in module else f"{module}.{module}") not in ("matching", "images", "memory")
    ]
    assert not seen
