"""The verbs `concordat audit`."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compliance.choices import Form, Kind
from parties.later import Later
from parties.terminal import (
    AsJson,
    CompanyCode,
    Email,
    HomePath,
    Phone,
    ResidentId,
    act,
    err,
    open_node,
    out,
    person_named,
)

if TYPE_CHECKING:
    from compliance import timeline
    from parties import audits, evidence
else:
    timeline = Later("compliance.timeline")
    audits = Later("parties.audits")
    evidence = Later("parties.evidence")

TIMES = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z"]  # with an offset, such as +08:00 or Z

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


@audit.command("person")
@act
def show_person(
    home: HomePath,
    *,
    run: Annotated[
        str | None,
        typer.Option(help="A run the person may not have been in: its id, or the first digits."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder to make, with the proofs.")
    ] = None,
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """Show what the log says of one person and which runs their data was put into, with proofs.

    Of somebody who was erased there is the tombstone only. The proofs open the person's entries to
    whoever has them: hand them to that person, or to whom the law names.
    """
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    told = evidence.person(opened, whom, run, output)
    if as_json:
        print(json.dumps(told))
        return
    for line in timeline.in_words(told):
        out.print(escape(line))
    if output is not None:
        out.print(f"The proofs are in {escape(str(output))}. To verify them:")
        out.print(f"  python3 -I {escape(str(output))}/verify.py")


@audit.command("export")
@act
def export_evidence(
    home: HomePath,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make.")],
    run: Annotated[str | None, typer.Option(help="Only this run: its id, or first digits.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Only what was entered from then on.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Only what was entered before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write evidence that an outsider verifies offline, with the Python file that lies in it.

    Of a part of the log the rest is shown by hashes, so that the part still proves its place.
    """
    opened = open_node(home)
    shown = evidence.export(opened, output, evidence.scope(opened, run, since, until))
    if as_json:
        print(json.dumps({"folder": str(output), "entries": shown}))
        return
    out.print(f"{shown:,} entries and what they speak of are in {escape(str(output))}. To verify:")
    out.print(f"  python3 -I {escape(str(output))}/verify.py")


@audit.command("register")
@act
def write_register(
    home: HomePath,
    *,
    kind: Annotated[
        Kind,
        typer.Option(
            help="gdpr-30: the record of processing activities; pipl-23: of provision to others."
        ),
    ],
    form: Annotated[Form, typer.Option("--format", help="What kind of file.")] = "csv",
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
) -> None:
    """Write a register that the law wants kept, from agreements, consents and runs.

    What only the institution knows is stated under `record` in its config.yaml.
    """
    evidence.register(open_node(home), kind, form, output)
    out.print(f"Wrote {escape(str(output))}.")
