"""Probes of the orchestrator."""

from fastapi import APIRouter, Response

from serving.live import Ready, json_response
from serving.problems import REFUSALS
from serving.schemas import Health

router = APIRouter(responses=REFUSALS)


@router.get("/livez", response_model=Health)
async def livez() -> Response:
    """Answer while the event loop runs; nothing is asked of the model."""
    return json_response({"status": "alive"})


@router.get("/readyz", response_model=Health)
async def readyz(live: Ready) -> Response:
    """Answer while model, index and model thread do; 503 with the reason when not."""
    return json_response({"status": "ready", **live.engine.stamp})
