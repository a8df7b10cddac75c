"""schemathesis over the whole API: each answer is as the OpenAPI document says."""

import hashlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from serving.keys import ApiKey
from serving.settings import Settings
from tests.serving.process import listening

# A few drawn requests of each operation, beside the 1,200 that follow from the document itself.
# SCHEMATHESIS_EXAMPLES=100 is the longer form, of both kinds of models.
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))
MODELS = ("text",) if EXAMPLES < 10 else ("text", "universal")
ACTIVATE = "POST /v1/models/{generation}:activate"  # of generations none of which can be guessed
KEY = "k" * 43
# They make a 503 and a 504 as they should; test_users.py and test_app.py have them.
WAITING = ("x-min-seq", "x-request-timeout-ms")
# What a document of every model cannot say: which services, fields and blocks this one has.
MODELS_OWN = [*["2xx", "401", "403", "404", "409", "422", "429"]]


def configured(url: str) -> SchemathesisConfig:
    accepted = {"positive_data_acceptance": {"expected-statuses": MODELS_OWN}}
    # OpenAI's clients read a 400 where another route says 422
    as_openai = {"positive_data_acceptance": {"expected-statuses": [*MODELS_OWN, "400"]}}
    return SchemathesisConfig.from_dict(
        {
            "seed": 0,
            "base-url": url,
            "auth": {"openapi": {"HTTPBearer": {"bearer": KEY}}},
            "generation": {
                "max-examples": EXAMPLES,
                "database": "none",
                "no-shrink": True,
                "allow-extra-parameters": False,  # an unknown header is no error anywhere
            },
            "checks": accepted,
            "operations": [
                {"include-path": "/v1/embeddings", "checks": as_openai},
                # these are users of these names too, to be read and written by the other methods
                {
                    "include-path-regex": "^/v1/users/(embed|similar|upsert)$",
                    "checks": {**accepted, "allow_header_conformance": {"enabled": False}},
                },
            ],
        }
    )


def document_of(url: str) -> dict[str, Any]:
    """The service's document, narrowed to its model: more is accepted, and reaches the model.

    Without the headers that have the service wait or give up.
    """
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client:
        tree, models = client.get("/openapi.json").json(), client.get("/v1/models").json()
    for operations in tree["paths"].values():
        for operation in operations.values():
            told = operation.get("parameters", [])
            operation["parameters"] = [each for each in told if each["name"] not in WAITING]
    (model,) = models["data"]
    schemas = tree["components"]["schemas"]
    for name in ("EmbedRequest", "EmbeddingsRequest", "SearchItemsRequest", "SimilarUsersRequest"):
        members = schemas[name]["properties"]
        if "dimensions" in members:
            members["dimensions"]["anyOf"][0] = {"const": model["width"]}
        if "blocks" in members and model["blocks"]:
            members["blocks"]["anyOf"][0]["items"] = {"enum": [*model["blocks"]]}
        elif "blocks" in members:
            del members["blocks"]
        if "k" in members:
            members["k"]["maximum"] = models["limits"]["k"]
            vector = {"minItems": model["width"], "maxItems": model["width"]}
            members["vector"]["anyOf"][0] |= vector
    schemas["EmbeddingsRequest"]["properties"]["model"]["enum"] = ["clue"]
    event = schemas["Event"]
    event["anyOf"] = event["anyOf"][:1]  # models of texts
    event["additionalProperties"] = False
    kinds = {"numeric": "number", "categorical": "string", "boolean": "boolean"}
    event["properties"] |= {n: {"type": [kinds[k], "null"]} for n, k in model["fields"].items()}
    return tree


@pytest.mark.parametrize("model", MODELS)
def test_every_answer_is_as_the_document_says(
    model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = {"text": ("tiny_run", "tiny_index"), "universal": ("tiny_universal", "universal_index")}
    run, index = map(request.getfixturevalue, names[model])
    key = ApiKey(name="all", role="admin", sha256=hashlib.sha256(KEY.encode()).hexdigest())
    settings = Settings(checkpoint=run.run, index=index, store=tmp_path / "store", keys=(key,))
    answers: dict[str, Counter[int]] = {}
    findings: list[str] = []
    with listening(settings) as url:
        tree = document_of(url)
        schema = schemathesis.openapi.from_dict(tree, config=configured(url))
        for event in from_schema(schema).execute():
            if isinstance(event, events.NonFatalError | events.FatalError):
                findings.append(repr(event))
            elif isinstance(event, events.ScenarioFinished):
                of_operation = answers.setdefault(event.recorder.label or "", Counter())
                findings += findings_of(event)
                for made in event.recorder.interactions.values():
                    assert made.response is not None
                    of_operation[made.response.status_code] += 1
    for label, counted in answers.items():
        sys.stdout.write(f"{model} {label}: {dict(sorted(counted.items()))}\n")
    assert not findings, "\n\n".join(findings[:20])
    answers.pop("Stateful tests", None)  # which go from operation to operation
    operations = {f"{m.upper()} {path}" for path, each in tree["paths"].items() for m in each}
    assert set(answers) == operations and len(operations) == 19
    accepted = {label for label, counted in answers.items() if min(counted) < 300}
    assert operations - accepted == {ACTIVATE}
    assert sum(counted.total() for counted in answers.values()) > 1000


def findings_of(event: events.ScenarioFinished) -> list[str]:
    """What a scenario found wrong, with the request that shows it."""
    failed = [
        (check.name, check.failure_info)
        for checks in event.recorder.checks.values()
        for check in checks
        if check.failure_info is not None
    ]
    return [
        "\n".join([str(event.recorder.label), name, info.failure.message, info.code_sample])
        for name, info in failed
    ]
