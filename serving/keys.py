"""API keys as the settings hold them: whose, what for, and the hash by which one is known."""

from typing import Annotated, Literal

import limits
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Role = Literal["read", "write", "admin"]


def _rate(text: str) -> str:
    try:
        limits.parse(text)
    except ValueError:
        raise ValueError("is no rate; write for instance 100/second or 5000/minute") from None
    return text


Rate = Annotated[str, AfterValidator(_rate)]


class ApiKey(BaseModel):
    """Who may do what: the SHA-256 of a key, never the key. `rate` replaces the service's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rate: Rate | None = None
