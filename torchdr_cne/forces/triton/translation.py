"""Declared functions of d² as Triton functions, translated from their source."""

import ast
import hashlib
import inspect
import textwrap
import types
from functools import lru_cache
from typing import Any

import triton

from torchdr_cne.forces.declaration import PairForces, PairFunction
from torchdr_cne.forces.triton.arithmetic import divide, fast_arithmetic

MOST_PARAMETERS = 8
"""Number of parameters that a declared function may read."""
_ALLOWED = (
    *(ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.AugAssign, ast.Expr, ast.Name, ast.Tuple),
    *(ast.Constant, ast.BinOp, ast.UnaryOp, ast.Call, ast.Subscript, ast.Load, ast.Store),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.UAdd),
)


class NotTranslatable(Exception):
    """A declared function is not plain arithmetic of d², its parameters and ``power``."""


def interprets() -> bool:
    """Return whether Triton runs kernels in its interpreter, where declared functions serve as they are."""
    return bool(triton.knobs.runtime.interpret) if hasattr(triton, "knobs") else False


def translatable(forces: PairForces) -> bool:
    """Return whether Triton kernels can be made of the declaration."""
    try:
        for function in vars(forces).values():
            if function is not None:
                _translated_source(function)
    except NotTranslatable:
        return False
    return True


@lru_cache(maxsize=256)
def device_function(function: PairFunction | None) -> Any:
    """Return a declared function as a Triton function; None stays None.

    Raises
    ------
    NotTranslatable
        If the function has no source, or is not plain arithmetic.
    """
    if function is None or interprets():
        return function
    source = _translated_source(function)
    # A copy with globals of its own, as Triton looks up the names of a function there.
    copy = types.FunctionType(function.__code__, {"divide": divide}, function.__name__)
    copy.__module__, copy.__qualname__ = function.__module__, f"{function.__name__}_{_digest(source)}"
    translated = triton.jit(copy)
    translated._unsafe_update_src(source)
    return translated


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _translated_source(function: PairFunction) -> str:
    """Return the function's source without annotations and docstring, module constants by value."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise NotTranslatable(f"{function!r} has no source") from error
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or len(definition.args.args) != 3:
        raise NotTranslatable(f"{function!r} is not a function of (d2, p, power)")
    definition.returns, definition.decorator_list = None, []
    for argument in definition.args.args:
        argument.annotation = None
    if ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:]
    found = _Translation(function, definition).visit(tree)
    return ast.unparse(ast.fix_missing_locations(found))


class _Translation(ast.NodeTransformer):
    """Checks that a definition is plain arithmetic, and writes divisions and module constants as Triton needs them."""

    def __init__(self, function: PairFunction, definition: ast.FunctionDef) -> None:
        self._function = function
        self._d2, self._p, self._power = (argument.arg for argument in definition.args.args)
        self._local = {argument.arg for argument in definition.args.args}
        self._divides = fast_arithmetic()
        assigned = (node for node in ast.walk(definition) if isinstance(node, ast.Name))
        self._local |= {node.id for node in assigned if isinstance(node.ctx, ast.Store)}

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, (ast.Module, *_ALLOWED)):
            raise NotTranslatable(f"{self._function!r} uses {type(node).__name__}")
        return super().generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        index = node.slice
        is_parameter = isinstance(node.value, ast.Name) and node.value.id == self._p
        within = isinstance(index, ast.Constant) and isinstance(index.value, int) and 0 <= index.value < MOST_PARAMETERS
        if not (is_parameter and within):
            raise NotTranslatable(f"{self._function!r} reads something else than one of {MOST_PARAMETERS} parameters")
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not (isinstance(node.func, ast.Name) and node.func.id == self._power and len(node.args) == 2):
            raise NotTranslatable(f"{self._function!r} calls something else than power")
        node.args = [self.visit(argument) for argument in node.args]
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._local:
            if node.id in (self._p, self._power):
                raise NotTranslatable(f"{self._function!r} uses {node.id} as a number")
            return node
        value = self._function.__globals__.get(node.id)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise NotTranslatable(f"{self._function!r} uses {node.id}, which is no number")
        return ast.Constant(float(value))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Div) and self._divides and not _is_number(node):
            return ast.Call(ast.Name("divide", ast.Load()), [node.left, node.right], [])
        return node


def _is_number(node: ast.AST) -> bool:
    """Return whether an expression holds constants only, which Python divides."""
    return not any(isinstance(part, (ast.Name, ast.Subscript)) for part in ast.walk(node))
