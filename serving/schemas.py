"""What the routes take and give; OpenAPI is made from these.

Strict: "1" is no number, true is no k, NaN is no coordinate, an unknown field is an error. The
operator's limits (users, events, text bytes, k) are checked in `serving.queries`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ID_BYTES = 256
MOST_SECONDS = 1e11  # the year 5138; a log's larger numbers are milliseconds or finer


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


Text = Annotated[str, Field(min_length=1), AfterValidator(_clean)]
Name = Annotated[Text, AfterValidator(_short)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Event(_Strict):
    """One behaviour, of which GET /v1/models says what the model `reads`: its text or its item id.

    To a model of texts any service is welcome, to a model of item ids those of its catalogue. Ids
    are texts as the log's are after preparing: "123", not the number 123, nor "123.0".
    """

    service: Name
    text: Text | None = None
    item_id: Name | None = None
    timestamp: Annotated[float, AfterValidator(_seconds)] | None = Field(
        default=None, description="epoch seconds, a number"
    )


Events = Annotated[
    list[Event],
    Field(
        min_length=1,
        description="ordered by timestamp when every event has one, else as given, oldest first",
    ),
]


class EmbedUser(_Strict):
    """A user to embed; the id is only handed back."""

    user_id: Name | None = None
    events: Events


class EmbedRequest(_Strict):
    """Users whose vectors are wanted."""

    users: Annotated[list[EmbedUser], Field(min_length=1)]


class Target(_Strict):
    """Whose neighbours are wanted: exactly one of events, vector and user_id."""

    events: Events | None = None
    vector: list[float] | None = Field(
        default=None, description="a unit vector of the model's width"
    )
    user_id: Name | None = Field(default=None, description="a user of the index")
    k: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _one(self) -> "Target":
        if sum(x is not None for x in (self.events, self.vector, self.user_id)) != 1:
            raise ValueError("give exactly one of events, vector and user_id")
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


class Answer(BaseModel):
    """What every answer says: the model's fingerprint and the index generation behind it."""

    model: str
    index: str


class UserVector(BaseModel):
    """One user's unit vector."""

    user_id: str | None
    vector: list[float]


class EmbedAnswer(Answer):
    """The vectors in the order of the request."""

    data: list[UserVector]
    unseen_services: list[str] = Field(description="services the model was not pretrained on")


class Item(BaseModel):
    """A catalogue item and the cosine of its vector and the user's."""

    item_id: str
    service: str
    text: str
    score: float


class ItemsAnswer(Answer):
    """The nearest items, best first; fewer than k only when fewer remain."""

    data: list[Item]


class User(BaseModel):
    """A user of the index and the cosine of the two vectors."""

    user_id: str
    score: float


class UsersAnswer(Answer):
    """The nearest users, best first."""

    data: list[User]


class Model(BaseModel):
    """The encoder: its fingerprint, the width of its vectors, what it was pretrained on."""

    id: str
    width: int
    services: list[str]
    max_events: int = Field(description="the newest events of a history that are read")
    reads: Literal["text", "item_id"] = Field(description="what an event must have")
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


class ModelsAnswer(BaseModel):
    """What this service serves."""

    data: list[Model]
    index: IndexInfo
    limits: Limits


class Health(BaseModel):
    """The state of the process."""

    status: str
