"""What the routes take and give; OpenAPI is made from these.

Strict: "1" is no number, true is no k, NaN is no coordinate, an unknown field is an error. The
operator's limits (users, events, text bytes, k) are checked in `serving.queries`.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

ID_BYTES = 256
RFC3339 = re.compile(
    r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
MOST_SECONDS = 1e11  # the year 5138; a log's larger numbers are milliseconds or finer


AS_OF = (
    "the moment of the question, by default that of the last event; a model without time does not "
    "read it, and times that are positions are not compared with it"
)


def clean(text: str) -> str:
    """Return a text; raises ValueError for a NUL character."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def short(text: str) -> str:
    """Return an id or a name; raises ValueError above ID_BYTES."""
    if 4 * len(text) > ID_BYTES and len(text.encode()) > ID_BYTES:
        raise ValueError(f"is longer than {ID_BYTES} bytes")
    return text


def _seconds(number: float) -> float:
    if abs(number) > MOST_SECONDS:
        raise ValueError("is no time in epoch seconds; divide milliseconds by 1,000")
    return number


def _epoch(value: object) -> object:
    """Return an RFC 3339 text as epoch seconds, and what is no text as it is."""
    if not isinstance(value, str):
        return value
    try:
        if RFC3339.fullmatch(value.upper()):
            return datetime.fromisoformat(value.upper()).timestamp()
    except ValueError:  # the 31st of June
        pass
    raise ValueError("is no time; write epoch seconds, or RFC 3339 like 2023-11-14T22:13:20Z")


Moment = Annotated[
    float,
    BeforeValidator(_epoch),
    AfterValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]}),
]
Text = Annotated[str, Field(min_length=1), AfterValidator(clean)]
Name = Annotated[
    Text,
    AfterValidator(short),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": ID_BYTES}),
]


class Strict(BaseModel):
    """What a body holds: exact kinds, no unknown field, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Event(Strict):
    """One behaviour, of which GET /v1/models says what the model `reads`: its text or its item id.

    To a model of texts any service is welcome, to a model of item ids those of its catalogue. Ids
    are texts as the log's are after preparing: "123", not the number 123, nor "123.0". Further
    members are fields, of which GET /v1/models says those that the model has: a numeric one is a
    number, a categorical one a text, a boolean one true or false; null or no member is missing.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("text", "item_id")
            ],
            "examples": [{"service": "shop", "text": "cast iron pan"}],
        },
    )

    service: Name
    text: Text | None = None
    item_id: Name | None = None
    time: Moment | None = Field(
        default=None,
        validation_alias=AliasChoices("time", "timestamp"),
        description="epoch seconds, or RFC 3339; of a service without a clock, a position. It may "
        "be called timestamp",
    )


Events = Annotated[
    list[Event],
    Field(
        min_length=1,
        description="ordered by time when every event has one, else as given, oldest first",
    ),
]


class EmbedUser(Strict):
    """A user to embed; the id is only handed back."""

    user_id: Name | None = None
    events: Events
    as_of: Moment | None = Field(default=None, description="that of this user alone")


class EmbedRequest(Strict):
    """Users whose vectors are wanted."""

    users: Annotated[list[EmbedUser], Field(min_length=1)]
    as_of: Moment | None = Field(default=None, description=AS_OF)
    blocks: list[Name] | None = Field(
        default=None,
        min_length=1,
        description="the blocks of the vectors that are wanted; all when absent",
    )
    dimensions: int | None = Field(
        default=None,
        ge=1,
        description="the first columns of the vectors; the end of a block, as GET /v1/models says",
    )
    encoding_format: Literal["float", "base64", "int8"] = Field(
        default="float",
        description="numbers, or base64 of little-endian float32, or of int8 with a scale a block",
    )


def pair_of(kind: str) -> WithJsonSchema:
    """Return the schema of two numbers: as a list of one kind it is read by every generator."""
    return WithJsonSchema({"type": "array", "items": {"type": kind}, "minItems": 2, "maxItems": 2})


