"""The embeddings API of OpenAI's clients: a text is a user, each line of it a behaviour."""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from clue.inference.encoder import Encoder
from serving.auth import READ
from serving.body import ModelRoute
from serving.encodings import leading, written
from serving.engine import columns_of
from serving.live import Ready, ask, json_response
from serving.problems import OPENAI_REFUSALS, Problem, invalid
from serving.queries import embed_query
from serving.schemas import EmbedRequest, EmbedUser, Event, Name
from serving.trace import trace_of

router = APIRouter(
    prefix="/v1", route_class=ModelRoute, responses=OPENAI_REFUSALS, dependencies=[READ]
)
MODEL = "clue"


def _lines(text: str) -> str:
    if not text.strip():
        raise ValueError("holds no line; write a behaviour in each")
    return text


UserText = Annotated[str, Field(min_length=1), AfterValidator(_lines)]


class EmbeddingsRequest(BaseModel):
    """What OpenAI's clients send: one user or several, a behaviour a line, oldest first."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    input: UserText | Annotated[list[UserText], Field(min_length=1)]
    model: Name = Field(default=MODEL, description='"clue", or the id that GET /v1/models says')
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, description="as of /v1/users/embed")
    user: Name | None = Field(default=None, description="not read")
    service: Name | None = Field(
        default=None, description="where the behaviours were; by default the model's first service"
    )


class Embedding(BaseModel):
    """The vector of one user: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Estimated tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """The vectors in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


@router.post("/embeddings", response_model=EmbeddingsAnswer)
async def embeddings(body: EmbeddingsRequest, request: Request, live: Ready) -> Response:
    """Return one vector for each text: that of a user who did what its lines say.

    Whole vectors of all blocks, as /v1/users/embed returns them; refusals have OpenAI's shape.
    """
    engine = live.engine
    encoder = engine.encoder
    if body.model not in (MODEL, encoder.fingerprint):
        raise Problem(404, "unknown-model", "there is no such model here; say clue")
    blocks = columns_of(encoder.blocks)
    leading(np.empty((0, encoder.width)), blocks, body.dimensions)
    query = embed_query(_users(body, encoder), encoder, live.settings)
    answer = await ask(live, engine, request, query)
    vectors, blocks = leading(answer.vectors, blocks, body.dimensions)
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": n, "embedding": row["vector"]}
        for n, row in enumerate(written(vectors, blocks, body.encoding_format))
    ]
    tokens = trace_of(request.scope).tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response(
        {"object": "list", "data": data, "model": encoder.fingerprint, "usage": usage}
    )


def _users(body: EmbeddingsRequest, encoder: Encoder) -> EmbedRequest:
    """Return the users whom the texts describe; raises Problem 422 for a line that is no event."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    service = body.service or encoder.services[0]
    users: list[EmbedUser] = []
    for number, text in enumerate(texts):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        try:
            events = [
                Event.model_validate({"service": service, encoder.reads: line}) for line in lines
            ]
        except ValidationError as error:
            raise invalid([(f"/input/{number}", error.errors()[0]["msg"])]) from None
        users.append(EmbedUser(events=events))
    return EmbedRequest(users=users)
