"""SecretFlow SPU's ECDH PSI: two processes over loopback, CSV files in, a CSV file out.

Run as a program it is one of the two parties.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import Cost
from benchmarks.worker import Job, peak

FIRST_PHONE = 13_900_000_000


def write_people(folder: Path, people: int) -> list[Path]:
    """A table for each party, of phone numbers; half of them are shared."""
    tables = []
    for name, first in (("bank", FIRST_PHONE), ("shop", FIRST_PHONE + people // 2)):
        numbers = "".join(f"+86{first + i}\n" for i in range(people))
        path = folder / f"{name}.csv"
        path.write_text(f"phone\n{numbers}")
        tables.append(path)
    return tables


def intersect(people: int, curve: str) -> Job:
    """curve: CURVE_25519, which takes a hash for a u-coordinate, or CURVE_25519_ELLIGATOR2."""
    temporary = TemporaryDirectory(prefix="concordat-bench-spu-")  # as long as the job is
    tables = write_people(Path(temporary.name), people)

    def job() -> Cost:
        ports = json.dumps([_free_port(), _free_port()])
        started = time.perf_counter()
        parties = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.contenders.spu", str(rank)),
                    *(str(table), f"{temporary.name}/found{rank}.csv", curve, ports),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for rank, table in enumerate(tables)
        ]
        said = [_answer(party.communicate()[0]) for party in parties]
        if said[0]["found"] != people - people // 2:
            raise ValueError(f"SPU found {said[0]['found']} people")
        return Cost(
            elements=people,
            seconds=time.perf_counter() - started,
            cpu_seconds=sum(party["cpu_seconds"] for party in said),
            peak_bytes=max(party["peak_bytes"] for party in said),
            bytes_sent=sum(party["bytes_sent"] for party in said),
        )

    return job


def _answer(output: str) -> dict[str, Any]:
    """What a party said, among what its libraries log."""
    line = next(line for line in output.splitlines() if line.startswith('{"found"'))
    answer: dict[str, Any] = json.loads(line)
    return answer


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _written() -> int:
    """Bytes that this process has written, to files and sockets (proc(5))."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _party(rank: str, table: str, found: str, curve: str, ports: str) -> dict[str, Any]:
    from spu import psi  # noqa: PLC0415
    from spu.libspu import link  # noqa: PLC0415

    parties = link.Desc()
    for number, port in enumerate(json.loads(ports)):
        parties.add_party(str(number), f"127.0.0.1:{port}")
    connection = link.create_brpc(parties, int(rank))
    csv = psi.SourceType.SOURCE_TYPE_FILE_CSV
    config = psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(
            protocol=psi.PsiProtocol.PROTOCOL_ECDH,
            ecdh_params=psi.EcdhParams(curve=psi.parse_curve_type(curve)),
            receiver_rank=0,
            broadcast_result=False,
        ),
        input_params=psi.InputParams(
            type=csv, path=table, selected_keys=["phone"], keys_unique=True
        ),
        output_params=psi.OutputParams(type=csv, path=found),
    )
    cpu, written = time.process_time(), _written()
    report = psi.psi_execute(config, connection)
    cpu, written = time.process_time() - cpu, _written() - written
    connection.stop_link()
    files = sum(
        Path(name).stat().st_size for name in (found, table + ".meta") if Path(name).exists()
    )
    return {
        "found": report.intersection_count,
        "cpu_seconds": cpu,
        "peak_bytes": peak(),
        "bytes_sent": max(written - files, 0),
    }


if __name__ == "__main__":
    print(json.dumps(_party(*sys.argv[1:])))
