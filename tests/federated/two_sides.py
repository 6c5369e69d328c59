"""Two sides of a protocol in two threads, over a memory pair."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from federated.channel import MAX_FRAME, Channel, memory_pair
from federated.identifiers import Ids
from protos.concordat.v1.run_pb2 import Frame
from protos.errors import ConcordatError

Role = Callable[[Channel], Any]
M = TypeVar("M", bound=Message)


@dataclass
class Side:
    """What one side came to."""

    channel: Channel
    result: Any = None
    error: Exception | None = None

    def act(self, role: Role) -> None:
        try:
            self.result = role(self.channel)
        except ConcordatError as error:
            self.error = error
            self.channel.abort(error)
        except Exception as error:
            self.error = error
        finally:
            self.channel.close()


def play(bank: Role, partner: Role, *, max_frame: int = MAX_FRAME) -> tuple[Side, Side]:
    """Run both roles to their end; a deadlock fails the test."""
    sides = [Side(channel) for channel in memory_pair(queued_frames=2, max_frame=max_frame)]
    threads = [
        threading.Thread(target=side.act, args=(role,), daemon=True)
        for side, role in zip(sides, (bank, partner), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "the two sides wait for each other"
    return sides[0], sides[1]


def succeed(bank: Role, partner: Role, *, max_frame: int = MAX_FRAME) -> tuple[Any, Any]:
    """Both results; both sides must have seen the same transcript."""
    ours, theirs = play(bank, partner, max_frame=max_frame)
    assert ours.error is None, ours.error
    assert theirs.error is None, theirs.error
    assert ours.channel.transcript() == theirs.channel.transcript()
    assert ours.channel.bytes_sent == theirs.channel.bytes_received
    assert ours.channel.bytes_received == theirs.channel.bytes_sent
    return ours.result, theirs.result


def tampering(role: Role, kind: type[M], change: Callable[[M], None]) -> Role:
    """The same role, but every message of that kind is changed on its way out."""

    def changed(channel: Channel) -> Any:
        transport = channel._transport
        send = transport.send

        def send_changed(data: bytes) -> None:
            frame = Frame.FromString(data)
            body = getattr(frame, frame.WhichOneof("body"))
            if isinstance(body, kind):
                change(body)
            send(frame.SerializeToString())

        transport.send = send_changed
        return role(channel)

    return changed


def phones(numbers: Iterable[int]) -> Ids:
    strings = [b"+86%011d" % number for number in numbers]
    offsets = np.cumsum([0, *map(len, strings)]).astype(np.uint64)
    return Ids("phone", np.frombuffer(b"".join(strings), np.uint8), offsets)


class Withdrawn(ConcordatError):
    """A gate's refusal."""

    code = "E499"


@dataclass
class Gate:
    """A release hook that counts its calls, and refuses if shut."""

    shut: bool = False
    calls: int = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.shut:
            raise Withdrawn("Someone withdrew.", "Run it again.")
