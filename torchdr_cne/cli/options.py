"""From command-line tokens to checked values; every mistake becomes one sentence."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from torchdr_cne.cli.messages import UsageError, one_line
from torchdr_cne.cli.tokens import Option, entry_tokens, joined_tokens, scan


@dataclass(frozen=True)
class Command:
    """A subcommand: what it takes, and what its help says.

    Attributes
    ----------
    name : str
        ``fit`` and the like.
    positionals : mapping of str to str
        Name → help of each file it needs, in order.
    groups : mapping of str to sequence of Option
        Title → options.
    description, example : str
        First and last paragraph of the help.
    """

    name: str
    positionals: Mapping[str, str]
    groups: Mapping[str, Sequence[Option]]
    description: str
    example: str

    @property
    def options(self) -> dict[str, Option]:
        """All options by key."""
        return {option.key: option for group in self.groups.values() for option in group}

    def parse(self, tokens: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Namespace | None:
        """Return the values by key; print the help and return None if it is asked for.

        Parameters
        ----------
        tokens : sequence of str
            Arguments after the subcommand.
        defaults : mapping, optional
            Values of a configuration file, which ``tokens`` override.

        Raises
        ------
        UsageError
            For an unknown option, a value of the wrong type, and files missing or too many.
        """
        parser = self._parser()
        if "-h" in tokens or "--help" in tokens:
            print(parser.format_help(), end="")
            return None
        given = dict(defaults or {})
        positional_defaults = {name: given.pop(name) for name in self.positionals if name in given}
        options = self.options
        plain_tokens = [token for name, value in given.items() for token in entry_tokens(name, value, options)]
        plain_tokens += joined_tokens(tokens, options)
        try:
            values = parser.parse_args(plain_tokens)
        except argparse.ArgumentError as error:
            raise self._explained(error, plain_tokens) from error
        for name in self.positionals:
            values[name] = values[name] or positional_defaults.get(name)
            if values[name] is None:
                raise UsageError(f"{name.upper()} is missing; for example: {self.example}")
        return values

    def _parser(self) -> ArgumentParser:
        files = " ".join(name.upper() for name in self.positionals)
        parser = ArgumentParser(
            prog=f"torchdr-cne {self.name}",
            usage=f"torchdr-cne {self.name} {files} [options]".replace("  ", " "),
            description=self.description,
            epilog=f"example:\n  {self.example}",
            formatter_class=_HelpFormatter,
            exit_on_error=False,
            allow_abbrev=False,
        )
        for name, text in self.positionals.items():
            parser.add_argument(name, nargs="?", type=str, help=text, metavar=name.upper())
        for title, options in self.groups.items():
            group = parser.add_argument_group(title)
            for option in options:
                text = option.help.replace("%", "%%")
                if option.type is None:
                    group.add_argument(f"--{option.name}", action="store_true", help=text)
                else:
                    group.add_argument(
                        f"--{option.name}",
                        type=option.type,
                        default=option.default,
                        help=text,
                        metavar=option.metavar,
                    )
        return parser

    def _explained(self, error: argparse.ArgumentError, tokens: Sequence[str]) -> UsageError:
        """Say what a parsing error means in the user's words."""
        text = str(error)
        key = re.search(r'Parser key "(\w+)"', text)
        option = self.options.get(key[1]) if key else None
        if option is not None:
            return UsageError(f"--{option.name} got {scan(tokens, option.name)!r} and needs {option.needs}")
        extra = re.match(r"unrecognized arguments: (.*)", text, re.DOTALL)
        if extra:
            return UsageError(f"{one_line(extra[1])!r} is not expected; for example: {self.example}")
        return UsageError(one_line(text))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Type and default behind each parameter; description and example as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return super()._get_help_string(action) if action.metavar == "VALUE" else action.help or ""
