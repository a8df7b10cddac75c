"""What is served: the model, the index and the limits of a request."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as InPath

from clue.inference.universal_encoder import UniversalEncoder
from serving.auth import ADMIN, READ
from serving.body import StrictRoute
from serving.contents import BrokenIndex
from serving.durable import write
from serving.engine import columns_of
from serving.generation import NAME, manifest_of, names
from serving.live import Live, Ready, elsewhere, json_response
from serving.loading import model_folder
from serving.problems import REFUSALS, Problem
from serving.schemas import ID_BYTES, ModelsAnswer
from serving.user_schemas import ActivateRequest, Activation
from serving.writes import Goal

router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=REFUSALS, dependencies=[READ])

Generation = Annotated[str, InPath(pattern=f"^{NAME.pattern}$")]


@router.get("/models", response_model=ModelsAnswer)
async def models(live: Ready) -> Response:
    """Return which model and index are served, and the limits of a request."""
    encoder, index, settings = live.engine.encoder, live.engine.index, live.settings
    catalogue = index.catalogue
    model = {
        "id": encoder.fingerprint,
        "width": encoder.width,
        "services": encoder.services,
        "max_events": encoder.max_events,
        "reads": encoder.reads,
        "blocks": columns_of(encoder.blocks),
        "similarity": (encoder.similarity_columns.start, encoder.similarity_columns.stop),
        "ranking": (encoder.ranking_columns.start, encoder.ranking_columns.stop),
        "fields": encoder.fields if isinstance(encoder, UniversalEncoder) else {},
        "clocks": encoder.clocks if isinstance(encoder, UniversalEncoder) else {},
        "max_item_tokens": encoder.max_item_tokens,
        "precision": asdict(live.engine.precision),
    }
    generation = {
        "id": catalogue.name,
        "model": catalogue.model_fingerprint,
        "corpus": catalogue.corpus_fingerprint,
        "corpus_name": catalogue.corpus_name,
        "templates": catalogue.templates,
        "services": catalogue.services,
        "items": catalogue.num_items,
        "users": index.num_users,
        "searched_by": {name: asdict(built) for name, built in index.built.items()},
    }
    limits = {
        "users": settings.max_users,
        "events_per_user": settings.max_events,
        "text_bytes": settings.max_text_bytes,
        "id_bytes": ID_BYTES,
        "body_bytes": settings.max_body_bytes,
        "k": settings.max_k,
        "seconds": settings.request_seconds,
    }
    known: dict[str, Any] = {"generations": _generations(live), "activating": None}
    if live.store is not None and (goal := live.store.state().goal):
        lacking = live.store.count_lacking(manifest_of(settings.index, goal).model_fingerprint)
        known["activating"] = {"id": goal, "users_left": lacking}
    return json_response({"data": [model], "index": generation, "limits": limits, **known})


@router.post(
    "/models/{generation}:activate",
    response_model=Activation,
    status_code=202,
    dependencies=[ADMIN],
)
async def activate(generation: Generation, body: ActivateRequest, live: Ready) -> Response:
    """Have a generation and its model served, an earlier one too, once all users are embedded.

    The one of now answers until then; GET /v1/models says which that is, and how many are left.
    """
    out = live.settings.index
    if generation not in names(out):
        raise Problem(404, "unknown-generation", "GET /v1/models lists the generations")
    try:
        manifest = manifest_of(out, generation)
    except BrokenIndex as error:
        raise Problem(409, "broken-generation", str(error)) from None
    if await asyncio.to_thread(model_folder, live.settings, manifest.model_fingerprint) is None:
        detail = "the model of this generation is not here; put it into the folder CLUE_MODELS"
        raise Problem(409, "unknown-model", detail)
    if live.store is not None:
        await write(live.store, [Goal(generation=generation)])
    else:
        await elsewhere(live, live.engine, live.generations.serve, generation)
    return json_response({**live.engine.stamp, "activating": generation}, 202)


def _generations(live: Live) -> list[dict[str, Any]]:
    """Return the generations of the index that are whole, oldest first."""
    kept: list[dict[str, Any]] = []
    for name in names(live.settings.index):
        try:
            manifest = manifest_of(live.settings.index, name)
        except BrokenIndex:
            continue
        kept.append(
            {
                "id": name,
                "model": manifest.model_fingerprint,
                "users": manifest.num_users,
                "items": manifest.num_items,
                "served": name == live.engine.index.catalogue.name,
            }
        )
    return kept
