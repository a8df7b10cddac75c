"""Probes of the orchestrator."""

from fastapi import APIRouter, Request, Response

from serving.live import Ready, json_response, not_ready
from serving.problems import REFUSALS
from serving.schemas import Health

router = APIRouter(responses=REFUSALS)


@router.get("/livez", response_model=Health)
async def livez() -> Response:
    """Answer while the event loop runs; nothing is asked of the model."""
    return json_response({"status": "alive"})


@router.get("/startupz", response_model=Health)
async def startupz(live: Ready) -> Response:
    """Answer once model and index are loaded; 503 until then, and where they cannot be."""
    return json_response({"status": "started", **live.engine.stamp})


@router.get("/readyz", response_model=Health)
async def readyz(request: Request, live: Ready) -> Response:
    """Answer while model, index and model thread do; 503 with the reason when not.

    Where vectors on another machine are away it is "degraded": all instances miss them alike, and
    embedding and stored vectors go on.
    """
    if request.app.state.draining:
        raise not_ready("the process is about to end; ask another", kind="draining")
    known = {"fallback": live.fallback} if live.fallback else {}
    away = live.generations.trouble()
    if away:
        known["vectors"] = away
    return json_response({"status": "degraded" if away else "ready", **live.engine.stamp, **known})
