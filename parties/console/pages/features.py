"""The catalogue of features: what there is to ask a partner for."""

from fastapi import APIRouter
from fastapi.responses import Response

from parties import catalogue
from parties.console import originals
from parties.console.visit import Reading

router = APIRouter()


@router.get("/features")
def show(visit: Reading) -> Response:
    """Every feature by its library, as agreements and jobs name it."""
    found = [
        {**one, **originals.feature(visit.language, one), "library": one["name"].partition(".")[0]}
        for one in catalogue.listed()
    ]
    return visit.page("features.html", found=found)