Columns = Annotated[tuple[int, int], pair_of("integer")]
Blocks = Annotated[
    dict[str, Columns],
    Field(description="the first column of each block and the one after its last; {} without"),
]


class Answer(BaseModel):
    """What every answer says: the model's fingerprint and the index generation behind it."""

    model: str
    index: str


class UserVector(BaseModel):
    """One user's vector: of length one, unless it has blocks."""

    user_id: str | None
    vector: list[float] | str = Field(description="as encoding_format says")
    scales: list[float] = Field(
        default=[], description="of int8, a factor for each block, which makes floats again"
    )


class EmbedAnswer(Answer):
    """The vectors in the order of the request."""

    data: list[UserVector]
    blocks: Blocks
    unseen_services: list[str] = Field(description="services the model was not pretrained on")


class PrecisionInfo(BaseModel):
    """What the model computes in, and how far bf16 is from fp32 on users of the index, by block."""

    name: Literal["fp32", "bf16"]
    cosine: dict[str, float] = Field(description="the least; {} where bf16 was not tried")
    deviation: dict[str, float] = Field(description="of a coordinate, the largest")
    fallback: str = Field(description="why it is not bf16 though that was wanted; else empty")


class Model(BaseModel):
    """The encoder: its fingerprint, the width of its vectors, what it was pretrained on."""

    id: str
    width: int
    services: list[str]
    max_events: int = Field(description="the newest events of a history that are read")
    reads: Literal["text", "item_id"] = Field(description="what an event must have")
    blocks: Blocks
    similarity: Columns = Field(description="the columns by whose cosine users are compared")
    ranking: Columns = Field(description="the columns by whose inner product items rank")
    fields: dict[str, str] = Field(description="the kinds of the fields that an event may have")
    clocks: dict[str, bool] = Field(
        description="of a model that reads times, whether a service's are moments or positions"
    )
    max_item_tokens: int = Field(description="the first tokens of a text that are read")
    precision: PrecisionInfo


class SearchedBy(BaseModel):
    """A base index: its structure, what it takes beside the vectors, and what a search spends."""

    kind: str = Field(description="flat is exact; the others rank their candidates exactly")
    rows: int
    width: int
    bytes: int = Field(description="beside the vectors themselves")
    effort: int = Field(description="nprobe or efSearch; 0 where there is none")
    recall: float | None = Field(
        description="recall@10 on users of the index, measured when it was built; null where exact"
    )
    fallback: str = Field(description="why it is not what the settings wanted; empty where it is")


class IndexInfo(BaseModel):
    """The generation that is searched."""

    id: str
    model: str
    corpus: str
    corpus_name: str
    templates: dict[str, str] = Field(description="how the texts of a service's items are made")
    services: list[str]
    items: int
    users: int
    searched_by: dict[str, SearchedBy] = Field(description="users, and the items of each service")


class Limits(BaseModel):
    """What one request may hold."""

    users: int
    events_per_user: int
    text_bytes: int
    id_bytes: int
    body_bytes: int
    k: int
    seconds: float


class GenerationInfo(BaseModel):
    """A generation that lies in the index: this one is `served`, or may be activated."""

    id: str
    model: str
    users: int
    items: int
    served: bool


class Activating(BaseModel):
    """The generation that will be served once its model has embedded the stored users left."""

    id: str
    users_left: int


class ModelsAnswer(BaseModel):
    """What this service serves."""

    data: list[Model]
    index: IndexInfo
    limits: Limits
    generations: list[GenerationInfo]
    activating: Activating | None


class Health(BaseModel):
    """The state of the process."""

    status: str
    fallback: str | None = Field(
        default=None, description="why an earlier generation answers than the one that should"
    )
    vectors: str | None = Field(
        default=None, description="why there is no search now: whose vectors are away"
    )
