"""Kill the process at every write and sync of an append; cut the power after each.

strace kills at the n-th call of a kind, and tells which bytes were written and synced when, so
that what a disk would hold after a power cut can be put together: everything synced, and of the
rest nothing, all or some.
"""

import ctypes
import multiprocessing
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event

from compliance.log import Log, tree_size
from compliance.signing import SigningKey
from compliance.store import open_store, read, write
from compliance.verify import verify_log

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOG = Log("bank.example/log", SigningKey(Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)))
BATCH = 3
BATCHES = 4

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="no strace to inject faults with")

PR_SET_PTRACER = 0x59616D61


def append(url, started, acknowledged):
    """Batches, each acknowledged by how many entries there are once it is committed."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    engine = open_store(url)
    if engine.dialect.name == "sqlite":  # so that pages move from the WAL to the file, too
        event.listen(
            engine, "connect", lambda conn, _: conn.execute("PRAGMA wal_autocheckpoint = 8")
        )
        engine.dispose()
    started.send(os.getpid())
    started.recv()
    for _ in range(BATCHES):
        with write(engine) as conn:
            last = LOG.append_many(conn, [("test", {"n": n}) for n in range(BATCH)], time=NOW)[-1]
            LOG.checkpoint(conn)
        os.write(acknowledged.fileno(), b"%d\n" % (last + 1))
    engine.dispose()


def appended(url, *options, trace=None):
    """How many entries a process has acknowledged, and whether it lived to the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["compliance.log", "compliance.verify"])
    ours, theirs = context.Pipe()
    acknowledged, sending = context.Pipe(duplex=False)
    process = context.Process(target=append, args=(url, theirs, sending))
    process.start()
    sending.close()
    pid = ours.recv()
    command = [STRACE, "-f", "-p", str(pid), "-o", trace or os.devnull, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        for line in strace.stderr:
            if "attached" in line:
                break
        else:
            process.kill()
            pytest.skip("strace may not look at processes here")
        ours.send(None)
        process.join()
        strace.stderr.read()
    with os.fdopen(os.dup(acknowledged.fileno()), "rb") as lines:
        sizes = [int(line) for line in lines.read().split()]
    return max(sizes, default=0), process.exitcode == 0


def check(url, acknowledged):
    """The store is whole, has every entry acknowledged, and can be continued."""
    engine = open_store(url)
    with read(engine) as conn:
        assert verify_log(conn, LOG.verifier).findings == []
        size = tree_size(conn)
    assert acknowledged <= size <= acknowledged + BATCH
    assert size % BATCH == 0
    with write(engine) as conn:
        LOG.append(conn, "test", {}, time=NOW)
        LOG.checkpoint(conn)
    with read(engine) as conn:
        assert verify_log(conn, LOG.verifier).ok
    engine.dispose()


@pytest.fixture
def path(tmp_path):
    """A new store, of which nothing is left beside the database."""
    path = tmp_path / "node.db"
    open_store(f"sqlite:///{path}", create=True).dispose()
    return path


@needs_strace
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "write"])
def test_killed_at_every_call(path, tmp_path, call):
    survived = False
    for when in range(1, 400):
        trial = shutil.copy(path, tmp_path / "trial.db")
        url = f"sqlite:///{trial}"
        fault = f"inject={call}:signal=KILL:when={when}"
        acknowledged, survived = appended(url, "-e", f"trace={call}", "-e", fault)
        check(url, acknowledged)
        for left in tmp_path.glob("trial.db*"):
            left.unlink()
        if survived:
            break
    assert survived, "there are more calls than were tried"
    if call in {"pwrite64", "fdatasync"}:
        assert when > 2 * BATCHES, "each batch is written and synced"


# Power cuts


@dataclass
class Disk:
    """What would be on a disk: files as last synced, and what has been done to them since."""

    folder: Path
    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)  # made since the folder was synced

    def write(self, name: str, offset: int, data: bytes) -> None:
        self.pending.setdefault(name, []).append((offset, data))

    def sync(self, name: str) -> None:
        self.synced[name] = self._applied(name, self.pending.pop(name, []))

    def after_a_cut(self, survives) -> dict[str, bytearray]:
        """The files, if of the writes not synced those survive that the function picks."""
        names = (self.synced.keys() | self.pending.keys()) - self.unnamed
        return {
            name: self._applied(name, [one for one in self.pending.get(name, []) if survives(one)])
            for name in names
        }

    def _applied(self, name, writes):
        content = bytearray(self.synced.get(name, b""))
        for offset, data in writes:
            if data is None:
                del content[offset:]
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
        return content


CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")


def steps(trace: Path) -> Iterator[tuple[str, list[str]]]:
    """Each call that changed something, and its arguments."""
    unfinished = {}
    for line in trace.read_text().splitlines():
        pid = line.split()[0]
        if line.endswith("<unfinished ...>"):
            unfinished[pid] = line.removesuffix("<unfinished ...>")
            continue
        if "resumed>" in line:
            line = unfinished.pop(pid) + line.partition("resumed>")[2]  # noqa: PLW2901
        found = CALL.match(line)
        if found and int(found[3]) >= 0:
            yield found[1], found[2].split(", ")


def _place(call: str, arguments: list[str]) -> Path:
    """What a call is about."""
    match call:
        case "openat":
            path = _unquoted(arguments[1])
        case "unlink":
            path = _unquoted(arguments[0])
        case _:  # a descriptor, beside which strace shows its path
            path = _unquoted(arguments[0].partition("<")[2].removesuffix(">"))
    return Path(path.decode(errors="replace"))


def _unquoted(argument: str) -> bytes:
    """Bytes as strace -xx shows them; those of other descriptors, such as pipes, in part."""
    return bytes.fromhex("".join(re.findall(r"\\x([0-9a-f]{2})", argument))) or argument.encode()


@needs_strace
def test_power_cut_after_every_call(path, tmp_path):
    trace = tmp_path / "trace"
    traced = "trace=openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink"
    before = path.read_bytes()
    acknowledged, survived = appended(
        f"sqlite:///{path}", "-y", "-xx", "-s", "70000", "-e", traced, trace=str(trace)
    )
    assert survived
    assert acknowledged == BATCH * BATCHES

    chance = random.Random(5)
    kept = (lambda _: False, lambda _: True, lambda _: chance.random() < 0.5)
    disk = Disk(tmp_path, {path.name: bytearray(before)})
    seen, syncs, cuts = 0, 0, set()
    for call, arguments in steps(trace):
        place = _place(call, arguments)
        ours = place.parent == tmp_path and place.name.startswith(path.name)
        match call:
            case "write" if not ours and place.name.startswith("pipe:"):
                seen = int(_unquoted(arguments[1]))
            case "openat" if ours and "O_CREAT" in arguments[2] and place.name not in disk.synced:
                disk.synced[place.name] = bytearray()
                disk.unnamed.add(place.name)
            case "pwrite64" if ours:
                disk.write(place.name, int(arguments[3]), _unquoted(arguments[1]))
            case "ftruncate" if ours:
                disk.write(place.name, int(arguments[1]), None)
            case "unlink" if ours:
                disk.unnamed.discard(place.name)
                disk.synced.pop(place.name, None)
                disk.pending.pop(place.name, None)
            case "fsync" | "fdatasync" if ours:
                disk.sync(place.name)
                syncs += 1
            case "fsync" | "fdatasync" if place == tmp_path:
                disk.unnamed.clear()
            case _:
                continue
        for survives in kept:
            files = disk.after_a_cut(survives)
            files.pop(f"{path.name}-shm", None)  # it is memory, and made anew
            state = (seen, *(bytes(files[name]) for name in sorted(files)))
            if state not in cuts:
                cuts.add(state)
                trial = tmp_path / "trial"
                trial.mkdir()
                for name, content in files.items():
                    (trial / name).write_bytes(content)
                check(f"sqlite:///{trial}/{path.name}", seen)
                shutil.rmtree(trial)
    assert seen == acknowledged
    assert syncs >= BATCHES
    assert len(cuts) > 6 * BATCHES


def test_a_server_killed_after_an_acknowledgement(postgresql_server):
    url = postgresql_server.new_store()
    engine = open_store(url, create=True)
    with write(engine) as conn:
        LOG.append_many(conn, [("test", {})] * BATCH, time=NOW)
        LOG.checkpoint(conn)
    postgresql_server.crash()
    check(url, BATCH)
