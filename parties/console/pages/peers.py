"""Partners and third witnesses, and how long everybody's certificates last."""

from fastapi import APIRouter
from fastapi.responses import Response

from parties.console.visit import Reading
from parties.identity import load_authority
from parties.node import WARN_DAYS

router = APIRouter()


@router.get("/peers")
def show(visit: Reading) -> Response:
    """Of a partner the authority is pinned; its node's own certificate may change any time."""
    node = visit.node
    ends = {
        peer.name: load_authority(peer.authority_pem).not_valid_after_utc for peer in node.peers()
    }
    own = node.certificate().not_valid_after_utc
    return visit.page(
        "peers.html",
        peers=node.peers(),
        ends=ends,
        own=own,
        authority=node.authority_certificate.not_valid_after_utc,
        days_left=node.days_left(),
        warn=WARN_DAYS,
        fingerprint=node.identity.fingerprint,
        address=node.config.address,
        thirds=node.config.witnesses,
    )
