"""The OpenAPI document: what FastAPI reads of the routes, and what they have in common."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from serving.problems import OpenAIError, ProblemBody

# Routes that wait for the model thread: they heed how long the client will.
PATIENT = ("/v1/users/", "/v1/items/", "/v1/embeddings")
TIMEOUT: dict[str, Any] = {
    "name": "x-request-timeout-ms",
    "in": "header",
    "required": False,
    "description": "milliseconds after which nothing is computed for the request any more",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document of `app`, made at the first call."""
    if app.openapi_schema is None:
        tree = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, known = models_json_schema(
            [(ProblemBody, "serialization"), (OpenAIError, "serialization")],
            ref_template="#/components/schemas/{model}",
        )
        tree["components"]["schemas"] |= known["$defs"]
        for path, methods in tree["paths"].items():
            for method, operation in methods.items():
                waits = method != "delete" and not path.endswith("/vector")
                if path.startswith(PATIENT) and waits:
                    operation.setdefault("parameters", []).append(TIMEOUT)
        app.openapi_schema = tree
    return app.openapi_schema
