"""Peers that do not keep to the protocol: their frames pass through a function first."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from parties import session
from parties.node import Node
from parties.wire import PeerClient, StreamTransport
from protos.concordat.v1.run_pb2 import Frame

Change = Callable[[Frame], Iterable[Frame | bytes]]


class Gone(Exception):
    """The peer's connection breaks here."""


class Rogue:
    """Changes the first frame of a kind (and, if told to, those after it) on its way out."""

    def __init__(self, kind: str, change: Change, *, number: int = 1) -> None:
        self._kind, self._change, self._number = kind, change, number
        self.struck = False

    def __call__(self, frame: Frame) -> Iterable[Frame | bytes]:
        if frame.WhichOneof("body") == self._kind:
            self._number -= 1
            if self._number == 0:
                self.struck = True
                return self._change(frame)
        return [frame]


class Tampering:
    """A transport that sends what `rogue` makes of each frame."""

    def __init__(self, inner: StreamTransport, rogue: Callable[[Frame], Iterable[Any]]) -> None:
        self._inner, self._rogue = inner, rogue

    def send(self, frame: bytes, /) -> None:
        try:
            for one in self._rogue(Frame.FromString(frame)):
                self._inner.send(one if isinstance(one, bytes) else one.SerializeToString())
        except Gone:
            self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def as_bank(bank: Node, rogue: Rogue) -> Iterator[None]:
    """The runs that the bank opens are tampered with."""
    honest = bank.dial

    @contextmanager
    def dial(*args: Any) -> Iterator[PeerClient]:
        with honest(*args) as client:
            run = client.run
            client.run = lambda seconds: Tampering(run(seconds), rogue)
            yield client

    bank.dial = dial
    try:
        yield
    finally:
        del bank.dial


@contextmanager
def as_partner(rogue: Rogue) -> Iterator[None]:
    """The runs that any partner in this process answers are tampered with."""
    honest = session.serve_run
    session.serve_run = lambda node, peer, transport: honest(
        node, peer, Tampering(transport, rogue)
    )
    try:
        yield
    finally:
        session.serve_run = honest


# What a rogue does to a frame


def edit(**fields: Any) -> Change:
    """Sets fields of the frame's body; a function makes the new value from the old one."""

    def change(frame: Frame) -> list[Frame]:
        body = getattr(frame, frame.WhichOneof("body"))
        for name, value in fields.items():
            setattr(body, name, value(getattr(body, name)) if callable(value) else value)
        return [frame]

    return change


def replace(*frames: Frame | bytes) -> Change:
    return lambda _: frames


def cut(frame: Frame) -> list[bytes]:
    return [frame.SerializeToString()[:-1]]


def twice(frame: Frame) -> list[Frame]:
    return [frame, frame]


def vanish(frame: Frame) -> list[Frame]:
    raise Gone


def stall(seconds: float) -> Change:
    def change(frame: Frame) -> Iterator[Frame]:
        time.sleep(seconds)
        yield frame

    return change


def drip(seconds: float) -> Change:
    """A sequence of points one by one, with a pause before each."""

    def change(frame: Frame) -> Iterator[Frame]:
        data = frame.points.points
        for start in range(0, len(data), 32):
            time.sleep(seconds)
            one = Frame()
            one.points.points = data[start : start + 32]
            one.points.last = start + 32 == len(data)
            yield one

    return change
