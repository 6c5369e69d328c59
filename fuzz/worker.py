"""One target under atheris, in a process of its own: NAME FOLDER, then options of libFuzzer."""

import resource
import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["compliance", "federated", "parties"]):
    from fuzz.mutation import mutate
    from fuzz.targets import TARGETS

_ADDRESS_SPACE = 8 << 30  # what is reserved and never touched counts too


def main() -> None:
    name, folder, *options = sys.argv[1:]
    work, corpus = Path(folder) / "work", Path(folder) / "corpus"
    work.mkdir()
    corpus.mkdir()
    target = TARGETS[name](work)
    for number, seed in enumerate(target.seeds):
        target(seed)
        (corpus / f"seed-{number}").write_bytes(seed)

    def change(data: bytes, most: int, seed: int) -> bytes:
        """Half of the inputs are libFuzzer's own, which coverage guides."""
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return mutate(random, data, target.seeds)[:most]

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    atheris.Setup([sys.argv[0], *options, str(corpus)], target, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
