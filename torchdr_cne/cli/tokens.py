"""Command-line tokens and entries of a configuration file, brought to one form: ``--name=value``."""

import json
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

from torchdr_cne.cli.messages import UsageError, closest, one_line

_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


@dataclass(frozen=True)
class Option:
    """An option as the user sees it; ``type`` None is a flag, which takes no value."""

    name: str
    type: Any
    default: Any = None
    help: str = ""
    metavar: str = "VALUE"

    @property
    def key(self) -> str:
        """Name of the value: dashes and underscores are the same."""
        return self.name.replace("-", "_")

    @property
    def _types(self) -> tuple[Any, ...]:
        return get_args(self.type) if isinstance(self.type, types.UnionType) else (self.type,)

    @property
    def may_be_none(self) -> bool:
        """Whether None is a value."""
        return types.NoneType in self._types

    @property
    def needs(self) -> str:
        """What a value has to be, in words."""
        if self.metavar != "VALUE":
            return f"a {self.metavar}"
        names = [_TYPE_NAMES[getattr(t, "__origin__", t)] for t in self._types if t is not types.NoneType]
        return " or ".join([*names, "null"] if self.may_be_none else names)


def scan(tokens: Sequence[str], name: str) -> str | None:
    """Return the last value that ``tokens`` give to ``--name``, before anything else is understood."""
    value = None
    for token, following in zip_longest(tokens, tokens[1:]):
        if token == f"--{name}" and following is not None:
            value = following
        elif token.startswith(f"--{name}="):
            value = token.partition("=")[2]
    return value


def read_config(path: str) -> dict[str, Any]:
    """Return the options in a YAML file, by key."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"the configuration {path} cannot be read: {one_line(error)}") from error
    if not isinstance(content or {}, dict):
        raise UsageError(f"the configuration {path} must hold lines like 'max_iter: 500', got {content!r}")
    return {str(name).replace("-", "_"): value for name, value in (content or {}).items()}


def check_known(key: str, options: Iterable[str], prefix: str = "--") -> None:
    """Raise a UsageError with the closest known name unless ``key`` is one of ``options``."""
    known = list(options)
    if key not in known:
        close = closest(key, known)
        remedy = f"did you mean {prefix}{close}?" if close else "--help lists the options"
        raise UsageError(f"unknown option {prefix}{key}; {remedy}")


def entry_tokens(name: str, value: Any, options: Mapping[str, Option]) -> list[str]:
    """Write an entry of a configuration file as it would stand on the command line."""
    check_known(name, options, prefix="")
    option = options[name]
    if option.type is None:
        if not isinstance(value, bool):
            raise UsageError(f"{name}: {value!r} must be true or false")
        return [f"--{option.name}"] if value else []
    return [f"--{option.name}={_plain(value if isinstance(value, str) else json.dumps(value), option)}"]


def joined_tokens(tokens: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """Return the tokens with each option in its own spelling and joined to its value, ``--name=value``."""
    joined, rest = [], list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            joined.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        key = name.replace("-", "_")
        check_known(key, options)
        option = options[key]
        if option.type is None:
            if equals:
                raise UsageError(f"--{option.name} takes no value, got {value!r}; leave it out")
            joined.append(f"--{option.name}")
            continue
        if not equals:
            value = _next_value(option, rest)
        joined.append(f"--{option.name}={_plain(value, option)}")
    return joined


def _next_value(option: Option, rest: list[str]) -> str:
    """Take the value of ``option`` from ``rest``; a truth value may be left out and then is true."""
    has_value = bool(rest) and not rest[0].startswith("--")
    if option.type is bool and not (has_value and rest[0].lower() in ("true", "false")):
        return "true"
    if not has_value:
        raise UsageError(f"--{option.name} needs a value: {option.needs}")
    return rest.pop(0)


def _plain(value: str, option: Option) -> str:
    """Spell None as YAML does where None is meant."""
    if option.may_be_none and value.lower() == "none":
        return "null"
    return value.lower() if option.type is bool else value
