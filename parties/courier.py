"""What partners have yet to be told is told by the serving node, again and again until it is.

The queue is what the store holds: notices of withdrawals and about agreements that nobody has
acknowledged, and this node's signatures under agreements. So it outlives a restart; how long to
wait before the next try does not, and a node that starts tries at once. A partner that has a
signature already takes it for what it is; whether it has is not stored, so each is told once more
when a node starts.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from compliance import lifecycle, withdrawal
from compliance.lifecycle import Notice as AgreementNotice
from compliance.withdrawal import Notice as WithdrawalNotice
from parties import agreements, withdrawals
from parties.errors import PeerUnreachable
from parties.identity import Identity
from parties.node import Node
from parties.wire import PeerClient
from protos.errors import ConcordatError

LOOK_SECONDS = 1.0  # how often the store is looked at
FIRST_SECONDS = 5.0  # until a second try; then twice as long each time
MOST_SECONDS = 3600.0


@dataclass(frozen=True)
class Letter:
    """Something to be told: what it is called here, and how it is done."""

    name: str
    send: Callable[[PeerClient, Identity], object]
    failed: Callable[[ConcordatError], None]
    once: bool = False  # whether it is still in the queue when it was delivered


@dataclass
class Courier:
    """Delivers in the order in which things happened, one partner after the other."""

    node: Node
    _tries: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _due: dict[str, float] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def run(self, stopped: threading.Event) -> None:
        """Until the node stops."""
        while not stopped.is_set():
            try:
                self.look(stopped)
            except ConcordatError as error:  # the store is locked, or worse
                self.node.logger.warning("notices: %s %s", error.code, error.message)
            except Exception:
                self.node.logger.exception("notices could not be delivered")
            stopped.wait(LOOK_SECONDS)

    def look(self, stopped: threading.Event) -> None:
        """One round: everything whose time has come."""
        waiting: dict[str, list[Letter]] = defaultdict(list)
        for peer, letter in self._letters():
            if self._due.get(letter.name, 0) <= time.monotonic():
                waiting[peer].append(letter)
        for peer, letters in waiting.items():
            if not stopped.is_set():
                self._deliver(peer, letters)

    def _letters(self) -> Iterator[tuple[str, Letter]]:
        node, name = self.node, self.node.config.name
        with node.reading() as conn:
            about_agreements = lifecycle.undelivered(conn, name)
            about_people = withdrawal.undelivered(conn, name)
        for agreement, version in agreements.signed_here(node):
            letter = _signature(node, agreement, version)
            if letter.name not in self._told:
                with suppress(ConcordatError):  # damaged, as below
                    held = agreements.find(node, agreement, version)
                    yield agreements.other_party(node, held.agreement), letter
        for notice in about_agreements:
            with suppress(ConcordatError):  # damaged: `audit verify` says so
                yield agreements.recipient(node, notice), _about_agreement(node, notice)
        for told in about_people:
            yield told.recipient, _about_people(node, told)

    def _deliver(self, name: str, letters: list[Letter]) -> None:
        left, refused = list(letters), set[str]()
        try:
            peer = self.node.peer(name)
            with self.node.dial(peer) as client:
                while left:
                    letter = left[0]
                    if letter.name not in refused:  # what follows one that was refused has to wait
                        try:
                            letter.send(client, peer)
                        except PeerUnreachable:
                            raise
                        except ConcordatError as error:
                            refused.add(letter.name)
                            self._later(letter, error)
                        else:
                            self._tries.pop(letter.name, None)
                            self._due.pop(letter.name, None)
                            if letter.once:
                                self._told.add(letter.name)
                    del left[0]
        except ConcordatError as error:
            for letter in left:
                self._later(letter, error)

    def _later(self, letter: Letter, error: ConcordatError) -> None:
        seconds = min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(self._tries[letter.name], 32))
        self._tries[letter.name] += 1
        self._due[letter.name] = time.monotonic() + seconds
        self.node.logger.info("not delivered, tried again in %d s: %s", seconds, error.message)
        letter.failed(error)


def _signature(node: Node, agreement: str, version: int) -> Letter:
    return Letter(
        f"signature {agreement} {version} {node.signing_key.keyid}",
        lambda client, peer: agreements.offer(
            node, client, peer, agreements.find(node, agreement, version)
        ),
        lambda error: None,
        once=True,
    )


def _about_agreement(node: Node, notice: AgreementNotice) -> Letter:
    return Letter(
        f"agreement {notice.agreement}",
        lambda client, peer: agreements.tell(node, client, peer, notice),
        lambda error: None,
    )


def _about_people(node: Node, notice: WithdrawalNotice) -> Letter:
    def failed(error: ConcordatError) -> None:
        with node.writing() as conn:
            withdrawal.fail(conn, notice, error.code)

    return Letter(
        f"withdrawal {notice.notice}",
        lambda client, peer: withdrawals.deliver(node, client, peer, notice),
        failed,
    )
