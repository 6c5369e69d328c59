"""A run between two nodes: what both sides say around a job's own protocol.

    bank                          partner
    Hello                  ->     checks the agreement, the job, the limits
                           <-     Hello
    read the table, gate          read the table, gate
    Inputs                 <->    Inputs
    sign the intent        <->    sign the intent
    log it; Ready          <->    log it; Ready
      ... the job's protocol; each side passes the gate again before it releases ...
    Commitment             <->    Commitment
    sign the completion    <->    sign the completion
    log it                        log it

What fails on either side travels as Abort and ends the run on both.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import ValidationError
from sqlalchemy import Connection

from compliance import budget, differencing, gate, lifecycle, receipt
from compliance.agreement import Agreement, Job, permits
from compliance.canonical import timestamp
from compliance.disclosure import disclosure
from compliance.errors import AgreementRefusal, ConsentChanged, InvalidSignature, JobInvalid
from compliance.note import Checkpoint, VerifierKey
from compliance.signing import Envelope, verify
from federated._native import SecretKey
from federated.arrays import I64, U8, Bool
from federated.channel import Channel
from federated.errors import AnswersDisagree, PeerAborted, ProtocolViolation, TableUnsound
from federated.hooks import Progress, silent
from federated.identifiers import Ids, with_kind
from federated.paillier.keys import prove
from federated.psi.lookup import Copy, Table
from federated.risk.scorecard import Scorecard, weigh
from parties import (
    agreements,
    bins,
    features,
    jobs,
    periods,
    results,
    runs,
    scorecards,
    tables,
    witnessing,
)
from parties.errors import (
    Busy,
    Cancelled,
    EarlierRunUnfit,
    HomeUnusable,
    InternalError,
    JobError,
    RunTooLong,
    TooManyAttempts,
    TooManyRows,
    WrongRole,
    WrongVersion,
)
from parties.files import write_private
from parties.identity import Identity
from parties.node import Node
from parties.runs import Stages
from parties.sources import Dataset, Identifier
from parties.watch import Watch
from parties.wire import StreamTransport
from protos.concordat.v1.run_pb2 import (
    Commitment,
    Hello,
    Inputs,
    Ready,
    Signature,
)
from protos.errors import ConcordatError

Role = Literal["bank", "partner"]
Listener = Callable[[str, str, int, int], None]  # run, stage, done, total

PROTOCOL_VERSION = 1
SUITE = "C25519-SHA512"
CLOCK_SKEW = timedelta(minutes=10)
DAY = timedelta(days=1)
ATTEMPTS = 3  # a run during which somebody withdrew is run again, at most twice

_logger = logging.getLogger("concordat.run")


@dataclass(frozen=True)
class Plan:
    """A job that its agreement allows now, and with whom it runs."""

    job: Job
    agreement: Agreement
    peer: Identity
    disclosure: dict[str, list[str]]
    card: Scorecard | None = None  # the bank's, for a score


def plan(node: Node, job_yaml: str) -> Plan:
    """Check a job before anything starts. Raises JobInvalid, AgreementRefusal, WrongRole, ..."""
    job = Job.from_yaml(job_yaml)
    with _refusals_logged(node, job, node.config.name):
        agreement = agreements.in_force(node, job.agreement)
        if agreement.parties.bank != node.config.name:
            raise WrongRole(
                f"Under {job.agreement} jobs are started by {agreement.parties.bank}.",
                f"Ask {agreement.parties.bank} to run it; this node answers by itself.",
            )
        card = _scorecard(node, agreement, job)
        return replace(_plan(node, agreement, job, agreement.parties.partner), card=card)


def _scorecard(node: Node, agreement: Agreement, job: Job) -> Scorecard | None:
    """What a score is asked for with. Raises JobInvalid, JobError, ScorecardInvalid, ..Unfit."""
    if job.job != "score":
        return None
    if job.scorecard is None:
        raise JobInvalid(
            "This is no valid job: scorecard: is missing.",
            "Name the file of the scorecard; docs/reference has a complete job.",
        )
    card = scorecards.read(node.home.path / job.scorecard)
    if agreement.jobs.score is not None:
        weigh(card, tables.grids(agreement))
    return card


def _plan(node: Node, agreement: Agreement, job: Job, peer: str) -> Plan:
    now = node.now()
    with node.reading() as conn:

        def runs_within(window: timedelta) -> int:
            return receipt.runs_started_since(conn, agreement.agreement, now - window)

        permits(agreement, job, now=now, runs=runs_within)
        budget.check(conn, agreement, job.job, now=now)
        differencing.check_cells(conn, agreement, job, 1, now=now)
    witnessing.required(node, agreement)
    return Plan(job, agreement, node.peer(peer), disclosure(agreement, job))


@contextmanager
def _refusals_logged(node: Node, job: Job, asked_by: str) -> Iterator[None]:
    """What no agreement allows is refused, and the attempt is on record."""
    try:
        yield
    except ConcordatError as refusal:
        body = {"agreement": job.agreement, "by": asked_by, "error": refusal.code, "job": job.job}
        with node.writing() as conn:
            node.log.append(conn, "job.refused", body, time=node.now())
            node.log.checkpoint(conn)
        raise


def _people(path: str, dataset: Dataset) -> Dataset:
    """The people a job names in a file: identifiers like those of the agreed dataset."""
    kind, region = dataset.identifier.kind, dataset.identifier.region
    identifier = Identifier(column=kind, kind=kind, region=region)
    try:
        return Dataset(path=Path(path), identifier=identifier, duplicates="first")
    except ValidationError:
        raise JobError(
            "The file of `people` should end in .csv or .parquet.",
            f"Name a table with a column {kind}.",
        ) from None


class Control:
    """Lets another thread cancel a run; and this one end it on the other side as well."""

    def __init__(self) -> None:
        self._transport: StreamTransport | None = None
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        if self._transport is not None:
            self._transport.interrupt()

    def watch(self, transport: StreamTransport) -> None:
        """The run goes over this transport from now on."""
        self._transport = transport
        if self.cancelled:
            transport.interrupt()

    def check(self) -> None:
        """Raise Cancelled if the run was."""
        if self.cancelled:
            raise _cancelled()

    def tell(self, channel: Channel, error: ConcordatError) -> None:
        """Say to the other side why the run ends, if it still listens."""
        if self._transport is not None:
            self._transport.give_up()
        with suppress(ConcordatError):
            channel.abort(_public(error))


# The two sides


def run_job(node: Node, job_yaml: str, listen: Listener, control: Control) -> dict[str, Any]:
    """The bank's side of a job, from plan to result; returns the run's report.

    Raises ConcordatError; `concordat job show` then says more.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with node.one_run():
                planned = plan(node, job_yaml)
                report = _initiate(node, planned, listen, control)
        except (ConsentChanged, PeerAborted) as error:
            changed = isinstance(error, ConsentChanged) or error.peer_code == ConsentChanged.code
            if not changed or attempt == ATTEMPTS:
                raise
        else:
            report.setdefault("warnings", []).extend(_cosign(node, planned.peer))
            return report
    raise AssertionError("unreachable")


