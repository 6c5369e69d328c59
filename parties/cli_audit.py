"""The verbs `concordat audit`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from parties import audits
from parties.terminal import AsJson, HomePath, act, err, open_node, out

audit = typer.Typer(help="Verify the log, its witnesses and its receipts.", no_args_is_help=True)


@audit.command()
@act
def verify(
    home: HomePath,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the partners' nodes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute every leaf and signature; the verdict in one sentence. Exits 0 or 1.

    Partners whose nodes serve are asked whether what they have seen of the log is what it is now.
    """
    verdict, not_asked = audits.verify(open_node(home), offline=offline)
    if as_json:
        found = {
            "passed": verdict.ok,
            "verdict": str(verdict),
            "findings": verdict.report.findings,
            "cosigned": verdict.report.cosigned,
            "not_asked": not_asked,
        }
        print(json.dumps(found))
    else:
        for finding in verdict.report.findings:
            err.print(f"[red]{escape(finding)}[/]")
        out.print(escape(str(verdict)))
        for name in not_asked:
            out.print(f"{name}'s node was not asked whether it has seen another log.")
    if not verdict.ok:
        raise typer.Exit(1)


@audit.command("log")
@act
def show_log(home: HomePath, as_json: AsJson = False) -> None:
    """List the log's entries."""
    audits.print_log(open_node(home), out, as_json=as_json)


@audit.command("receipt")
@act
def show_receipt(
    home: HomePath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the first digits.")],
    as_json: AsJson = False,
) -> None:
    """Say in words what both institutions have signed about a run, and where it is in the log."""
    told, words = audits.show_receipt(open_node(home), run)
    if as_json:
        print(json.dumps(told))
        return
    for line in words:
        out.print(escape(line))


@audit.command()
@act
def compare(
    home: HomePath,
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="The partner's receipt.")],
    as_json: AsJson = False,
) -> None:
    """Compare a receipt the partner shows with the one kept here. Exits 1 if they differ."""
    run, differences = audits.compare(open_node(home), receipt)
    if as_json:
        print(json.dumps({"run": run, "differences": differences}))
    elif differences:
        for difference in differences:
            out.print(escape(difference))
    else:
        out.print(f"Both institutions' receipts of run {run} say the same, signed by both.")
    if differences:
        raise typer.Exit(1)
