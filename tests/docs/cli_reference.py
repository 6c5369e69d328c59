"""docs/reference/cli.md, made from the commands themselves."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from parties.cli import app

HEAD = """\
# The command `concordat`

Every verb but `demo`, and those that only ask the catalogue of features, takes the node's home
first. Results go to standard output, failures to standard error; with `--json` both are JSON on
standard output, and progress goes to standard error.
Exit status: 0 if it was done; 1 for a [numbered error](../errors/README.md), a cancelled job among
them, or a verdict that something is wrong; 2 if the command was not understood; 130 after Ctrl-C.
`concordat VERB --help` says what this page says, which `python tests/docs/write_reference.py` makes
from the commands.
"""


@dataclass(frozen=True)
class Verb:
    """One command: how it is called, what it does, and its parameters with what they mean."""

    words: str
    usage: str
    text: str
    parameters: list[tuple[str, str]]


def verbs(group: typer.Typer = app, words: str = "concordat") -> Iterator[Verb]:
    """Every verb, in the order of `--help`."""
    for command in group.registered_commands:
        assert command.callback
        yield _verb(f"{words} {command.name or command.callback.__name__}", command.callback)
    for inner in group.registered_groups:
        assert inner.typer_instance
        yield from verbs(inner.typer_instance, f"{words} {inner.name}")


def page() -> str:
    """The whole of cli.md."""
    sections = [HEAD]
    for verb in verbs():
        rows = "".join(f"| `{name}` | {text} |\n" for name, text in verb.parameters)
        table = f"\n| | |\n|---|---|\n{rows}" if rows else ""
        sections.append(f"## {verb.words}\n\n    {verb.usage}\n\n{verb.text}\n{table}")
    return "\n".join(sections)


def _verb(words: str, callback: Callable[..., Any]) -> Verb:
    usage, parameters = [words], []
    for parameter in inspect.signature(callback).parameters.values():
        kind, info = get_args(parameter.annotation)
        required = parameter.default is inspect.Parameter.empty
        if isinstance(info, typer.models.ArgumentInfo):
            written = name = (info.metavar or parameter.name.upper()).strip("[]")
        else:
            # Typer takes the first name for a default until it looks at the annotation.
            names = [one for one in (info.default, *info.param_decls) if isinstance(one, str)]
            names = names or [f"--{parameter.name.replace('_', '-')}"]
            value = "" if kind is bool else f" {_value(kind)}"
            written = f"{names[-1]}{value}"
            name = f"{', '.join(names)}{value}"
        usage.append(written if required else f"[{written}]")
        parameters.append((name.replace("|", r"\|"), info.help))
    return Verb(words, " ".join(usage), inspect.cleandoc(callback.__doc__ or ""), parameters)


def _value(kind: Any) -> str:
    """What stands for an option's value: its choices, or a word for its type."""
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    (kind,) = [one for one in get_args(kind) if one is not type(None)] or [kind]
    return {Path: "PATH", str: "TEXT", int: "NUMBER", float: "SECONDS", datetime: "TIME"}[kind]