def _initiate(node: Node, planned: Plan, listen: Listener, control: Control) -> dict[str, Any]:
    run = secrets.token_hex(16)
    limits = node.config.limits

    def progress(stage: str, done: int, total: int) -> None:
        control.check()
        listen(run, stage, done, total)

    with node.dial(planned.peer) as client:
        transport = client.run(limits.run_seconds)
        control.watch(transport)
        channel = Channel(transport, initiator=True, max_frame=limits.frame_bytes)
        session = Session(node, planned, "bank", run, channel, listen=progress)
        try:
            with session.recorded(control):
                channel.send(session.ours)
                theirs = channel.receive(Hello)
                session.check(theirs)
                session.play(theirs)
        finally:
            transport.finish()
    return session.report


def serve_run(node: Node, peer: Identity, transport: StreamTransport) -> None:
    """The partner's side of a run that a peer has opened. Raises nothing: failures are recorded."""
    try:
        try:
            _answer(node, peer, transport)
        finally:
            transport.finish()
        _cosign(node, peer)
    except ConcordatError as error:
        _logger.info("a run with %s ended: %s %s", peer.name, error.code, error.message)
    except Exception:
        _logger.exception("a run with %s failed", peer.name)


def _cosign(node: Node, peer: Identity) -> list[dict[str, str]]:
    """Ask for a cosignature of what the run has logged. What comes of it no longer changes the run,
    but that a witness disputes the log must be heard: as warnings for the run's report.
    """
    try:
        witnessing.ask_all(node, peer)
    except ConcordatError as error:
        _logger.warning("after a run with %s: %s %s", peer.name, error.code, error.message)
        return [_warning(error)]
    return []


