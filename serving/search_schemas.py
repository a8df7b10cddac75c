"""What the routes of search take and give: whose neighbours, which of them, compared by what."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from serving.schemas import AS_OF, Answer, Events, Moment, Name, Strict, Text, clean, short

Ids = Annotated[list[Name], Field(max_length=1000)]
BlockNames = Annotated[list[Name], Field(min_length=1, max_length=16)]


def one_of(**kinds: str) -> ConfigDict:
    """Return a schema's rule that exactly one of these members is there and not null."""
    given: list[Any] = [
        {"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()
    ]
    examples: list[Any] = [{"events": [{"service": "shop", "text": "cast iron pan"}], "k": 5}]
    return ConfigDict(json_schema_extra={"oneOf": given, "examples": examples})


class Target(Strict):
    """Whose neighbours are wanted: exactly one of events, vector and user_id."""

    model_config = one_of(events="array", vector="array", user_id="string")

    events: Events | None = None
    as_of: Moment | None = Field(default=None, description=AS_OF)
    vector: list[float] | None = Field(
        default=None, description="a vector as /v1/users/embed returns it, of all blocks"
    )
    user_id: Name | None = Field(default=None, description="a user of the index or the store")
    k: int = Field(default=10, ge=1)

    def given(self) -> list[str]:
        """Return the names of what is searched with."""
        names = [
            name for name in ("events", "vector", "user_id") if getattr(self, name) is not None
        ]
        return names + (["text"] if getattr(self, "text", None) is not None else [])

    @model_validator(mode="after")
    def _one(self) -> "Target":
        if len(self.given()) != 1:
            several = "events, vector, user_id and text"
            known = several if hasattr(self, "text") else "events, vector and user_id"
            raise ValueError(f"give exactly one of {known}")
        if self.as_of is not None and self.events is None and self.user_id is None:
            raise ValueError("as_of needs events or user_id; a vector is of one moment")
        return self


class UsersFilter(Strict):
    """The users that may be in the answer; what is left out asks nothing."""

    services: list[Name] = Field(
        default=[], max_length=64, description="who have events in each of these services"
    )
    min_events: int = Field(default=0, ge=0, description="who have so many events or more")


class SimilarUsersRequest(Target):
    """A user whose like are wanted; a user of the index is left out of its own neighbours."""

    blocks: BlockNames | None = Field(
        default=None,
        description="blocks among the model's similarity columns, by which users are compared: a "
        "score is the inner product of unit vectors, of the query's with these columns alone; by "
        "default all of them, the cosine",
    )
    filter: UsersFilter | None = None


class ItemsFilter(Strict):
    """The items that may be in the answer; what is left out asks nothing."""

    services: list[Name] = Field(default=[], max_length=64, description="of one of these services")
    item_ids: Ids = Field(default=[], description="with one of these ids, in whichever service")
    exclude_item_ids: Ids = Field(default=[], description="with none of these ids")
    min_events: int = Field(
        default=0, ge=0, description="met so often or more by the users of the index"
    )
    contains: Annotated[str, AfterValidator(clean), AfterValidator(short)] = Field(
        default="", description="whose text holds this, in letters of either case"
    )


class SearchItemsRequest(Target):
    """A user for whom items are wanted, or a `text` that they are to be like."""

    model_config = one_of(events="array", vector="array", user_id="string", text="string")

    text: Text | None = Field(
        default=None, description="words as an item's text has them; to a model that reads texts"
    )
    service: Name | None = Field(default=None, description="only items of this service")
    blocks: BlockNames | None = Field(
        default=None,
        description="blocks of the model by which items are compared, by the mean of their "
        "cosines; by default those of `text` are contrastive and lexical, and for a user items "
        "rank by the inner product of the ranking columns. Of a user of the index alone only the "
        "latter are known",
    )
    filter: ItemsFilter | None = None
    exclude_seen: bool = Field(
        default=False,
        description="leave out the items of the user's own history: those of an event's item_id, "
        "and those that the model cannot tell from what it reads of an event",
    )

    @model_validator(mode="after")
    def _seen(self) -> "SearchItemsRequest":
        if self.exclude_seen and (self.vector is not None or self.text is not None):
            raise ValueError(
                "exclude_seen needs events or user_id; a vector or a text has seen nothing"
            )
        return self


class Item(BaseModel):
    """A catalogue item and how it fits: the inner product of the columns in which items rank.

    Of a model without blocks it is the cosine, and of chosen blocks or a text the mean of theirs. A
    predictive block is trained within a service.
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
