"""How much of each method's file is mathematics: ``python -m benchmarks.lines`` prints the table of the docs."""

import ast
from pathlib import Path

from torchdr_cne import catalogue

ROOT = Path(__file__).resolve().parents[1]
_AROUND = ("_check_parameters", "_conclude", "_why_not_split", "_make_objective", "_read_labels", "_with_labels")
"""Methods of a class that are about the fit and not about its loss, pairs, phases and rates."""


def code_lines(node: ast.AST) -> int:
    """Return the lines of a function or class, its docstring apart."""
    lines = set()
    for part in ast.walk(node):
        if isinstance(part, ast.stmt | ast.expr) and not _is_docstring(node, part):
            lines |= {part.lineno, part.end_lineno}
    return len(lines)


def _is_docstring(node: ast.AST, part: ast.AST) -> bool:
    first = node.body[0] if getattr(node, "body", None) else None
    return isinstance(first, ast.Expr) and ast.get_docstring(node) is not None and part in (first, first.value)


def counted(path: Path) -> tuple[int, int, int]:
    """Return a file's lines, those of code, and those of them that are mathematics."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    mathematics = sum(code_lines(node) for node in functions if node.name not in _AROUND)
    rest = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    fields = [
        node
        for owner in tree.body
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
    ]
    classes = sum(isinstance(node, ast.ClassDef) for node in tree.body)
    code = sum(code_lines(node) for node in [*functions, *fields, *rest[1:]]) + classes
    return len(text.splitlines()), code, mathematics


def files() -> dict[str, Path]:
    """Return the file of each method of the catalogue, by the method's name."""
    entries = catalogue.by_command().values()
    return {entry.name: ROOT.joinpath(*entry.module.split(".")).with_suffix(".py") for entry in entries}


def table() -> str:
    """Return the table in Markdown, a row a method of the catalogue."""
    rows = ["| method | lines | of them code | of it mathematics |", "| --- | ---: | ---: | ---: |"]
    rows += ["| `{}` | {} | {} | {} |".format(name, *counted(path)) for name, path in files().items()]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
