"""Parsing of command-line tokens and of the values of a configuration file; every mistake becomes one sentence.

argparse is not used, since it takes ``-1e-3`` for an option and treats ``--n-neighbors`` and ``--n_neighbors`` as
different options.
"""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

from torchdr_cne.cli.configuration import read_yaml, shown
from torchdr_cne.cli.messages import UsageError, closest, show

_COLUMN, _WIDTH = 26, 100  # of the help: where descriptions begin and where lines end


KINDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "None": (lambda text: {"none": None, "null": None}[text.lower()], "null"),
    "bool": (lambda text: {"true": True, "false": False}[text.lower()], "true or false"),
    "int": (int, "an integer"),
    "float": (float, "a number"),
    "dict": (lambda text: {**read_yaml(text)}, "a mapping"),
    "str": (str, "text"),
}
"""Kind of a value → function that reads it from text, and its name in words, in the order in which kinds are tried."""


@dataclass(frozen=True)
class Option:
    """An option as the user sees it.

    Attributes
    ----------
    name : str
        Name of the option, in which dashes and underscores are the same.
    type : str
        Kinds of value that it takes, as in an annotation: ``int | None``.
    default : Any
        Value if the option is not given.
    help : str
        Description of the option.
    metavar : str
        Name of its value in the help, which shows type and default if this is just "VALUE".
    """

    name: str
    type: str
    default: Any = None
    help: str = ""
    metavar: str = "VALUE"

    @property
    def key(self) -> str:
        """Name under which the value is stored."""
        return self.name.replace("-", "_")

    @property
    def needs(self) -> str:
        """Description of a valid value in words."""
        kinds = sorted(self.type.split(" | "), key="None".__eq__)
        return f"a {self.metavar}" if self.metavar != "VALUE" else " or ".join(KINDS[kind][1] for kind in kinds)

    def read(self, text: str) -> Any:
        """Return the value that is written as ``text``."""
        for kind, (reader, _) in KINDS.items():
            if kind in self.type.split(" | "):
                try:
                    return reader(text)
                except (ValueError, KeyError, TypeError):
                    continue
        raise UsageError(f"--{self.name} got {text!r} and needs {self.needs}")

    def take(self, rest: list[str]) -> Any:
        """Remove the value from the tokens that follow the option and return it; ``true`` may be left out."""
        has_value = bool(rest) and not rest[0].startswith("--")
        if self.type == "bool" and not (has_value and rest[0].lower() in ("true", "false")):
            return True
        if not has_value:
            raise UsageError(f"--{self.name} needs a value: {self.needs}")
        return self.read(rest.pop(0))


