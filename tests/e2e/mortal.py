"""The command `concordat`, in a process that dies where it is told to, as if by `kill -9`.

    python mortal.py FILE serve HOME

While FILE names a place, the process is killed when a run passes it. Places are what a run sends,
logs and writes to files: the program itself knows nothing of them. Whatever was handed to gRPC
before is still sent, so that a place means the same every time.
"""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event

from compliance.log import Log
from parties import cli, runs
from parties.node import Node
from parties.wire import StreamTransport
from protos.concordat.v1.run_pb2 import Frame

FATE = Path(sys.argv.pop(1))


def passes(place: str) -> None:
    if FATE.exists() and FATE.read_text() == place:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)


# Frames: "before points 1", "after signature 2"

_send = StreamTransport.send
_sent: dict[StreamTransport, Counter[str]] = {}


def send(transport: StreamTransport, frame: bytes, /) -> None:
    kind = str(Frame.FromString(frame).WhichOneof("body"))
    count = _sent.setdefault(transport, Counter())
    count[kind] += 1
    passes(f"before {kind} {count[kind]}")
    _send(transport, frame)
    passes(f"after {kind} {count[kind]}")


StreamTransport.send = send  # type: ignore[method-assign]


# Entries of the log: "uncommitted run.intent", "logged run.completion"

_append, _writing = Log.append_many, Node.writing
_written = threading.local()


def append_many(log: Log, conn: Any, entries: Any, **more: Any) -> range:
    _written.types = [type_ for type_, _ in entries]
    return _append(log, conn, entries, **more)


@contextmanager
def writing(node: Node) -> Iterator[Any]:
    _written.types = []
    with _writing(node) as conn:
        yield conn
    for type_ in _written.types:
        passes(f"logged {type_}")


def uncommitted(_: Any) -> None:
    for type_ in getattr(_written, "types", ()):
        passes(f"uncommitted {type_}")


_init = Node.__init__


def init(node: Node, *args: Any, **more: Any) -> None:
    _init(node, *args, **more)
    event.listen(node.store, "commit", uncommitted)


Log.append_many = append_many  # type: ignore[method-assign]
Node.writing = writing  # type: ignore[method-assign]
Node.__init__ = init  # type: ignore[method-assign]


# Files and the record: "unplaced intersect.csv.unreleased", "placed receipt.json", "unrecorded"

_replace, _record_end = Path.replace, runs.record_end


def replace(path: Path, target: Any) -> Path:
    passes(f"unplaced {Path(target).name}")
    placed = _replace(path, target)
    passes(f"placed {Path(target).name}")
    return placed


def record_end(*args: Any) -> None:
    passes("unrecorded")
    _record_end(*args)


Path.replace = replace  # type: ignore[method-assign, assignment]
runs.record_end = record_end

cli.main()
