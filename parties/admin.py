"""The admin service on a Unix socket, and the commands that call it."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from compliance import people as compliance_people
from compliance.canonical import canonical
from compliance.document import DocumentError, load
from compliance.errors import MustSign
from compliance.people import Actor
from compliance.signing import SigningKey, verify
from parties import agreements, consents, people, session
from parties.config import Home
from parties.console.words import LANGUAGES
from parties.errors import Cancelled, InternalError, Interrupted, JobError, NotServing
from parties.files import write_private
from parties.node import Node
from parties.reports import page
from protos.concordat.v1 import admin_pb2, admin_pb2_grpc
from protos.errors import ConcordatError

_MAX_JOB_BYTES = 1 << 20
_SIGN_SECONDS = 10.0
_MAX_REPORT_BYTES = 256 << 20


class AdminService(admin_pb2_grpc.AdminServicer):
    """Whoever can open the socket, in a folder of mode 0700, is the institution itself."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def Status(  # noqa: N802
        self, request: admin_pb2.StatusRequest, context: grpc.ServicerContext
    ) -> admin_pb2.StatusReply:
        return admin_pb2.StatusReply(
            name=self._node.config.name,
            address=self._node.config.address,
            version=version("concordat"),
        )

    def PreviewJob(  # noqa: N802
        self, request: admin_pb2.JobRequest, context: grpc.ServicerContext
    ) -> admin_pb2.JobPreview:
        try:
            plan = session.plan(self._node, request.job_yaml)
        except ConcordatError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, _details(error))
        return admin_pb2.JobPreview(
            job=plan.job.job,
            agreement=plan.agreement.agreement,
            purpose=plan.agreement.purpose,
            peer=plan.peer.name,
            disclosures=[
                admin_pb2.Disclosure(party=party, learns=learns)
                for party, learns in plan.disclosure.items()
            ],
            budget=agreements.budget_left(self._node, plan.agreement) or "",
            figures=agreements.cells_left(self._node, plan.agreement) or "",
        )

    def CancelRun(  # noqa: N802
        self, request: admin_pb2.CancelRequest, context: grpc.ServicerContext
    ) -> admin_pb2.CancelReply:
        try:
            return admin_pb2.CancelReply(run=self._node.cancel(request.run))
        except ConcordatError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, _details(error))

    def ListUnderWay(  # noqa: N802
        self, request: admin_pb2.UnderWayRequest, context: grpc.ServicerContext
    ) -> admin_pb2.UnderWayReply:
        stages = list(self._node.stages.items())
        runs = [admin_pb2.UnderWay(run=run, **stage.now()) for run, stage in stages]
        return admin_pb2.UnderWayReply(runs=runs)

    def GrantConsent(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.grant, request, context)

    def RenewConsent(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.renew, request, context)

    def RefuseConsent(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.refuse, request, context)

    def WithdrawConsent(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(partial(consents.withdraw, by=request.by), request, context)

    def RestrictPerson(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.restrict, request, context)

    def LiftRestriction(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.lift, request, context)

    def ErasePerson(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.erase, request, context)

    def ShowPerson(  # noqa: N802
        self, request: admin_pb2.ConsentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ConsentReply:
        return self._consent(consents.show, request, context)

    def _consent(
        self,
        change: Callable[[Node, str, Mapping[str, str]], Any],
        request: admin_pb2.ConsentRequest,
        context: grpc.ServicerContext,
    ) -> admin_pb2.ConsentReply:
        try:
            return _consented(self._node, change, request)
        except ConcordatError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, _details(error))

    def SignedConsent(  # noqa: N802
        self,
        requests: Iterator[admin_pb2.SignedConsentRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[admin_pb2.SignedConsentReply]:
        """The user signs while the node's transaction is open, so there is little time."""
        replies: queue.Queue[admin_pb2.SignedConsentReply | ConcordatError] = queue.Queue()

        def ask(to_sign: bytes) -> bytes:
            replies.put(admin_pb2.SignedConsentReply(to_sign=to_sign))
            return bytes(_next(requests, context).signature)

        def work() -> None:
            try:
                call = _next(requests, context).call
                change = _change_called(call)
                with self._node.reading() as conn:
                    key = compliance_people.find(conn, call.user).key
                node = self._node.used_by(Actor(call.user, RemoteKey(key, ask)))
                reply = _consented(node, change, call.request)
                replies.put(admin_pb2.SignedConsentReply(reply=reply))
            except ConcordatError as error:
                replies.put(error)
            except Exception:
                self._node.logger.exception("a call on consents failed")
                replies.put(InternalError("The node failed on this call.", "Look at its own log."))

        threading.Thread(target=work, daemon=True, name="consent").start()
        while True:
            reply = replies.get()
            if isinstance(reply, ConcordatError):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, _details(reply))
            yield reply
            if reply.HasField("reply"):
                return

    def RunJob(  # noqa: N802
        self, request: admin_pb2.JobRequest, context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.JobEvent]:
        events: queue.Queue[admin_pb2.JobEvent | None] = queue.Queue()
        control = session.Control()
        context.add_callback(control.cancel)

        def listen(run: str, stage: str, done: int, total: int) -> None:
            progress = admin_pb2.Progress(run=run, stage=stage, done=done, total=total)
            events.put(admin_pb2.JobEvent(progress=progress))

        def work() -> None:
            try:
                asked = request.asked_entry if request.HasField("asked_entry") else None
                people.check_asked(self._node, request.job_yaml, asked)
                report = session.run_job(self._node, request.job_yaml, listen, control)
                _keep_report(self._node, report, request.language)
                events.put(admin_pb2.JobEvent(report_json=json.dumps(report)))
            except ConcordatError as error:
                events.put(admin_pb2.JobEvent(failure=_failure(error)))
            except Exception:
                self._node.logger.exception("a job failed")
                failure = InternalError("The node failed on this job.", "Look at its own log.")
                events.put(admin_pb2.JobEvent(failure=_failure(failure)))
            finally:
                events.put(None)

        threading.Thread(target=work, daemon=True, name="job").start()
        while (event := events.get()) is not None:
            yield event


def _keep_report(node: Node, report: dict[str, Any], language: str) -> None:
    """Writes a completed run's page of charts. The run stands, whatever comes of that."""
    try:
        report["report_file"] = str(page.keep(node, report["run"], _known(language)))
    except ConcordatError as error:
        failure = {"code": error.code, "message": error.message, "next_step": error.next_step}
        report.setdefault("warnings", []).append(failure)
    except Exception:
        node.logger.exception("a report could not be made")


def _known(language: str) -> str:
    return language if language in LANGUAGES else "en"


Change = Callable[[Node, str, Mapping[str, str]], Any]

_CONSENT_CALLS: dict[str, Callable[[admin_pb2.ConsentRequest], Change]] = {
    "GrantConsent": lambda _: consents.grant,
    "RenewConsent": lambda _: consents.renew,
    "RefuseConsent": lambda _: consents.refuse,
    "WithdrawConsent": lambda request: partial(consents.withdraw, by=request.by),
    "RestrictPerson": lambda _: consents.restrict,
    "LiftRestriction": lambda _: consents.lift,
    "ErasePerson": lambda _: consents.erase,
    "ShowPerson": lambda _: consents.show,
}


def _change_called(call: admin_pb2.SignedCall) -> Change:
    """Raises JobError."""
    if call.call not in _CONSENT_CALLS:
        raise JobError(
            "There is no such call on consents.", f"It is one of {', '.join(_CONSENT_CALLS)}."
        )
    return _CONSENT_CALLS[call.call](call.request)


def _consented(
    node: Node, change: Change, request: admin_pb2.ConsentRequest
) -> admin_pb2.ConsentReply:
    said = {field.name: getattr(request, field.name) for field in request.DESCRIPTOR.fields}
    subject = consents.subject_of(node, request.identifier_kind, request.identifier)
    return admin_pb2.ConsentReply(json=json.dumps(change(node, subject, said)))


@dataclass(frozen=True)
class RemoteKey:
    """A user's key at the other end of a call, held to the public one that the node knows."""

    public: bytes
    ask: Callable[[bytes], bytes]

    def sign(self, message: bytes) -> bytes:
        """Raises InvalidSignature."""
        signature = self.ask(message)
        verify(self.public, signature, message)
        return signature


def _next(
    requests: Iterator[admin_pb2.SignedConsentRequest], context: grpc.ServicerContext
) -> admin_pb2.SignedConsentRequest:
    """What the caller sends next; one that takes too long, or goes, is cut off."""
    timer = threading.Timer(_SIGN_SECONDS, context.cancel)
    timer.start()
    try:
        return next(requests)
    except Exception as error:  # none came: StopIteration, or gRPC's bare Exception
        raise MustSign(
            "No signature came for what was to be written.",
            f"Nothing was changed. The caller signs within {_SIGN_SECONDS:.0f} seconds.",
        ) from error
    finally:
        timer.cancel()


def _failure(error: ConcordatError) -> admin_pb2.Failure:
    return admin_pb2.Failure(code=error.code, message=error.message, next_step=error.next_step)


def _details(error: ConcordatError) -> str:
    fields = {"code": error.code, "message": error.message, "next_step": error.next_step}
    return json.dumps(fields)


class NodeFailure(ConcordatError):
    """A numbered error as the node's admin service reported it."""

    def __init__(self, code: str, message: str, next_step: str) -> None:
        super().__init__(message, next_step)
        self.code = code  # type: ignore[misc]


# The callers


@contextmanager
def _stub(home: Home) -> Iterator[admin_pb2_grpc.AdminStub]:
    """Raises NotServing."""
    try:
        address = json.loads(home.running_file.read_text("utf-8"))["admin"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_serving(home) from error
    limit = [("grpc.max_receive_message_length", _MAX_REPORT_BYTES)]
    with grpc.insecure_channel(address, options=limit) as channel:
        try:
            yield admin_pb2_grpc.AdminStub(channel)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            raise _failed(error, home) from error


def _not_serving(home: Home) -> NotServing:
    return NotServing(
        f"The node in {home.path} is not serving.",
        f"Start it in another window: concordat serve {home.path}",
    )


def _failed(error: Any, home: Home) -> ConcordatError:
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return _not_serving(home)
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        return NodeFailure(**json.loads(error.details()))
    return InternalError(
        f"The node did not finish the call ({error.code().name.lower()}).", "Look at its own log."
    )


def ping(home: Home) -> dict[str, str] | None:
    """The node's status, or None if it does not serve."""
    try:
        with _stub(home) as stub:
            reply = stub.Status(admin_pb2.StatusRequest(), timeout=5)
    except (NotServing, InternalError):
        return None
    return {"name": reply.name, "address": reply.address, "version": reply.version}


def status(home: Home, wait: float) -> dict[str, str]:
    """The node's status, waited for. Raises NotServing."""
    home.config()
    deadline = time.monotonic() + wait
    while (reply := ping(home)) is None:
        if time.monotonic() >= deadline:
            raise _not_serving(home)
        time.sleep(0.1)
    return reply


def cancel(home: Home, run: str) -> str:
    """Cancel a run under way; its id. Raises NotServing, UnknownRun (as NodeFailure)."""
    with _stub(home) as stub:
        return str(stub.CancelRun(admin_pb2.CancelRequest(run=run), timeout=30).run)


def signed_consent(
    home: Home, user: str, key: SigningKey, call: str, request: admin_pb2.ConsentRequest
) -> Any:
    """One of the calls on consents, signed by a user: what it answers, from JSON.

    call: its name, such as `WithdrawConsent`. Raises NotServing, or E32x and as the call (as
    NodeFailure).
    """
    first = admin_pb2.SignedCall(user=user, call=call, request=request)
    steps: queue.Queue[admin_pb2.SignedConsentRequest | None] = queue.Queue()
    steps.put(admin_pb2.SignedConsentRequest(call=first))
    with _stub(home) as stub:
        try:
            for reply in stub.SignedConsent(iter(steps.get, None), timeout=60):
                if reply.HasField("reply"):
                    return json.loads(reply.reply.json)
                signature = key.sign(reply.to_sign)
                steps.put(admin_pb2.SignedConsentRequest(signature=signature))
        finally:
            steps.put(None)
    raise InternalError("The node ended the call without an answer.", "Look at its own log.")


def under_way(home: Home) -> list[dict[str, Any]]:
    """How far each run under way is, as `runs.Stages.now` says. Raises NotServing."""
    with _stub(home) as stub:
        reply = stub.ListUnderWay(admin_pb2.UnderWayRequest(), timeout=5)
    names = [field.name for field in admin_pb2.UnderWay.DESCRIPTOR.fields]
    return [{name: getattr(one, name) for name in names} for one in reply.runs]


def run_job(
    home: Home,
    job_file: Path,
    output: Path | None,
    console: Console,
    ask: Callable[[str], int | None] = lambda _: None,
    *,
    language: str = "en",
) -> dict[str, Any]:
    """Preview, run with progress, report. Ctrl-C cancels on both sides.

    ask: signs for the job on a node with users, and gives the entry's index: `people.ask_job`.
    language: of the report.
    """
    try:
        with job_file.open("rb") as file:
            text = file.read(_MAX_JOB_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(
            f"The job file {job_file} cannot be read.", "Check its name; it must be UTF-8 YAML."
        ) from error
    text = _with_paths(text, job_file)
    request = admin_pb2.JobRequest(job_yaml=text, language=language)
    limits = home.config().limits
    with _stub(home) as stub:
        preview = stub.PreviewJob(request, timeout=60)
        console.print(
            f"[bold]{preview.job}[/] with {preview.peer} under {preview.agreement}, "
            f"for {preview.purpose}"
        )
        for disclosure in preview.disclosures:
            for learns in disclosure.learns:
                console.print(f"  {disclosure.party} learns: {escape(learns)}")
        if preview.budget:
            console.print(f"  privacy budget: {escape(preview.budget)}")
        if preview.figures:
            console.print(f"  figures: {escape(preview.figures)}")
        asked = ask(text)
        if asked is not None:
            request.asked_entry = asked
        seconds = session.ATTEMPTS * (limits.run_seconds + 60)
        report = _follow(stub.RunJob(request, timeout=seconds), console, home)
    if output is not None:
        _copy(Path(report["result_file"]), output)
        report["output"] = str(output)
    print_report(report, console)
    return report


def _with_paths(text: str, job_file: Path) -> str:
    """The job with the files it names as the node finds them: they start at the job's folder."""
    try:
        job = load(text)
        names = [name for name in ("people", "scorecard") if isinstance(job.get(name), str)]
        job |= {name: str(job_file.absolute().parent / job[name]) for name in names}
        return canonical(job).decode() if names else text
    except (DocumentError, ConcordatError):
        return text  # the node says what is wrong with it


def _copy(result: Path, output: Path) -> None:
    try:
        write_private(output, result.read_bytes(), overwrite=True)
    except OSError as error:
        raise JobError(
            f"The result could not be written to {output}: {error.strerror}.",
            f"It is kept in {result}.",
        ) from error


class _Count(ProgressColumn):
    """How far a stage is, how fast it goes and how long it will take; only where it is counted."""

    def render(self, task: Any) -> Text:
        if not task.total or task.total == 1:
            return Text("")
        text = f"{task.completed:>10,.0f} of {task.total:,.0f}"
        if task.speed:
            text += f"  {task.speed:,.0f}/s"
        if task.time_remaining:
            text += f"  {task.time_remaining:,.0f} s left"
        return Text(text)


@contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Shows how far stages are (name, done, in all or 0) on a terminal, and nothing elsewhere."""
    columns = (TextColumn("  {task.description:24}"), BarColumn(20), _Count())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        stage, bar = "", TaskID(-1)

        def show(name: str, done: int, total: int) -> None:
            nonlocal stage, bar
            if name != stage:
                if stage:
                    _finish(bars, bar)
                stage, bar = name, bars.add_task(name, total=None)
            bars.update(bar, completed=done, total=total or None)

        yield show
        if stage:
            _finish(bars, bar)


def _follow(events: Any, console: Console, home: Home) -> dict[str, Any]:
    """Show progress until the report comes. Raises what the run raised."""
    columns = (TextColumn("  {task.description:24}"), BarColumn(20), _Count())
    try:
        with Progress(*columns, console=console) as bars:
            stage: tuple[str, str] | None = None
            bar: TaskID | None = None
            for event in events:
                match event.WhichOneof("event"):
                    case "progress":
                        now = event.progress
                        if bar is None or (now.run, now.stage) != stage:
                            _finish(bars, bar)
                            stage = (now.run, now.stage)
                            bar = bars.add_task(now.stage, total=None)
                        bars.update(bar, completed=now.done, total=now.total or None)
                    case "report_json":
                        _finish(bars, bar)
                        return dict(json.loads(event.report_json))
                    case "failure":
                        failure = event.failure
                        raise NodeFailure(failure.code, failure.message, failure.next_step)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        raise Interrupted(
            "The node stopped while the job was running.",
            f"Start it again (concordat serve {home.path}); `concordat job list {home.path}` then "
            "says what became of the run.",
        ) from error
    except KeyboardInterrupt:
        events.cancel()
        raise Cancelled(
            "The job was cancelled, on both sides.", "Nothing was released; run it again any time."
        ) from None
    raise InternalError("The node ended the job without a report.", "Look at its own log.")


def _finish(bars: Progress, bar: TaskID | None) -> None:
    """A stage that was not counted is done when the next begins."""
    if bar is not None and bars.tasks[bar].total is None:
        bars.update(bar, completed=1, total=1)


# Showing


def print_report(report: dict[str, Any], console: Console) -> None:
    """A completed run: the result, then where everything is."""
    result = dict(report.get("result", {}))
    rows = result.pop("table", None)
    for name, value in result.items():
        console.print(f"  {name.replace('_', ' ')}: [bold]{_shown(value)}[/]")
    if rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in rows[0]:
            table.add_column(name.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_shown(value) for value in row.values()))
        console.print(table)
    console.print(f"  result   {escape(report['result_file'])}")
    console.print(f"  receipt  {escape(report['receipt_file'])}")
    if "report_file" in report:
        console.print(f"  report   {escape(report['report_file'])}", soft_wrap=True)
    for warning in report.get("warnings", ()):
        console.print(f"[bold yellow]{warning['code']}[/] {escape(warning['message'])}")
        console.print(f"     {escape(warning['next_step'])}")
        console.print("     The run is complete all the same, and its result stands.")


def print_run(run: dict[str, Any], console: Console) -> None:
    """Any run, from the node's records."""
    report = run.pop("report")
    for name, value in run.items():
        if value is not None:
            console.print(f"{name.replace('_', ' '):14} {escape(str(value))}")
    console.print_json(data=report)


def _shown(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else ""
        case float():
            return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"
        case int():
            return f"{value:,}"
        case list():
            return " ".join(map(_shown, value))
        case _:
            return escape(str(value))