@dataclass(frozen=True)
class Command:
    """A subcommand with its arguments and the text of its help.

    Attributes
    ----------
    name : str
        Name of the subcommand, such as ``fit``.
    positionals : mapping of str to str
        Name → help of each file that it needs, in order; files may also be given like options.
    groups : mapping of str to sequence of Option
        Title of a group → its options.
    description, example : str
        Paragraphs at the beginning and the end of the help.
    explain : callable
        Function from the name of an unknown option and the known names to a message about it, or to None.
    """

    name: str
    positionals: Mapping[str, str]
    groups: Mapping[str, Sequence[Option]]
    description: str
    example: str
    explain: Callable[[str, Sequence[str]], str | None] = lambda key, known: None

    def parse(self, tokens: Sequence[str], config: Mapping[str, Any] | None = None) -> SimpleNamespace | None:
        """Return the values by key, or print the help and return None if the tokens ask for it.

        Parameters
        ----------
        tokens : sequence of str
            Arguments after the subcommand.
        config : mapping, optional
            Values of a configuration file; ``tokens`` override them.

        Raises
        ------
        UsageError
            If an option is unknown, a value has the wrong type, or there are too few or too many files.
        """
        if "-h" in tokens or "--help" in tokens:
            show(self._help())
            return None
        options = {name: Option(name, "str | None", metavar="FILE") for name in self.positionals}
        options |= {option.key: option for group in self.groups.values() for option in group}
        values = {key: option.default for key, option in options.items()}
        for key, value in (config or {}).items():
            values[key] = _from_config(self._known(key, options), value)
        files, rest = [], list(tokens)
        while rest:
            shown, equals, text = rest.pop(0).partition("=")
            if shown.startswith("-"):
                option = self._known(shown, options)
                values[option.key] = option.read(text) if equals else option.take(rest)
            else:
                files.append(shown + equals + text)
        values |= zip(self.positionals, files, strict=False)
        for extra in files[len(self.positionals) :]:
            raise UsageError(f"{extra!r} is not expected; for example: {self.example}")
        for name in self.positionals:
            if not values[name]:
                raise UsageError(f"{name.upper()} is missing; for example: {self.example}")
        return SimpleNamespace(**values)

    def _known(self, shown: str, options: Mapping[str, Option]) -> Option:
        """Return the option written as ``shown``: with two dashes on the command line, without dashes in a file."""
        name = shown.removeprefix("--")
        key = name.replace("-", "_")
        if key not in options:
            close = closest(key, options)
            remedy = f"did you mean {shown.removesuffix(name)}{close}?" if close else "--help lists the options"
            raise UsageError(self.explain(key, list(options)) or f"unknown option {shown}; {remedy}")
        return options[key]

    def _help(self) -> str:
        usage = " ".join(["usage: torchdr-cne", self.name, *map(str.upper, self.positionals), "[options]"])
        files = [_entry(name.upper(), text) for name, text in self.positionals.items()]
        parts = [usage, self.description, *(["\n".join(["what it needs:", *files])] if files else [])]
        for title, options in self.groups.items():
            parts.append("\n".join([f"{title}:", *(_entry(*_heading(option)) for option in options)]))
        return "\n\n".join([*parts, f"example:\n  {self.example}"])


def _heading(option: Option) -> tuple[str, str]:
    """Return the written form of an option and its description."""
    if option.metavar != "VALUE":
        return f"--{option.name} {option.metavar}", option.help
    written = f"--{option.name}" if option.type == "bool" else f"--{option.name} VALUE"
    kinds = option.type.replace("None", "null")
    return written, f"{option.help} (type: {kinds}, default: {_as_text(option.default)})"


def _entry(written: str, text: str) -> str:
    """Return lines of the help: the written form and, beside it or below it if it is long, its meaning."""
    margin = " " * _COLUMN
    lines = textwrap.fill(text, _WIDTH, initial_indent=margin, subsequent_indent=margin)
    head = f"  {written}"
    return head.ljust(_COLUMN) + lines[_COLUMN:] if len(head) < _COLUMN else f"{head}\n{lines}"


def _from_config(option: Option, value: Any) -> Any:
    """Return the value of an option that a configuration file sets."""
    if isinstance(value, list) or (isinstance(value, dict) and "dict" not in option.type):
        raise UsageError(f"{option.name} in the configuration is {shown(value)} and needs {option.needs}")
    return option.read(_as_text(value))


def _as_text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def scan(tokens: Sequence[str], name: str) -> str | None:
    """Return the last value that ``tokens`` give to ``--name``, without parsing any other option."""
    pairs = ((*token.partition("="), following) for token, following in zip_longest(tokens, tokens[1:], fillvalue=""))
    given = [text if equals else following for shown, equals, text, following in pairs if shown == f"--{name}"]
    return given[-1] if given else None


LABELS = (
    Option("labels", "str | None", help="One label, or class, a row.", metavar="FILE"),
    Option("labels-column", "str | None", help="Column of the labels, in LABELS or DATA.", metavar="NAME"),
    Option("labels-key", "str | None", help="npz array of the labels, in LABELS or DATA.", metavar="NAME"),
    Option("key", "str | None", help="npz or zarr array of the rows; by default the only one, or X.", metavar="NAME"),
)
QUIET = Option("quiet", "bool", False, "No progress bar, no warnings, no summary.")
