"""What operators look at: the metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.auth import READ
from serving.metrics import Metrics
from serving.problems import REFUSALS

router = APIRouter(responses=REFUSALS, dependencies=[READ])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Return counts, times and sizes in the text format of Prometheus."""
    of_service: Metrics = request.app.state.metrics
    return Response(of_service.exposition(), media_type=CONTENT_TYPE_LATEST)