def _answer(node: Node, peer: Identity, transport: StreamTransport) -> None:
    limits = node.config.limits
    channel = Channel(transport, initiator=False, max_frame=limits.frame_bytes)
    control = Control()
    control.watch(transport)
    with ExitStack() as stack:
        try:
            theirs = channel.receive(Hello)
            stack.enter_context(node.one_run())
            planned = _plan_for(node, peer, theirs)
            session = Session(
                node, planned, "partner", theirs.run, channel, listen=lambda *_: control.check()
            )
        except ConcordatError as error:
            control.tell(channel, error)
            raise
        transport.allow(limits.run_seconds)
        with session.recorded(control):
            channel.send(session.ours)
            session.check(theirs)
            session.play(theirs)


def _plan_for(node: Node, peer: Identity, theirs: Hello) -> Plan:
    """What the bank asks for, checked like a job of our own. What is refused is on record."""
    if not re.fullmatch(r"[0-9a-f]{32}", theirs.run) or node.knows_run(theirs.run):
        raise ProtocolViolation("The bank gave the run a name that is none, or not new.")
    _check_attempts(node, peer)
    job: Job | None = None
    try:
        _check_version(theirs)
        job = Job.from_document(theirs.job)
        with _refusals_logged(node, job, peer.name):
            agreement = agreements.in_force(node, job.agreement)
            if (agreement.parties.bank, agreement.parties.partner) != (peer.name, node.config.name):
                raise ProtocolViolation(f"{peer.name} is not the bank of this agreement.")
            return _plan(node, agreement, job, peer.name)
    except ConcordatError as refusal:
        with node.writing() as conn:
            runs.record_start(
                conn,
                theirs.run,
                job=job.job if job else "unknown",
                agreement=job.agreement if job else "unknown",
                role="partner",
                peer=peer.name,
                now=node.now(),
            )
            runs.record_end(conn, theirs.run, _state(refusal), _error(refusal), node.now())
        raise


def _check_attempts(node: Node, peer: Identity) -> None:
    """Every attempt is on record, whatever becomes of it: there may not be any number of them."""
    limit = node.config.limits.attempts_per_day
    with node.reading() as conn:
        attempts = runs.opened_since(conn, peer.name, node.now() - DAY)
    if attempts >= limit:
        raise TooManyAttempts(
            f"{peer.name} has opened {limit:,} runs within a day.",
            "Wait, or raise `limits.attempts_per_day` in config.yaml there if that is meant to be.",
        )


def _check_version(theirs: Hello) -> None:
    if theirs.protocol_version != PROTOCOL_VERSION:
        raise WrongVersion(
            f"The other node speaks version {theirs.protocol_version} of the protocol, "
            f"this one {PROTOCOL_VERSION}.",
            "Bring both nodes to the same version of Concordat.",
        )


