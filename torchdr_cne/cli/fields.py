"""The parameters of the estimators, read from their source without importing them.

Importing an estimator imports torch, which takes seconds; help and a mistyped option need only names,
defaults and descriptions, and those stand in the dataclasses' text.
"""

import ast
import importlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

METHODS = {
    "negtsne": ("torchdr_cne.methods.negtsne", "NegTSNE"),
    "umap": ("torchdr_cne.methods.umap", "UMAP"),
    "ncvis": ("torchdr_cne.methods.ncvis", "NCVis"),
    "infotsne": ("torchdr_cne.methods.infotsne", "InfoTSNE"),
    "tsne": ("torchdr_cne.methods.tsne", "TSNE"),
    "largevis": ("torchdr_cne.methods.largevis", "LargeVis"),
    "pacmap": ("torchdr_cne.methods.pacmap", "PACMAP"),
    "sne": ("torchdr_cne.methods.sne", "SNE"),
    "cosne": ("torchdr_cne.methods.cosne", "COSNE"),
    "tsnekhorn": ("torchdr_cne.methods.tsnekhorn", "TSNEkhorn"),
}
"""Name on the command line → module and class. A line here makes a method known everywhere."""

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Field:
    """A dataclass field: its name, the text of its annotation, its default and its description."""

    name: str
    annotation: str
    default: Any
    doc: str = ""


def estimator_class(method: str) -> type:
    """Import and return the estimator of ``method``."""
    module, class_name = METHODS[method]
    return getattr(importlib.import_module(module), class_name)


def fields_of(method: str) -> dict[str, Field]:
    """Return the fields of the estimator of ``method`` by name, inherited ones first."""
    fields, _ = _fields_of_class(*METHODS[method])
    return fields


def _fields_of_class(module: str, class_name: str) -> tuple[dict[str, Field], set[str]]:
    """Return the fields of a class, and the names that it or a base has replaced."""
    tree = ast.parse(_source(module))
    homes = {
        alias.name: statement.module
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("torchdr_cne")
        for alias in statement.names
    }
    classes = {statement.name: statement for statement in tree.body if isinstance(statement, ast.ClassDef)}
    if class_name not in classes:
        home = homes.get(class_name)
        return ({}, set()) if home is None else _fields_of_class(home, class_name)
    node = classes[class_name]
    found: dict[str, Field] = {}
    replaced = {
        name for keyword in node.keywords if keyword.arg == "replaces" for name in ast.literal_eval(keyword.value)
    }
    for base in reversed(node.bases):  # as dataclasses do: of several bases with a field, the first has the last word
        if isinstance(base, ast.Name) and (base.id in homes or base.id in classes):
            inherited, replaced_there = _fields_of_class(homes.get(base.id) or module, base.id)
            found |= inherited
            replaced |= replaced_there
    kept = {name: field for name, field in found.items() if name not in replaced}
    return _with_own_fields(kept, replaced, node)


def _with_own_fields(
    inherited: dict[str, Field], replaced: set[str], node: ast.ClassDef
) -> tuple[dict[str, Field], set[str]]:
    """Add the fields and the descriptions that a class statement holds; what it annotates is replaced no longer."""
    found = dict(inherited)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, annotation = statement.target.id, ast.unparse(statement.annotation)
            if annotation.startswith("ClassVar"):
                found.pop(name, None)
            elif not name.startswith("_"):
                assert statement.value is not None
                earlier = found.get(name)
                doc = earlier.doc if earlier else ""
                found[name] = Field(name, annotation, ast.literal_eval(statement.value), doc)
    for name, doc in _parameter_docs(ast.get_docstring(node) or "").items():
        if name in found:
            found[name] = replace(found[name], doc=doc)
    return found, replaced - set(found)


def _source(module: str) -> str:
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


def _parameter_docs(docstring: str) -> dict[str, str]:
    """Return name → description of the ``Parameters`` section of a numpydoc docstring."""
    docs: dict[str, str] = {}
    current: list[str] = []
    _, _, section = docstring.partition("Parameters\n----------\n")
    section = re.split(r"\n\w[\w ]*\n-{3,}\n", section)[0]
    for line in section.splitlines():
        header = re.match(r"(\w+(?:, \w+)*) : (\{.*?\})?", line)
        if header:
            current = header[1].split(", ")
            docs |= {name: f"One of {header[2]}." for name in current if header[2]}
        elif not line.startswith(" "):
            current = []
        for name in current if not header else ():
            docs[name] = f"{docs.get(name, '')} {line.strip().replace('``', '')}".strip()
    return docs
