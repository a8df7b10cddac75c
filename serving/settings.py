"""What the service reads from its environment, `CLUE_*`."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Paths and limits; raises ValidationError, which names the variable that is wrong.

    Set `OMP_NUM_THREADS=1` beside them, before Python starts: OpenMP reads it once, FAISS's own
    setter reaches only the calling thread, and on two busy cores a second OpenMP thread turned an
    encode of 1.1 ms into 344 ms. Scale by processes (uvicorn `--workers`, spawned, never forked).
    Headers that trickle in are stopped below ASGI: put a proxy with a header timeout in front.
    """

    model_config = SettingsConfigDict(env_prefix="CLUE_", frozen=True)

    checkpoint: Path = Field(description="a run directory (its best checkpoint) or a checkpoint")
    index: Path = Field(description="what `python -m serving.build_index` wrote")
    store: Path | None = Field(
        default=None, description="the directory of durable users; without, none are kept"
    )
    models: Path | None = Field(
        default=None,
        description="a folder of models that may be served beside `checkpoint`, a sub-folder each",
    )
    rebuild_users: int = Field(
        default=1000,
        ge=1,
        description="changed users from which a new generation is built, at least a tenth of all",
    )
    forget_seconds: float = Field(
        default=86_400.0, gt=0, description="how long an old generation may hold a deleted user"
    )
    max_users: int = Field(default=64, ge=1, description="users in one embed request")
    max_events: int = Field(default=1024, ge=1, description="events of one user")
    max_text_bytes: int = Field(default=2048, ge=1, description="UTF-8 bytes of one event's text")
    max_body_bytes: int = Field(default=2_000_000, ge=1, description="bytes of one request body")
    max_k: int = Field(default=100, ge=1, description="neighbours in one answer")
    queue_size: int = Field(
        default=256, ge=1, description="requests that may wait for the model thread"
    )
    batch_tokens: int = Field(
        default=16_384, ge=1, description="estimated tokens encoded in one go"
    )
    request_seconds: float = Field(
        default=10.0, gt=0, description="from the whole body to the answer"
    )
    body_seconds: float = Field(default=10.0, gt=0, description="for a body to arrive")
    torch_threads: int = Field(default=1, ge=1, description="threads of one encode or search")
