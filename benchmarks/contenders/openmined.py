"""OpenMined PSI: both parties in one process, without network or files."""

import private_set_intersection.python as psi

from benchmarks.measure import Cost
from benchmarks.worker import Job, measured


def intersect(people: int) -> Job:
    ours = [f"+86{13_900_000_000 + i}" for i in range(people)]
    theirs = [f"+86{13_900_000_000 + people // 2 + i}" for i in range(people)]

    def job() -> Cost:
        sent = 0

        def play() -> int:
            nonlocal sent
            client, server = psi.client.CreateWithNewKey(True), psi.server.CreateWithNewKey(True)
            # RAW answers exactly, as ours does.
            setup = server.CreateSetupMessage(1e-9, people, theirs, psi.DataStructure.RAW)
            request = client.CreateRequest(ours)
            response = server.ProcessRequest(request)
            found = client.GetIntersection(setup, response)
            if len(found) != people - people // 2:
                raise ValueError(f"OpenMined found {len(found)} people")
            sent = sum(message.ByteSize() for message in (setup, request, response))
            return people

        cost = measured(play)
        return Cost(**(vars(cost) | {"bytes_sent": sent}))

    return job
