"""The verbs `concordat features`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from parties.later import Later
from parties.terminal import AsJson, HomePath, open_node, out, verb

if TYPE_CHECKING:
    from parties import catalogue, features
else:
    catalogue = Later("parties.catalogue")
    features = Later("parties.features")

feature = typer.Typer(
    help="Features made of raw tables, by the catalogue of the sectors.", no_args_is_help=True
)


@feature.command("list")
@verb
def list_features(
    library: Annotated[
        str, typer.Argument(metavar="[SECTOR]", help="ecommerce, telecom or bank; all without it.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """The features of the catalogue. One that ends in :WORD takes a value there."""
    found = catalogue.listed(library)
    if as_json:
        print(json.dumps(found))
        return
    for one in found:
        out.print(f"{one['name']:36} {one['unit']:8} {escape(one['definition'])}")


@feature.command("show")
@verb
def show_feature(
    name: Annotated[str, typer.Argument(help="The feature's full name.")], as_json: AsJson = False
) -> None:
    """One feature: definition, unit, bounds, who has none, what it needs, where it comes from."""
    found = catalogue.described(name)
    if as_json:
        print(json.dumps(found))
        return
    for field, value in found.items():
        out.print(f"{field:12} {escape(str(value))}")


@feature.command("propose")
@verb
def propose_features(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Full names.")],
) -> None:
    """The features as an agreement declares them: a partner's under `data.partner`.

    A bank's are its segmentation, and its label under `data.bank`.
    """
    print(catalogue.proposed(names), end="")


@feature.command("build")
@verb
def build_features(
    home: HomePath,
    dataset: Annotated[str, typer.Argument(help="A dataset with `features` in config.yaml.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Full names; all that the tables allow without."),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to: .csv or .parquet.")],
    as_json: AsJson = False,
) -> None:
    """Make the features that jobs would read, as a table: a look at them before anything runs."""
    counts = features.export(open_node(home), dataset, names or [], output)
    if as_json:
        print(json.dumps(counts))
        return
    out.print(f"{counts['accepted']:,} people, from {counts['rows']:,} rows:")
    for reason, count in (counts["events"] | counts["rejected"]).items():
        out.print(f"  {count:>12,}  {escape(reason)}")
