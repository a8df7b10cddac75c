"""What the routes of durable users and of generations take and give."""

from typing import Annotated

from pydantic import BaseModel, Field

from serving.schemas import AS_OF, Answer, Blocks, Event, Events, Moment, Name, Strict


class UpsertRequest(Strict):
    """The whole history of a user, which replaces the one before."""

    events: Events
    as_of: Moment | None = Field(default=None, description=AS_OF)


class AppendRequest(UpsertRequest):
    """Events to add to a user's history; the newest `events_per_user` of all are kept."""


class UpsertUser(UpsertRequest):
    """A user to write."""

    user_id: Name


class UpsertManyRequest(Strict):
    """Users to write, all of them or none."""

    users: Annotated[list[UpsertUser], Field(min_length=1)]


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


class VectorAnswer(Answer):
    """A stored user's vector, made by the write `seq`."""

    user_id: str
    seq: int
    vector: list[float]
    blocks: Blocks


class ActivateRequest(Strict):
    """Nothing is to be said: {}."""


class Activation(Answer):
    """What is served as yet, and the generation that will be."""

    activating: str
