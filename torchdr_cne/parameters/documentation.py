"""Docstrings that show all parameters of a class, each with the text of the class that declares it."""

import inspect
import re
from dataclasses import Field, fields
from typing import Any

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
_HEADER = re.compile(r"^(\w+(?:, \w+)*) : (.*)$")
_DEFAULT = re.compile(r"default=[^\n]*$")
_OWN = "_own_docstring"


def documented(cls: Any) -> str | None:
    """Return the docstring of a dataclass, with the parameters and attributes of its bases after its own.

    Parameters
    ----------
    cls : type
        A dataclass whose ``__doc__`` is numpydoc and describes only what the class adds.
    """
    own = cls.__doc__
    if own is None or own.startswith(f"{cls.__name__}("):  # written by dataclass if there is no docstring
        return None
    setattr(cls, _OWN, inspect.cleandoc(own))
    sections = sections_of(getattr(cls, _OWN))
    for title in ("Parameters", "Attributes"):
        blocks = _blocks_of_all(cls, title)
        if title == "Parameters":
            blocks = _of_fields(blocks, {field.name: field for field in fields(cls) if field.init})
        if blocks:
            sections[title] = "\n".join(blocks.values())
    order = [
        "",
        "Parameters",
        "Attributes",
        *(title for title in sections if title not in ("Parameters", "Attributes")),
    ]
    parts = [
        sections[title] if title == "" else f"{title}\n{'-' * len(title)}\n{sections[title]}"
        for title in dict.fromkeys(order)
        if title in sections
    ]
    return "\n\n".join(parts) + "\n"


def sections_of(docstring: str) -> dict[str, str]:
    """Return the sections of a docstring by title; the description has the title ""."""
    found, title, start = dict[str, str](), "", 0
    for match in _SECTION.finditer(docstring):
        found[title] = docstring[start : match.start()].strip("\n")
        title, start = match[1], match.end()
    found[title] = docstring[start:].strip("\n")
    return found


def _blocks_of_all(cls: type, title: str) -> dict[str, str]:
    """Return header → text of the entries of a class and of its bases; entries of the class come first."""
    found: dict[str, str] = {}
    known: set[str] = set()
    for base in cls.__mro__:
        own = vars(base).get(_OWN)
        if own is None and base is not object and hasattr(base, "__dataclass_fields__"):
            own = inspect.cleandoc(base.__doc__ or "")
        for header, text in blocks_of(sections_of(own or "").get(title, "")).items():
            names = set(names_of(header))
            if not names <= known:
                found[header] = text
                known |= names
    return found


def blocks_of(section: str) -> dict[str, str]:
    """Return header → whole text of the entries of a section, without any prose between them."""
    blocks: dict[str, list[str]] = {}
    header = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            header = line if _is_header(line) else ""
        if header:
            blocks.setdefault(header, []).append(line)
    return {name: "\n".join(lines).rstrip() for name, lines in blocks.items()}


def _is_header(line: str) -> bool:
    return _HEADER.match(line) is not None or re.fullmatch(r"\w+(, \w+)*", line) is not None


def names_of(header: str) -> list[str]:
    """Return the parameters that a header names."""
    return header.split(" : ")[0].split(", ")


def _of_fields(blocks: dict[str, str], known: dict[str, Field[Any]]) -> dict[str, str]:
    """Return the blocks of those parameters that the class has, with its own defaults."""
    found = {}
    for header, text in blocks.items():
        names = [name for name in names_of(header) if name in known]
        if not names:
            continue
        if len(names_of(header)) == 1 and _DEFAULT.search(header):
            first, _, rest = text.partition("\n")
            own_default = f"default={shown(known[names[0]].default)}"
            text = first[: first.index("default=")] + own_default
            text = f"{text}\n{rest}" if rest else text
        found[header] = text
    return found


def shown(default: Any) -> str:
    """Return a default as it is written in documentation."""
    if isinstance(default, type):
        return default.__name__
    return repr(default).replace("'", '"')
