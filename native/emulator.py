"""The crate's tests as machine code on a processor with AVX-512 IFMA, which Bochs emulates.

    python native/emulator.py                     every test of the kernels in lanes
    python native/emulator.py PROGRAM [ARGUMENT…] one program: 64-bit Linux, one thread

Bochs comes as a library (`bochscpu-python`): a processor and its memory, no machine around them.
What a program needs of Linux is below: it is loaded at the place its addresses have, the processor
runs it in kernel mode, and its system calls come here.
"""

import ctypes
import errno
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# The wheel wants two names that glibc has from 2.38 on (Debian 13).
OLD_GLIBC = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
unsigned long long __isoc23_strtoull(const char *text, char **end, int base) {
    return strtoull(text, end, base);
}
int __isoc23_sscanf(const char *text, const char *format, ...) {
    va_list out;
    va_start(out, format);
    int count = vsscanf(text, format, out);
    va_end(out);
    return count;
}
"""
try:
    if not hasattr(ctypes.CDLL(None), "__isoc23_sscanf"):
        names = Path(tempfile.mkdtemp()) / "names.so"
        command = ["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(names)]
        subprocess.run(command, input=OLD_GLIBC, text=True, check=True)
        ctypes.CDLL(str(names), ctypes.RTLD_GLOBAL)
        shutil.rmtree(names.parent)
    import bochscpu
    import bochscpu.cpu
    import bochscpu.memory
except (ImportError, OSError, subprocess.CalledProcessError) as missing:
    print(f"Skipped: no emulator here ({missing}). `pip install bochscpu-python` provides one.")
    sys.exit(0)

# Tests that multiply in lanes, by the beginning of their names.
TESTS = (
    "curve::",
    "hash_to_curve::",
    "bigint::fixed_base::",
    "bigint::square::tests::lanes",
    "paillier::",
)

PAGE = 4096
MEMORY = 1 << 30
# Physical and virtual addresses are the same: two tables that point to one of 512 large pages.
TABLES = 0x1000
ENTRY, MARK = 0x8000, 0x9000
PROGRAM, LOADER, HEAP = 0x10000000, 0x18000000, 0x20000000
STACK = 8 << 20
RANDOM = 1000  # the only file descriptor that is not one of this process

# Where `syscall` leads: arch_prctl(ARCH_SET_FS) is done in place; for all others the flushing of a
# cache line that nothing else flushes calls `Process.system_call`. `jmp rcx` goes back.
ON_SYSCALL = bytes.fromhex(
    "3d9e000000 7509 f3480faed6 31c0 ffe1"  # cmp eax, 158; jne; wrfsbase rsi; xor eax, eax
    "0fae3c25" + struct.pack("<I", MARK).hex() + "ffe1"  # clflush [MARK]
)
# vpmadd52luq and vpmadd52huq on registers of 512 bits: EVEX, map 2, opcodes B4 and B5.
EVEX, MULTIPLY_ADD = 0x62, (0xB4, 0xB5)


class Process:
    def __init__(self, arguments: list[str]) -> None:
        self.memory = mmap.mmap(-1, MEMORY)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for page in range(0, MEMORY, PAGE):
            bochscpu.memory.page_insert(page, base + page)
        present, large = 0b111, 1 << 7
        self.put(TABLES, TABLES + PAGE | present)
        self.put(TABLES + PAGE, TABLES + 2 * PAGE | present)
        self.put(TABLES + 2 * PAGE, *(i << 21 | present | large for i in range(512)))
        self.store(ENTRY, ON_SYSCALL)
        self.heap = HEAP
        self.threads = 0
        self.run_start = self.next = self.multiply_adds = 0
        self.session = bochscpu.Session()
        self.session.missing_page_handler = self.missing
        self.session.cpu.state = self.state(arguments)

    def store(self, address: int, data: bytes) -> int:
        self.memory[address : address + len(data)] = data
        return address

    def put(self, address: int, *words: int) -> None:
        self.store(address, struct.pack(f"<{len(words)}Q", *words))

    def text(self, address: int) -> str:
        return self.memory[address : self.memory.find(b"\0", address)].decode()

    def load(self, path: str, base: int) -> tuple[int, dict[int, int], str | None]:
        """Entry point, what the auxiliary vector says of it (AT_…), and the loader it asks for."""
        elf = Path(path).read_bytes()
        if elf[:4] != b"\x7fELF" or elf[4] != 2:
            sys.exit(f"{path} is no program of 64 bits")
        entry, headers = struct.unpack_from("<QQ", elf, 24)
        size, count = struct.unpack_from("<HH", elf, 54)
        loader = None
        for i in range(count):
            kind, _, start, address, _, length, *_ = struct.unpack_from(
                "<IIQQQQQQ", elf, headers + i * size
            )
            if kind == 1:  # PT_LOAD
                self.store(base + address, elf[start : start + length])
            elif kind == 3:  # PT_INTERP
                loader = elf[start : start + length - 1].decode()
        about = {3: base + headers, 4: size, 5: count, 6: PAGE, 9: base + entry}
        return base + entry, about, loader

    def state(self, arguments: list[str]) -> "bochscpu.State":
        entry, about, loader = self.load(arguments[0], PROGRAM)
        if loader:
            entry, *_ = self.load(loader, LOADER)
            about[7] = LOADER
        top = MEMORY

        def push(data: bytes) -> int:
            nonlocal top
            top = (top - len(data)) & -16
            return self.store(top, data)

        about[25] = push(os.urandom(16))
        argv = [push(os.fsencode(argument) + b"\0") for argument in arguments]
        # The trampoline that binds a function at its first call asks too much of XRSTOR.
        variable = push(b"LD_BIND_NOW=1\0")
        vector = [word for pair in about.items() for word in pair]
        words = [len(argv), *argv, 0, variable, 0, *vector, 0, 0]
        push(struct.pack(f"<{len(words)}Q", *words))

        state = bochscpu.State()
        bochscpu.cpu.set_long_mode(state)
        for register in ("cs", "ss", "ds", "es", "fs", "gs"):
            segment = bochscpu.Segment()
            segment.present, segment.base, segment.limit = True, 0, 0xFFFFFFFF
            segment.selector = 8 if register == "cs" else 16
            segment.attr = 0xA09B if register == "cs" else 0xC093  # 64-bit code; data
            setattr(state, register, segment)
        state.cr0 = 0x80000033  # paging, floating point
        state.cr3 = TABLES
        state.cr4 = 0x50620  # PAE, SSE, FSGSBASE, XSAVE
        state.efer = 0x501  # long mode, syscall
        state.xcr0 = 0xE7  # the registers of AVX-512
        state.mxcsr, state.fpcw, state.rflags = 0x1F80, 0x37F, 2
        state.star, state.lstar = 8 << 32, ENTRY
        state.rip, state.rsp = entry, top
        return state

    def run(self) -> None:
        """Ends this process with the program's status."""
        hook = bochscpu.Hook()
        hook.clflush, hook.exception, hook.opcode = self.system_call, self.exception, self.decoded
        self.session.run([hook])

    def missing(self, address: int) -> None:
        self.end(f"no memory at {address:#x}")

    def exception(self, _session: int, _cpu: int, vector: int, _error: int) -> None:
        cpu = self.session.cpu
        self.end(f"exception {vector} at {cpu.rip:#x}, address {cpu.cr2:#x}")

    def decoded(
        self, _session: int, _cpu: int, _code: int, first: int, length: int, *_: object
    ) -> None:
        """Instructions are decoded in runs, while the processor still stands at the first."""
        if (start := self.session.cpu.rip) != self.run_start:
            self.run_start = self.next = start
        code = self.memory[self.next : self.next + length]
        self.next += length
        if first == EVEX and code[1] & 7 == 2 and code[4] in MULTIPLY_ADD:
            self.multiply_adds += 1

    def end(self, what: str | int) -> NoReturn:
        # No exception may pass through the emulator, and it is not asked to come back.
        print(f"{self.multiply_adds} multiply-adds decoded", flush=True)
        if isinstance(what, str):
            print(what, file=sys.stderr, flush=True)
        os._exit(what if isinstance(what, int) else 70)

    def system_call(self, *_: object) -> None:
        cpu = self.session.cpu
        call = CALLS.get(cpu.rax)
        result = -errno.ENOSYS
        try:
            if call:
                result = call(self, cpu.rdi, cpu.rsi, cpu.rdx, cpu.r10, cpu.r8, cpu.r9)
        except OSError as failed:
            result = -(failed.errno or errno.EIO)
        except Exception as failed:
            self.end(f"system call {cpu.rax}: {failed!r}")
        cpu.rax = result % (1 << 64)

    def read(self, file: int, address: int, length: int, *_: int) -> int:
        data = os.urandom(length) if file == RANDOM else os.read(file, length)
        self.store(address, data)
        return len(data)

    def pread64(self, file: int, address: int, length: int, offset: int, *_: int) -> int:
        data = os.pread(file, length, offset)
        self.store(address, data)
        return len(data)

    def write(self, file: int, address: int, length: int, *_: int) -> int:
        return os.write(file, self.memory[address : address + length])

    def openat(self, _folder: int, path: int, flags: int, *_: int) -> int:
        name = self.text(path)
        return RANDOM if name in ("/dev/random", "/dev/urandom") else os.open(name, flags)

    def close(self, file: int, *_: int) -> int:
        if file > 2 and file != RANDOM:
            os.close(file)
        return 0

    def poll(self, entries: int, count: int, *_: int) -> int:
        """Everything is ready."""
        for entry in range(entries, entries + 8 * count, 8):
            self.store(entry + 6, self.memory[entry + 4 : entry + 6])
        return count

    def newfstatat(self, folder: int, path: int, address: int, *_: int) -> int:
        name = self.text(path)
        found = Path(name).stat() if name else os.fstat(folder)
        fields = (found.st_dev, found.st_ino, found.st_nlink, found.st_mode, 0, 0, found.st_size)
        self.store(address, struct.pack("<QQQQQQQ", *fields) + bytes(88))
        return 0

    def mmap(
        self, address: int, length: int, _access: int, flags: int, file: int, offset: int
    ) -> int:
        """Memory is never given back: what is new is zero."""
        fixed, length = flags & 0x10, (length + PAGE - 1) & -PAGE
        if not fixed:
            address = self.heap
            if address + length > MEMORY - STACK:
                return -errno.ENOMEM
            self.heap += length
        if not flags & mmap.MAP_ANONYMOUS:
            self.store(address, os.pread(file, length, offset))
        elif fixed:
            self.store(address, bytes(length))
        return address

    def clock_gettime(self, _clock: int, address: int, *_: int) -> int:
        self.put(address, *divmod(time.monotonic_ns(), 10**9))
        return 0

    def getrandom(self, address: int, length: int, *_: int) -> int:
        self.store(address, os.urandom(length))
        return length

    def clone(self, *_: int) -> int:
        """The test's own thread is the first: told to try again, the harness runs the test where
        it is. The pool's come next: where there are none at all, it does the same."""
        self.threads += 1
        return -errno.EAGAIN if self.threads == 1 else -errno.ENOSYS

    def exit(self, status: int, *_: int) -> int:
        self.end(status)

    def one(self, *_: int) -> int:
        return 1

    def nothing(self, *_: int) -> int:
        return 0