class Session:
    """One run on one side."""

    def __init__(
        self,
        node: Node,
        planned: Plan,
        role: Role,
        run: str,
        channel: Channel,
        *,
        listen: Progress = silent,
    ) -> None:
        self.node = node
        self.agreement, self.job, self.peer = planned.agreement, planned.job, planned.peer
        self.role: Role = role
        self.run = run
        self.channel = channel
        self.started = node.now()
        self.card = planned.card
        self.stages = Stages(listen, lambda: (channel.bytes_sent, channel.bytes_received))
        self.report: dict[str, Any] = {
            "run": run,
            "job": self.job.job,
            "agreement": self.agreement.agreement,
            "purpose": self.agreement.purpose,
            "role": role,
            "peer": self.peer.name,
            "disclosure": planned.disclosure,
        }

        self._secret: SecretKey | None = None
        self.period: periods.BankSide | periods.PartnerSide | None = None
        self.tabled = tables.terms(self.agreement, self.job, SUITE)
        self.copy: Copy | None = None
        self.held: tables.Held | None = None
        if self.tabled and role == "bank":
            self.made_for = self._made_for()
            self.copy = node.copies.find(self._slot, self.tabled, self.made_for, self._verify)
        elif self.tabled:
            self.held = node.tables.find(self._slot, self.agreement.digest, self.started)
        self.ours = self._hello()
        self.decision: gate.Decision | None = None
        self.tokens: U8 | None = None  # what its people are called in the run

    @contextmanager
    def recorded(self, control: Control) -> Iterator[None]:
        """Keep the run's record; on a failure tell the other side, and say why it failed.

        Meanwhile `control` can cancel the run, by its id, in `node.controls`.
        """
        node, report = self.node, self.report
        failure: ConcordatError | None = None
        node.controls[self.run], node.stages[self.run] = control, self.stages
        try:
            with node.writing() as conn:
                runs.record_start(
                    conn,
                    self.run,
                    job=self.job.job,
                    agreement=self.agreement.agreement,
                    role=self.role,
                    peer=self.peer.name,
                    now=self.started,
                )
            yield
        except ConcordatError as error:
            failure = _cancelled() if control.cancelled else error
        except OSError as error:
            _logger.exception("run %s failed", self.run)
            failure = HomeUnusable(
                f"A file of the node's home could not be read or written: {error.strerror}.",
                "See that its disk has room and that its user may write there.",
            )
        except Exception:
            _logger.exception("run %s failed", self.run)
            failure = InternalError("The node failed in this run.", "Look at the node's own log.")
        finally:
            del node.controls[self.run], node.stages[self.run]
        self.stages.close()
        state = _state(failure)
        report["stages"] = {name: asdict(cost) for name, cost in self.stages.costs.items()}
        report["state"] = state
        if failure is not None:
            control.tell(self.channel, failure)
            report |= _error(failure)
        node.unsettled = True
        with node.writing() as conn:
            if failure is not None:
                body = {"run": self.run, "state": state, "error": failure.code}
                node.log.append(conn, "run.ended", body, time=node.now())
                node.log.checkpoint(conn)
            runs.record_end(conn, self.run, state, report, node.now())
        node.unsettled = False
        if failure is not None:
            raise failure

    # Before the job

    def _hello(self) -> Hello:
        modulus = proof = b""
        terms = getattr(self.agreement.jobs, self.job.job)
        if (self.role, self.job.job) in jobs.ENCRYPTS:
            secret = self._secret_key(terms.key_bits)
            modulus, proof = secret.public.modulus, prove(secret)
        head = self.copy.head if self.copy else self.held.table.head if self.held else None
        return Hello(
            protocol_version=PROTOCOL_VERSION,
            run=self.run,
            agreement_digest=self.agreement.digest,
            suite=SUITE,
            role=self.role,
            party=self.node.config.name,
            job=self.job.shared,
            signing_key=self.node.signing_key.public,
            paillier_modulus=modulus,
            paillier_proof=proof,
            code_version=version("concordat"),
            time=timestamp(self.started),
            table_epoch=head.epoch if head else b"",
            table_version=head.version if head else 0,
        )

    def _secret_key(self, bits: int) -> SecretKey:
        """The node's Paillier key of the one size that the job has: reading it takes a while."""
        if self._secret is None:
            self._secret = self.node.paillier_key(bits, scores=self.job.job == "score")
        return self._secret

    def check(self, theirs: Hello) -> None:
        """Raise ProtocolViolation unless the other side speaks of the same run, as itself."""
        _check_version(theirs)
        for name in ("run", "agreement_digest", "suite", "job"):
            if getattr(theirs, name) != getattr(self.ours, name):
                raise ProtocolViolation(f"The two nodes do not agree on the run's {name}.")
        other = "partner" if self.role == "bank" else "bank"
        if (theirs.role, theirs.party) != (other, self.peer.name):
            raise ProtocolViolation("The other node does not take its own part in the run.")
        if theirs.signing_key != self.peer.signing_key:
            raise ProtocolViolation("The other node signs with another key than the one pinned.")
        if abs(_time(theirs.time) - self.started) > CLOCK_SKEW:
            raise ProtocolViolation("The two nodes' clocks are more than ten minutes apart.")
        if len(theirs.code_version) > 64:
            raise ProtocolViolation("The other node's version is no version.")

    def play(self, theirs: Hello) -> None:
        """The whole run after the greeting. Leaves result and receipt in the report."""
        earlier = self._earlier()
        started = _time(theirs.time if self.role == "partner" else self.ours.time)
        self.period = self._period(started)
        if not self.ours.table_epoch or self.ours.table_epoch != theirs.table_epoch:
            self.copy = self.held = None  # the partner makes a new table
        material = self._load_held(self.held) if self.held else self._load()
        section, peer_section = self._exchange_inputs()
        ours_first = self.role == "bank"
        bank, partner = (section, peer_section) if ours_first else (peer_section, section)
        self._check_asked(bank.size)
        statement = receipt.intent(
            self.run,
            self.agreement,
            self.job,
            suite=SUITE,
            bank=bank,
            partner=partner,
            started=started,
            segmentation=self._segmentation(),
        )
        intent = self._sign_and_record("intent", statement)
        self._ready(peer_section.log_size)
        if self.card:
            self._commit_card(self.card)
        job = jobs.Run(
            agreement=self.agreement,
            job=self.job,
            channel=self.channel,
            material=material,
            peer_size=peer_section.size,
            release=self._release,
            progress=self.stages,
            modulus=theirs.paillier_modulus,
            proof=theirs.paillier_proof,
            secret_key=self._secret_key,
            note=self.report.__setitem__,
            card=self.card,
            watch=self._watched(),
            use=self._use(theirs),
            earlier=earlier,
            named=self._name,
            period=self.period,
        )
        outcome = jobs.bank(job) if self.role == "bank" else jobs.partner(job)
        if isinstance(self.period, periods.PartnerSide) and self.period.held:
            self.report["held_back"] = self.period.held
        self._complete(intent, outcome, theirs.code_version)

    def _period(self, started: datetime) -> periods.BankSide | periods.PartnerSide | None:
        """What the run is held against, if the agreement has periods; the bank's time says which.

        What is over is destroyed first.
        """
        slot = differencing.Slot.of(self.agreement, self.job, started)
        if slot is None:
            return None
        periods.expire(self.node)
        run = (self.node, slot, self.agreement, self.job, self.run)
        if self.role == "bank":
            return periods.BankSide(*run)
        return periods.PartnerSide(*run)

    def _segmentation(self) -> dict[str, str] | None:
        """For the intent."""
        if self.period is None:
            return None
        slot = self.period.slot
        return {"period": slot.period, "job": slot.job, "root": self.period.root.hex()}

    def _earlier(self) -> bins.Earlier | None:
        """The run that this one is measured against, as this side remembers it."""
        if self.job.since is None:
            return None
        with self.node.reading() as conn:
            run = runs.find_run(conn, self.job.since)
        same = {"job": self.job.job, "agreement": self.agreement.agreement, "peer": self.peer.name}
        bins_ = run["report"].get("bins", {}) if same.items() <= run.items() else {}
        asked = getattr(self.agreement.jobs, self.job.job).features
        if run["state"] != runs.COMPLETED or not set(asked) <= bins_.keys():
            raise EarlierRunUnfit(
                "The run named in `since` is no earlier run of this job that had a result.",
                "`concordat job list HOME` shows the runs; without `since` this one starts anew.",
            )
        return bins.Earlier.of(run["report"])

    def _load(self) -> jobs.Material:
        """Read the table, and leave out whom the gate does not let in."""
        node, role = self.node, self.role
        provided = self.agreement.data.bank if role == "bank" else self.agreement.data.partner
        self.stages("read table")
        dataset = node.dataset(provided.dataset, provided.identifier)
        if role == "bank" and self.job.people is not None:
            dataset = _people(self.job.people, dataset)
        columns = jobs.columns(self.agreement, self.job, role)
        table = features.load(dataset, node.home.path, columns, node.now())
        self.report["rows"] = table.counts()
        if len(table.rejects):
            table.write_rejects(node.home.run_folder(self.run) / results.REJECTS)
        period, segment = self.period, None
        if isinstance(period, periods.BankSide):
            segment = jobs.placed(self.agreement, self.job, table.frame)
        self.stages("gate", 0, len(table.ids))
        with node.writing() as conn:
            self.decision = gate.decide(
                conn,
                node.log,
                node.vault_keys,
                with_kind(table.ids.kind, table.ids.to_strings()),
                gate.Scope.of(self.agreement, role),
                now=node.now(),
            )
            if self.tabled and role == "partner":
                self._narrow(conn, self.decision, np.ones(self.decision.size, np.bool_))
            rows = np.flatnonzero(self.decision.eligible)
            if period is not None:
                rows, segment = self._in_period(conn, period, table.ids, rows, segment)
        self.stages("gate", len(table.ids), len(table.ids))
        self.report["gate"] = {
            "eligible": self.decision.size,
            "excluded": self.decision.excluded,
        }
        if period is not None and period.waiting:
            self.report["gate"]["waiting"] = period.waiting
        return jobs.Material(table.ids.take(rows), table.frame.iloc[rows], segment)

    def _in_period(
        self,
        conn: Connection,
        period: periods.BankSide | periods.PartnerSide,
        ids: Ids,
        rows: I64,
        segment: I64 | None,
    ) -> tuple[I64, I64 | None]:
        """Which of the eligible rows may be in a run of the period, and the segment of each."""
        now, decision = self.node.now(), self._decided()
        stays = np.ones(len(rows), np.bool_)
        if isinstance(period, periods.PartnerSide):
            stays = period.admit(conn, ids.take(rows))
        elif segment is not None:
            stays, segment = period.place(conn, ids.take(rows), segment[rows], now)
        if not stays.all():
            self._narrow(conn, decision, stays)
        return rows[stays], segment

    # Tables of lookups and scores

    @property
    def _slot(self) -> tables.Slot:
        return self.agreement.agreement, self.job.job

    def _made_for(self) -> bytes:
        """What the bank's copy has to have been made for."""
        terms = self.agreement.jobs.score
        if self.card is None or terms is None:
            return b""
        modulus = self._secret_key(terms.key_bits).public.modulus
        return modulus + weigh(self.card, tables.grids(self.agreement)).values.tobytes()

    def _verify(self, signature: bytes, statement: bytes) -> None:
        try:
            verify(self.peer.signing_key, signature, statement)
        except InvalidSignature:
            raise TableUnsound("The other side's table is not signed by it.") from None

    def _narrow(self, conn: Connection, decision: gate.Decision, stays: Bool) -> None:
        node = self.node
        self.decision = gate.narrowed(conn, node.log, decision, stays, now=node.now())

    def _load_held(self, held: tables.Held) -> jobs.Material:
        """The table that is there already, without whom the gate would no longer let in."""
        node, kind = self.node, self.agreement.data.partner.identifier
        self.stages("gate", 0, held.decision.size)
        with node.writing() as conn:
            stays = gate.still(conn, held.decision, now=node.now())
            self._narrow(conn, held.decision, stays)
        held.narrow(stays, self._decided())
        self.report["gate"] = {"eligible": int(stays.sum()), "removed": int((~stays).sum())}
        self.stages("gate", len(stays), len(stays))
        return jobs.Material(Ids.from_strings(kind, pd.Series([], dtype=str)), pd.DataFrame())

    def _check_asked(self, asked: int) -> None:
        """Raise AgreementRefusal where the bank would ask for more people than it may."""
        if not self.tabled:
            return
        limit = getattr(self.agreement.jobs, self.job.job).people_per_day
        name, kind = self._slot
        with self.node.reading() as conn:
            before = receipt.people_asked_since(conn, name, kind, self.started - DAY)
        if before + asked > limit:
            raise AgreementRefusal(
                *self.agreement.named,
                f"jobs.{kind}.people_per_day",
                f"{before:,} people were asked for in the last 24 hours, and now {asked:,} more",
            )

    def _use(self, theirs: Hello) -> tables.Use | None:
        """How the job finds and keeps its table."""
        terms, node = self.tabled, self.node
        if terms is None:
            return None

        def keep(copy: Copy) -> None:
            node.copies.keep(self._slot, terms, self.made_for, copy)

        def hold(table: Table) -> None:
            decision = self._decided()
            hours = timedelta(hours=getattr(self.agreement.jobs, self.job.job).epoch_hours)
            ends = min(self.started + hours, self.agreement.valid.until)
            rows = np.arange(decision.size)
            in_force = partial(_in_force, node, self.agreement)
            held = tables.Held(self.agreement.digest, table, decision, rows, ends, in_force)
            node.tables.hold(self._slot, held, ends - node.now())

        return tables.Use(
            terms=terms,
            copy=self.copy,
            table=self.held.table if self.held else None,
            known=theirs.table_version if self.held else None,
            keep=keep,
            hold=hold,
            rows=lambda: self.held.rows if self.held else np.arange(self._decided().size),
            sign=node.signing_key.sign,
            verify=self._verify,
        )

    def _commit_card(self, card: Scorecard) -> None:
        """Log which scorecard is used, so that an auditor can be shown it later, and no other."""
        node, data = self.node, scorecards.document(card)
        salt, commitment = receipt.commit(data)
        folder = node.home.run_folder(self.run)
        write_private(folder / results.CARD, data)
        write_private(folder / results.CARD_SALT, salt.hex().encode() + b"\n")
        with node.writing() as conn:
            body = {"run": self.run, "commitment": commitment.hex()}
            node.log.append(conn, "score.card", body, time=node.now())
            node.log.checkpoint(conn)

    def _exchange_inputs(self) -> tuple[receipt.Section, receipt.Section]:
        self.stages("sign intent")
        decision = self._decided()
        at = decision.checkpoint
        ours = receipt.Section.of(self.node.config.name, self.node.signing_key.public, decision)
        self.channel.send(
            Inputs(
                root=ours.root,
                size=ours.size,
                log_origin=ours.log_origin,
                log_size=ours.log_size,
                log_root=ours.log_root,
                log_checkpoint=at.encode().decode(),
                segmentation=self.period.root if self.period else b"",
            )
        )
        sent = self.channel.receive(Inputs)
        checkpoint = Checkpoint.parse(sent.log_checkpoint.encode())
        checkpoint.verify(VerifierKey.parse(self.peer.log_key))
        said = (sent.log_origin, sent.log_size, sent.log_root)
        if said != (checkpoint.origin, checkpoint.size, checkpoint.root) or len(sent.root) != 32:
            raise ProtocolViolation("The other node's inputs are not those of its checkpoint.")
        if not sent.size:
            raise ProtocolViolation("The other node would put in nobody.")
        if sent.size > self.node.config.limits.rows:
            raise TooManyRows(
                f"{self.peer.name} would put in {sent.size:,} rows; "
                f"the limit here is {self.node.config.limits.rows:,}.",
                "Raise `limits.rows` in config.yaml if that is meant to be.",
            )
        self._check_segmentation(sent.segmentation)
        theirs = receipt.Section(
            party=self.peer.name,
            key=self.peer.signing_key,
            root=sent.root,
            size=sent.size,
            log_origin=sent.log_origin,
            log_size=sent.log_size,
            log_root=sent.log_root,
        )
        return ours, theirs

    def _check_segmentation(self, root: bytes) -> None:
        """Raises SegmentationChanged (E314) where the bank's is another than the period's."""
        expected = 32 if isinstance(self.period, periods.PartnerSide) else 0
        if len(root) != expected:
            raise ProtocolViolation("The other node's segmentation has a root that is none.")
        if isinstance(self.period, periods.PartnerSide):
            self.period.check_root(root)

    def _sign_and_record(self, kind: Literal["intent", "completion"], statement: bytes) -> Envelope:
        """Both sign the statement both have built; a receipt is in the log before anything else."""
        envelope = receipt.signed(statement, self.node.signing_key)
        own = envelope.signatures[self.node.signing_key.keyid]
        self.channel.send(Signature(statement=kind, signature=own))
        theirs = self.channel.receive(Signature)
        if theirs.statement != kind:
            raise ProtocolViolation(f"The other node signed something else than the {kind}.")
        envelope = receipt.countersigned(envelope, self.peer.signing_key, theirs.signature)
        node = self.node
        with node.writing() as conn:
            keys, now = node.signing_keys(), node.now()
            if kind == "intent":
                receipt.begin(conn, node.log, envelope, self._decided(), keys, time=now)
            else:
                receipt.complete(conn, node.log, envelope, keys, time=now)
            node.log.checkpoint(conn)
        return envelope

    def _ready(self, peer_log_size: int) -> None:
        """No data before the intent is in both logs, cosigned if the agreement requires it."""
        checkpoint = witnessing.cosigned(self.node, self.agreement)
        self.channel.send(Ready(statement="intent", checkpoint=checkpoint))
        theirs = self.channel.receive(Ready)
        if theirs.statement != "intent":
            raise ProtocolViolation("The other node is not ready for the run.")
        witnessing.check_cosigned(
            self.node, self.agreement, self.peer, theirs.checkpoint, peer_log_size
        )

    # During and after the job

    def _name(self, tokens: U8) -> None:
        """What the people are called, uint8 (k, w), in the gate's order: kept with the release."""
        self.tokens = tokens

    def _release(self) -> None:
        """The gate's second decision, in one transaction with its entry in the log.

        And with the entries that spend of the privacy budget and count what is released, and what
        later runs are compared with, before anything is answered.
        """
        node, keys = self.node, self.node.signing_keys()
        with node.writing() as conn:
            lifecycle.check_still(conn, self.agreement, keys)
            budget.spend(conn, node.log, self.agreement, self.job.job, self.run, now=node.now())
            if self.period is not None:
                self.period.record(conn, node.now())
            gate.release(
                conn, node.log, self.run, self._decided(), now=node.now(), tokens=self.tokens
            )

    def _complete(self, intent: Envelope, outcome: jobs.Outcome | None, peer_version: str) -> None:
        """Agree on the transcript, sign and log the completion; only then the result exists."""
        self.stages("sign completion")
        transcript = self.channel.transcript()
        salt, commitment = b"", b""
        if self.role == "bank" and outcome is not None:
            salt, commitment = receipt.commit(outcome.file)
        time = timestamp(self.node.now())
        self.channel.send(Commitment(transcript=transcript, result=commitment, time=time))
        theirs = self.channel.receive(Commitment)
        if not hmac.compare_digest(theirs.transcript, transcript):
            raise AnswersDisagree("The two nodes did not see the same bytes.")
        if self.role == "partner":
            commitment, time = theirs.result, theirs.time
        if len(commitment) != 32 or abs(_time(time) - self.node.now()) > CLOCK_SKEW:
            raise ProtocolViolation("The bank's commitment to its result is malformed.")
        statement = receipt.completion(
            intent.payload,
            transcript=transcript,
            commitment=commitment,
            versions={
                self.node.config.name: version("concordat"),
                self.peer.name: peer_version,
            },
            finished=_time(time),
        )
        files = {outcome.file_name: outcome.file} if outcome is not None else {}
        if outcome is not None and outcome.tokens:
            files[results.TOKENS] = outcome.tokens
        if salt:
            files[results.SALT] = salt.hex().encode() + b"\n"
        folder = self.node.home.run_folder(self.run)
        with results.kept(folder, files):
            envelope = self._sign_and_record("completion", statement)
        self.report |= results.release(folder, intent.to_json(), envelope.to_json())
        self.report["transcript"] = transcript.hex()
        if outcome is not None:
            self.report["result"] = outcome.summary
            if outcome.flaw is not None:
                self.report["warnings"] = [_warning(outcome.flaw)]
            if outcome.watched is not None:
                self._keep_watch(*outcome.watched)

    def _keep_watch(self, watch: Watch, scores: pd.DataFrame, counts: dict[str, Any]) -> None:
        """Keep the scores for the next time; log counts only, as the list itself is the result."""
        node = self.node
        watch.keep(scores)
        with node.writing() as conn:
            body = {"run": self.run, **counts}
            node.log.append(conn, "score.watch", body, time=node.now())
            node.log.checkpoint(conn)

    def _watched(self) -> Watch | None:
        """What an early warning compares with."""
        if self.card is None or self.job.watch is None:
            return None
        path = self.node.home.path / "watch" / f"{self.agreement.agreement}.{self.card.scorecard}"
        digest = hashlib.sha256(scorecards.document(self.card)).hexdigest()
        return Watch(path, digest, self.job.watch.fell_by)

    def _decided(self) -> gate.Decision:
        if self.decision is None:
            raise ValueError("the gate has not decided yet")
        return self.decision


