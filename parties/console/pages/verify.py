"""Verify: one button, how far it is, a verdict in one sentence, and what was checked."""

import threading
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import Response

from compliance.audit import Verdict
from parties import audits
from parties.console import originals
from parties.console.visit import Reading, Writing
from parties.node import Node
from protos.errors import ConcordatError

router = APIRouter()

STAGES = ("entries", "agreements", "receipts", "consents", "witnesses")
_SHOWN = 50  # findings


@dataclass
class Verification:
    """One that is under way or over; the last one is what the page shows."""

    by: str
    started: datetime
    stage: str = STAGES[0]
    done: int = 0
    total: int = 0
    verdict: Verdict | None = None
    not_asked: list[str] = field(default_factory=list)
    failure: ConcordatError | None = None
    finished: datetime | None = None

    def run(self, node: Node) -> None:
        """To its end."""
        try:
            self.verdict, self.not_asked = audits.verify(node, progress=self._follow)
        except ConcordatError as error:
            self.failure = error
        except Exception:
            node.logger.exception("a verification failed")
        finally:
            self.finished = node.now()

    def _follow(self, stage: str, done: int, total: int) -> None:
        self.stage, self.done, self.total = stage, done, total


class Verifications:
    """One at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last: Verification | None = None

    def start(self, node: Node, by: str) -> None:
        """Starts one, unless one is under way."""
        with self._lock:
            if self.last is not None and self.last.finished is None:
                return
            self.last = Verification(by, node.now())
            work = threading.Thread(target=self.last.run, args=(node,), name="verify", daemon=True)
            work.start()


@router.get("/verify")
def show(visit: Reading) -> Response:
    """The last one, or how far it is."""
    last = visit.request.app.state.verifications.last
    under_way = last is not None and last.finished is None
    found = last.verdict.report.findings[:_SHOWN] if last and last.verdict else []
    return visit.page(
        "verify.html",
        last=last,
        under_way=under_way,
        stages=STAGES,
        findings=originals.findings(visit.language, found),
    )


@router.post("/verify")
def start(visit: Writing) -> Response:
    visit.request.app.state.verifications.start(visit.node, visit.user.name)
    return visit.go("/verify")
