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
    model_validator,
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


def _clean(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _short(text: str) -> str:
    if len(text.encode()) > ID_BYTES:
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
Text = Annotated[str, Field(min_length=1), AfterValidator(_clean)]
Name = Annotated[Text, AfterValidator(_short)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Event(_Strict):
    """One behaviour, of which GET /v1/models says what the model `reads`: its text or its item id.

    To a model of texts any service is welcome, to a model of item ids those of its catalogue. Ids
    are texts as the log's are after preparing: "123", not the number 123, nor "123.0". Further
    members are fields, of which GET /v1/models says those that the model has: a numeric one is a
    number, a categorical one a text, a boolean one true or false; null or no member is missing.
    """

    model_config = ConfigDict(extra="allow")

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


class EmbedUser(_Strict):
    """A user to embed; the id is only handed back."""

    user_id: Name | None = None
    events: Events
    as_of: Moment | None = Field(default=None, description="that of this user alone")


class EmbedRequest(_Strict):
    """Users whose vectors are wanted."""

    users: Annotated[list[EmbedUser], Field(min_length=1)]
    as_of: Moment | None = Field(default=None, description=AS_OF)
    blocks: list[Name] | None = Field(
        default=None,
        min_length=1,
        description="the blocks of the vectors that are wanted; all when absent",
    )


class Target(_Strict):
    """Whose neighbours are wanted: exactly one of events, vector and user_id."""

    events: Events | None = None
    as_of: Moment | None = Field(default=None, description=AS_OF)
    vector: list[float] | None = Field(
        default=None, description="a vector as /v1/users/embed returns it, of all blocks"
    )
    user_id: Name | None = Field(default=None, description="a user of the index or the store")
    k: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _one(self) -> "Target":
        if sum(x is not None for x in (self.events, self.vector, self.user_id)) != 1:
            raise ValueError("give exactly one of events, vector and user_id")
        if self.as_of is not None and self.vector is not None:
            raise ValueError("as_of needs events or user_id; a vector is of one moment")
        return self


class SimilarUsersRequest(Target):
    """A user whose like are wanted; a user of the index is left out of its own neighbours."""


class SearchItemsRequest(Target):
    """A user for whom items are wanted."""

    service: Name | None = Field(default=None, description="only items of this service")
    exclude_seen: bool = Field(
        default=False,
        description="leave out the items of the user's own history: those of an event's item_id, "
        "and those that the model cannot tell from what it reads of an event",
    )

    @model_validator(mode="after")
    def _seen(self) -> "SearchItemsRequest":
        if self.exclude_seen and self.vector is not None:
            raise ValueError("exclude_seen needs events or user_id; a vector has seen nothing")
        return self


class UpsertRequest(_Strict):
    """The whole history of a user, which replaces the one before."""

    events: Events
    as_of: Moment | None = Field(default=None, description=AS_OF)


class AppendRequest(UpsertRequest):
    """Events to add to a user's history; the newest `events_per_user` of all are kept."""


class UpsertUser(UpsertRequest):
    """A user to write."""

    user_id: Name


class UpsertManyRequest(_Strict):
    """Users to write, all of them or none."""

    users: Annotated[list[UpsertUser], Field(min_length=1)]


class ActivateRequest(_Strict):
    """Nothing is to be said: {}."""


Columns = tuple[int, int]
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
    vector: list[float]


class EmbedAnswer(Answer):
    """The vectors in the order of the request."""

    data: list[UserVector]
    blocks: Blocks
    unseen_services: list[str] = Field(description="services the model was not pretrained on")


class Item(BaseModel):
    """A catalogue item and how it fits: the inner product of the columns in which items rank.

    Of a model without blocks it is the cosine. A predictive block is trained within a service.
    """

    item_id: str
    service: str
    text: str
    score: float


class ItemsAnswer(Answer):
    """The nearest items, best first; fewer than k only when fewer remain."""

    data: list[Item]


class User(BaseModel):
    """A user of the index and the cosine of the columns by which users are compared."""

    user_id: str
    score: float


class UsersAnswer(Answer):
    """The nearest users, best first."""

    data: list[User]


class Written(Answer):
    """A write that is on the disk: `seq` is its number, which X-Min-Seq of a read may name."""

    user_id: str
    seq: int


class WrittenUser(BaseModel):
    """One user of a write of several."""

    user_id: str
    seq: int


class WrittenAnswer(Answer):
    """The writes in the order of the request."""

    data: list[WrittenUser]


class StoredAnswer(Answer):
    """A stored user: events as sent, and their vector as of `as_of`, made by the write `seq`."""

    user_id: str
    seq: int
    as_of: float | None = Field(description="null where no event has a time")
    events: list[Event]
    vector: list[float]
    blocks: Blocks


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


class Activation(Answer):
    """What is served as yet, and the generation that will be."""

    activating: str


class Health(BaseModel):
    """The state of the process."""

    status: str