def _in_force(node: Node, agreement: Agreement) -> bool:
    """Whether it is so still; in doubt it is not."""
    try:
        with node.reading() as conn:
            lifecycle.check_still(conn, agreement, node.signing_keys())
    except ConcordatError:
        return False
    except Exception:
        _logger.exception("agreement %s could not be looked up", agreement.agreement)
        return False
    return True


# What the other side is told of a failure: its words only where they speak of the run itself or
# the agreement. Of this institution's tables, consents and storage the number must do.
_TOLD = {
    Busy.code,
    Cancelled.code,
    RunTooLong.code,
    TooManyAttempts.code,
    TooManyRows.code,
    WrongVersion.code,
}


def _public(error: ConcordatError) -> ConcordatError:
    if error.code in _TOLD or error.code[1:2] in {"2", "3"}:
        return error
    told = ConcordatError(f"It cannot go on, for a reason of its own ({error.code}).", "")
    told.code = error.code  # type: ignore[misc]
    return told


def _state(failure: ConcordatError | None) -> str:
    """What became of a run: agreements (E3xx) and the gate (E4xx) refuse, the rest fails."""
    if failure is None:
        return runs.COMPLETED
    code = failure.peer_code if isinstance(failure, PeerAborted) else failure.code
    if code == Cancelled.code:
        return runs.CANCELLED
    return runs.REFUSED if code[1:2] in {"3", "4"} else runs.FAILED


def _error(failure: ConcordatError) -> dict[str, Any]:
    """As a run's report says it."""
    return {"error": {"code": failure.code, "message": failure.message}}


def _warning(error: ConcordatError) -> dict[str, str]:
    """Of what a run is complete in spite of."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}


def _cancelled() -> Cancelled:
    return Cancelled(
        "The run was cancelled, on both sides.",
        "Run the job again any time; `concordat job list` shows what became of it.",
    )


def _time(text: str) -> datetime:
    """A peer's RFC 3339 time in UTC. Raises ProtocolViolation."""
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    raise ProtocolViolation("The other node sent a time that is none.")
