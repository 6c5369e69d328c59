"""Each node is the witness of its partners' logs: ask for cosignatures, and give them."""

from compliance import witness
from compliance.errors import MalformedNote, UnverifiedNote, WitnessRefused
from compliance.note import VerifierKey
from parties.errors import PeerRefused, PeerUnreachable
from parties.identity import Identity
from parties.node import Node

_TRIES = 3  # the witness may have seen more than we know of, once; then it is consistent or not


def ask(node: Node, peer: Identity) -> bool:
    """Have the partner cosign our latest checkpoint; whether it did.

    A partner that does not, or whose answer is none, is asked again after the next run. Raises
    SplitView and LogRolledBack: then one of the two logs was rewritten.
    """
    key = VerifierKey.parse(peer.witness_key)
    with node.reading() as conn:
        seen = witness.cosigned_size(conn, key)
    try:
        with node.dial(peer) as client:
            for _ in range(_TRIES):
                with node.reading() as conn:
                    request = witness.request(conn, node.log, seen)
                status, body = client.add_checkpoint(request.encode())
                answer = witness.Answer(status, body)
                with node.writing() as conn:
                    size = witness.receive(conn, node.log, key, request, answer)
                if size is None:
                    return True
                seen = size
    except (PeerUnreachable, PeerRefused, WitnessRefused, MalformedNote, UnverifiedNote) as error:
        node.logger.warning("%s did not cosign: %s", peer.name, error.message)
    return False


def answer(node: Node, peer: Identity, body: bytes) -> witness.Answer:
    """Cosign a partner's checkpoint if it extends the last one. Only its own log's."""
    ours = witness.Witness(
        node.witness_key.name, node.witness_signing_key, [VerifierKey.parse(peer.log_key)]
    )
    with node.writing() as conn:
        return ours.add_checkpoint(conn, body, node.now())
