"""The parameters of the methods, read from their source without importing them.

Importing an estimator imports torch, which takes seconds. The help and a mistyped option need only names, defaults
and descriptions, which the source of the dataclasses contains. A class from outside this package is imported.
"""

import ast
import importlib
import inspect
import re
import sys
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from torchdr_cne import catalogue
from torchdr_cne.cli.messages import UsageError, choose, one_line
from torchdr_cne.cli.options import KINDS, Option
from torchdr_cne.parameters.documentation import blocks_of, names_of, sections_of

_PACKAGE = Path(__file__).parents[1]
_SPELLINGS = {
    r"\w+\.": "",
    r"Optional\[(.*)\]": r"\1 | None",
    r"(Mapping|dict)\[[^]]*\]": "dict",
    r"Literal\[[^]]*\]|Backend": "str",
}
"""Pattern in an annotation → its replacement by kinds of `options.KINDS`; names of modules are removed."""
_KINDS_OF_ANY = {"init": "str", "random_state": "int | None"}


def estimator_class(method: str) -> Any:
    """Import and return the estimator ``method``: a name in the catalogue, ``module:Class`` or ``file.py:Class``."""
    if method in catalogue.by_command():
        return catalogue.load(catalogue.by_command()[method])
    home, separator, name = method.rpartition(":")
    if not separator:
        raise UsageError(f"unknown method {method!r}; {choose(method, catalogue.by_command())}")
    module = _imported(home)
    if not hasattr(module, name):
        classes = [known for known, value in vars(module).items() if isinstance(value, type)]
        raise UsageError(f"{home} has no class {name!r}; {choose(name, classes)}")
    from torchdr_cne.matching import EmbeddingEstimator

    found = getattr(module, name)
    if not (isinstance(found, type) and issubclass(found, EmbeddingEstimator)):
        raise UsageError(f"{method} is no estimator; derive it from a class of torchdr_cne.matching")
    return found


def _imported(home: str) -> Any:
    """Import a module from the working folder, or a file from its own folder, as Python would do there."""
    is_file = home.endswith(".py")
    folder = str(Path(home).resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(Path(home).stem if is_file else home)
    except Exception as error:
        raise UsageError(f"{home} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
    finally:
        sys.path.remove(folder)


def parameters_of(method: str) -> dict[str, Option]:
    """Return the parameters of ``method``, inherited ones first; those that cannot be typed in have the type ""."""
    entry = catalogue.by_command().get(method)
    if entry is not None and entry.module.startswith(f"{_PACKAGE.name}."):
        return _in_source(entry.module, entry.name)[0]
    cls = estimator_class(method)
    docs = _descriptions(inspect.getdoc(cls) or "")
    return {
        field.name: Option(field.name, _type_of(field.name, field.type), field.default, docs.get(field.name, ""))
        for field in fields(cls)
        if field.default is not MISSING
    }


def options_of(method: str) -> dict[str, Option]:
    """Return the parameters of ``method`` that can be typed in, as options."""
    return {name: option for name, option in parameters_of(method).items() if option.type and name != "verbose"}


@cache
def _in_source(module: str, class_name: str) -> tuple[dict[str, Option], frozenset[str]]:
    """Return the parameters of a class, and the names of those that it or a base has replaced."""
    node = _statements(module).get(class_name)
    if not isinstance(node, ast.ClassDef):
        return ({}, frozenset()) if node is None else _in_source(node, class_name)
    found: dict[str, Option] = {}
    replaced = {name for keyword in node.keywords for name in ast.literal_eval(keyword.value)}
    for base in reversed(node.bases):  # as in dataclasses, the first of several bases with a field decides
        inherited, replaced_there = _in_source(module, ast.unparse(base))
        found |= inherited
        replaced |= replaced_there
    found = {name: option for name, option in found.items() if name not in replaced}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, annotation = statement.target.id, ast.unparse(statement.annotation)
            if annotation.startswith("ClassVar"):
                found.pop(name, None)
            elif not name.startswith("_"):
                assert statement.value is not None
                doc = found[name].help if name in found else ""
                found[name] = Option(name, _type_of(name, annotation), ast.literal_eval(statement.value), doc)
    docs = _descriptions(ast.get_docstring(node) or "")
    described = {name: replace(option, help=docs.get(name, option.help)) for name, option in found.items()}
    return described, frozenset(replaced - set(found))


@cache
def _statements(module: str) -> dict[str, Any]:
    """Return name → class statement, or the module of this package from which the name is imported."""
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(file.read_text(encoding="utf-8")).body
    imports = [statement for statement in body if isinstance(statement, ast.ImportFrom)]
    ours = [statement for statement in imports if (statement.module or "").startswith(_PACKAGE.name)]
    homes = {alias.name: statement.module for statement in ours for alias in statement.names}
    return homes | {statement.name: statement for statement in body if isinstance(statement, ast.ClassDef)}


def _type_of(name: str, annotation: Any) -> str:
    """Return the kinds in an annotation, an object or its text, that can be typed in; "" if there are none."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    for pattern, kind in _SPELLINGS.items():
        text = re.sub(pattern, kind, text)
    if text == "Any":
        text = _KINDS_OF_ANY.get(name, "")
    kinds = [kind for kind in text.split(" | ") if kind in KINDS]
    return " | ".join(kinds) if set(kinds) > {"None"} or "None" not in kinds else ""


def _descriptions(docstring: str) -> dict[str, str]:
    """Return name → description of the parameters in a numpydoc docstring."""
    found: dict[str, str] = {}
    for header, text in blocks_of(sections_of(docstring).get("Parameters", "")).items():
        choices = re.search(r" : (\{.*?\})", header)
        lines = [f"One of {choices[1]}." if choices else "", *text.splitlines()[1:]]
        found |= dict.fromkeys(names_of(header), one_line(" ".join(lines).replace("``", "")))
    return found
