"""Options in YAML: those of a configuration file, and mappings that are typed in."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from torchdr_cne.cli.messages import UsageError, one_line

_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_SHOWN = 60


def read_config(path: str) -> dict[str, Any]:
    """Return the options that a YAML file sets, by key."""
    try:
        content = read_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration {path} cannot be read: {one_line(error)}") from error
    if not isinstance(content or {}, dict):
        raise UsageError(f"the configuration {path} must hold lines like 'max_iter: 500', got {shown(content)}")
    return {str(name).replace("-", "_"): value for name, value in (content or {}).items()}


def read_yaml(text: str) -> Any:
    """Return the value of YAML text: None, truth values, numbers, text, lists and mappings.

    Numbers like 1e-8, which PyYAML reads as text, are numbers as in YAML 1.2, and dates are text.

    Raises
    ------
    ValueError
        If the text is no YAML, or has aliases, other kinds of values, or too many brackets within each other.
    """
    import yaml

    try:
        return yaml.load(text, _loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise ValueError(f"{error.problem or error.context}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error
    except RecursionError as error:
        raise ValueError("its lists or mappings are too deeply nested") from error


@cache
def _loader() -> Any:
    """Return PyYAML's safe loader without what could multiply a short text, or give other kinds of values."""
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader of plain values."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Return the next node; refuse an alias, as few of them can stand for values of any size."""
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                problem = f"the alias *{event.anchor}, which stands for another value, is not read; write that value"
                raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
            return super().compose_node(parent, index)

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    tags = {f"tag:yaml.org,2002:{kind}" for kind in _KINDS}
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag in tags] for first, known in resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    Loader.yaml_constructors = {tag: Loader.yaml_constructors[tag] for tag in tags}
    Loader.add_constructor(None, _refuse)
    return Loader


def _refuse(loader: Any, node: Any) -> Any:
    import yaml

    problem = f"the tag {node.tag} is not read; write plain numbers, text, lists and mappings"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def shown(value: Any) -> str:
    """Return the beginning of a value's text."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