CALLS: dict[int, Callable[..., int]] = {
    0: Process.read,
    1: Process.write,
    3: Process.close,
    7: Process.poll,
    9: Process.mmap,
    10: Process.nothing,  # mprotect
    11: Process.nothing,  # munmap
    13: Process.nothing,  # rt_sigaction
    14: Process.nothing,  # rt_sigprocmask
    17: Process.pread64,
    24: Process.nothing,  # sched_yield
    28: Process.nothing,  # madvise
    39: Process.one,  # getpid
    56: Process.clone,
    60: Process.exit,
    131: Process.nothing,  # sigaltstack
    186: Process.one,  # gettid
    202: Process.nothing,  # futex
    218: Process.nothing,  # set_tid_address
    228: Process.clock_gettime,
    231: Process.exit,
    257: Process.openat,
    262: Process.newfstatat,
    273: Process.nothing,  # set_robust_list
    318: Process.getrandom,
}


def main() -> int:
    build = "cargo test --release --no-run --message-format=json --manifest-path"
    manifest = Path(__file__).parent / "Cargo.toml"
    built = subprocess.run([*build.split(), manifest], check=True, stdout=subprocess.PIPE)
    messages = map(json.loads, built.stdout.splitlines())
    (program,) = {path for message in messages if (path := message.get("executable"))}
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    names = [line.removesuffix(": test") for line in listed.stdout.splitlines()]
    failed = False
    for name in (name for name in names if name.startswith(TESTS)):
        started = time.monotonic()
        command = [sys.executable, __file__, program, "--exact", name]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        instructions = run.stdout.splitlines()[-1:] or ["nothing"]
        print(
            f"{name}: status {run.returncode}, {time.monotonic() - started:.0f} s,", *instructions
        )
        if run.returncode:
            failed = True
            print(run.stdout, run.stderr, sep="\n")
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:]:
        Process(sys.argv[1:]).run()
    sys.exit(main())
