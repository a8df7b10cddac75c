"""What is served: the model, the index and the limits of a request."""

from dataclasses import asdict

from fastapi import APIRouter, Response

from clue.inference.universal_encoder import UniversalEncoder
from serving.auth import READ
from serving.body import StrictRoute
from serving.engine import columns_of
from serving.live import Ready, json_response
from serving.problems import REFUSALS
from serving.schemas import ID_BYTES, ModelsAnswer

router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=REFUSALS, dependencies=[READ])


@router.get("/models", response_model=ModelsAnswer)
async def models(live: Ready) -> Response:
    """Return which model and index are served, and the limits of a request."""
    encoder, index, settings = live.engine.encoder, live.engine.index, live.settings
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
    }
    generation = {
        "id": index.name,
        "model": index.model_fingerprint,
        "corpus": index.corpus_fingerprint,
        "corpus_name": index.corpus_name,
        "templates": index.templates,
        "services": index.services,
        "items": index.num_items,
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
    return json_response({"data": [model], "index": generation, "limits": limits})
