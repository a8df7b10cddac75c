"""What the service reads from its environment, `CLUE_*`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, TypeAdapter, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.base_index import Choice, Device
from serving.keys import ApiKey, Rate
from serving.structures import AnyKind


def _origin(text: str) -> str:
    if not text.startswith(("http://", "https://")) or "*" in text:
        raise ValueError("is no origin; write each one out, for instance https://shop.example")
    return text


class Settings(BaseSettings):
    """Paths and limits; raises ValidationError, which names the variable that is wrong.

    Set `OMP_NUM_THREADS=1` beside them, before Python starts: OpenMP reads it once, FAISS's own
    setter reaches only the calling thread, and on two busy cores a second OpenMP thread turned an
    encode of 1.1 ms into 344 ms. Scale by processes (`clue serve workers=4`, spawned, not forked).
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
        default=32_768, ge=1, description="estimated tokens encoded in one go"
    )
    request_seconds: float = Field(
        default=10.0, gt=0, description="from the whole body to the answer"
    )
    header_seconds: float = Field(default=10.0, gt=0, description="for a request's headers")
    body_seconds: float = Field(default=10.0, gt=0, description="for a body to arrive")
    write_seconds: float = Field(
        default=30.0, gt=0, description="for a client to take more of its answer"
    )
    max_connections: int = Field(default=1024, ge=1, description="connections at a time")
    drain_seconds: float = Field(
        default=5.0,
        ge=0,
        description="after SIGTERM, while /readyz is 503 and requests are still answered",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="bf16 pays from a width of 256 on; taken where its cosine with fp32 is .999",
    )
    item_cache_bytes: int = Field(
        default=256_000_000,
        ge=0,
        description="what is kept of texts that were read, so that each is read once; 0: nothing",
    )
    torch_threads: int = Field(default=1, ge=1, description="threads of one encode or search")
    index_kind: AnyKind = Field(
        default="auto",
        description="auto, by size; or flat, fp16, sq8, ivf, hnsw, gpu_flat, gpu_ivfpq, gpu_cagra",
    )
    index_device: Device = Field(default="auto", description="auto, cpu or cuda")
    index_recall: float = Field(
        default=0.99, gt=0, le=1, description="least recall@10 that a search spends effort for"
    )
    vectors: Literal["local", "milvus"] = Field(
        default="local",
        description="where vectors are searched: in each process, or by Milvus",
    )
    milvus_uri: str | None = Field(
        default=None, description="of Milvus, like `http://milvus:19530`; https:// is TLS"
    )
    milvus_token: SecretStr | None = Field(
        default=None, description="`user:password`, or an API key"
    )
    milvus_prefix: str = Field(
        default="clue",
        pattern="^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="how its alias and collections begin, of one index each",
    )
    milvus_seconds: float = Field(
        default=2.0, gt=0, description="what one call of Milvus may take: 503 after that"
    )

    keys: tuple[ApiKey, ...] = Field(
        default=(), description='JSON: `[{"name": "web", "role": "read", "sha256": "…"}]`'
    )
    keys_file: Path | None = Field(default=None, description="a file of the same, read at start")
    rate: Rate | None = Field(default=None, description="requests of one key, like `100/second`")
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        default=(), description="JSON list of the origins whose pages may call the service"
    )
    tracing: bool = Field(
        default=False,
        description="a span for each request, exported as OpenTelemetry's own variables say",
    )
    log: Literal["text", "json"] = Field(default="text", description="lines for eyes, or JSON")
    log_requests: bool = Field(default=False, description="a line for each request, not only 5xx")

    @model_validator(mode="after")
    def _distinct(self) -> "Settings":
        keys = self.api_keys()
        if len({key.name for key in keys}) < len(keys) or len({key.sha256 for key in keys}) < len(
            keys
        ):
            raise ValueError("keys: two have one name or one sha256; give each its own")
        return self

    @model_validator(mode="after")
    def _reachable(self) -> "Settings":
        if self.vectors == "milvus" and not self.milvus_uri:
            raise ValueError("vectors: milvus wants milvus_uri, like http://milvus:19530")
        return self

    def api_keys(self) -> tuple[ApiKey, ...]:
        """Return the keys of the environment and of the file; raises ValueError for a bad file."""
        if self.keys_file is None:
            return self.keys
        try:
            text = self.keys_file.read_bytes()
        except OSError as error:
            raise ValueError(f"keys_file: {error.strerror}; give a file that can be read") from None
        return self.keys + TypeAdapter(tuple[ApiKey, ...]).validate_json(text)

    @property
    def choice(self) -> Choice:
        """What the operator wants of the indexes."""
        return Choice(kind=self.index_kind, device=self.index_device, recall=self.index_recall)


def milvus_token() -> str:
    """Return the token of Milvus for commands, which no command line should show."""
    return os.environ.get("CLUE_MILVUS_TOKEN", "")


def share(settings: Settings) -> None:
    """Let the processes started from now on read these paths in their environment."""
    os.environ["CLUE_CHECKPOINT"] = str(settings.checkpoint)
    os.environ["CLUE_INDEX"] = str(settings.index)


def share_metrics(folder: Path) -> None:
    """Let the worker processes started from now on add up their metrics in `folder`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def shared_metrics() -> Path | None:
    """Return the folder in which worker processes add up their metrics, None for one process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return None if folder is None else Path(folder)
