"""The verbs `concordat recipe`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from parties.errors import JobError
from parties.files import write_private
from parties.later import Later
from parties.terminal import AsJson, out, verb

if TYPE_CHECKING:
    from compliance.agreement import Agreement
    from parties import agreements
    from parties.recipes import figures, library
else:
    Agreement = Later("compliance.agreement", "Agreement")
    agreements = Later("parties.agreements")
    figures = Later("parties.recipes.figures")
    library = Later("parties.recipes.library")

recipe = typer.Typer(
    help="Agreements and jobs by what they are good for, and the figures they give.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Its name: see `recipe list`.")]


@recipe.command("list")
@verb
def list_recipes(as_json: AsJson = False) -> None:
    """The recipes, and the question that each answers."""
    found = {name: library.question(name) for name in figures.NAMES}
    if as_json:
        print(json.dumps(found))
        return
    for name, question in found.items():
        out.print(f"{name:18} {escape(question)}")


@recipe.command("write")
@verb
def write_recipe(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that is not there.")],
    *,
    made_up: Annotated[
        bool, typer.Option("--made-up", help="With tables of people who do not exist, to try it.")
    ] = False,
) -> None:
    """Write a recipe's agreement, jobs and datasets, to make your own of them."""
    for path in library.write(name, folder, made_up=made_up):
        out.print(escape(str(path)), soft_wrap=True)


@recipe.command("report")
@verb
def report(
    name: Name,
    agreement: Annotated[Path, typer.Argument(metavar="AGREEMENT.yaml", help="Of the run.")],
    result: Annotated[Path, typer.Argument(metavar="RESULT.csv", help="What the job wrote.")],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the figures there as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The figures that a recipe's job was run for, of its result."""
    signed = Agreement.from_yaml(agreements.read_document(agreement))
    try:
        rows = figures.report(name, signed, result.read_bytes())
        if output is not None:
            write_private(output, figures.to_csv(rows), overwrite=True)
    except OSError as error:
        raise JobError(f"{error.filename}: {error.strerror}.", "Name another file.") from None
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    out.print(table)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        case _:
            return str(value)
