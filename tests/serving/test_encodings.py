import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest

from serving.encodings import leading, written
from serving.problems import Problem
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, problem, serving, vectors_in

BLOCKS = {"small": (0, 3), "large": (3, 8)}
VECTORS = np.concatenate(
    [np.linspace(-1e-3, 1e-3, 12).reshape(4, 3), np.linspace(-50, 70, 20).reshape(4, 5)], axis=1
).astype(np.float32)


def read(row: dict[str, Any], dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(row["vector"]), dtype)


def test_bytes_of_vectors_hold_what_the_numbers_do() -> None:
    for row, vector in zip(written(VECTORS, BLOCKS, "base64"), VECTORS, strict=True):
        np.testing.assert_array_equal(read(row, "<f4"), vector)


def test_int8_is_within_half_a_step_of_each_block_however_small() -> None:
    rows = written(VECTORS, BLOCKS, "int8")
    for row, vector in zip(rows, VECTORS, strict=True):
        whole = read(row, "i1").astype(np.float64)
        for (start, stop), scale in zip(BLOCKS.values(), row["scales"], strict=True):
            assert scale == pytest.approx(np.abs(vector[start:stop]).max() / 127)
            np.testing.assert_allclose(
                whole[start:stop] * scale, vector[start:stop], rtol=0, atol=0.501 * scale
            )
    (zero,) = written(np.zeros((1, 8), np.float32), BLOCKS, "int8")
    assert not read(zero, "i1").any()


def test_a_vector_is_cut_between_blocks_and_nowhere_else() -> None:
    whole, blocks = leading(VECTORS, BLOCKS, 8)
    np.testing.assert_array_equal(whole, VECTORS)
    first, kept = leading(VECTORS, BLOCKS, 3)
    np.testing.assert_array_equal(first, VECTORS[:, :3])
    assert (blocks, kept) == (BLOCKS, {"small": (0, 3)})
    assert leading(VECTORS, {}, 8)[0].shape == (4, 8)
    for dimensions, columns in ((1, BLOCKS), (4, BLOCKS), (9, BLOCKS), (3, {})):
        with pytest.raises(Problem):
            leading(VECTORS, columns, dimensions)


def test_every_way_to_ask_for_a_vector_gives_the_same_one(
    settings: Settings, tiny_run: TinyRun
) -> None:
    users = [{"films": ["one", "two"]}, {"films": ["three"]}]
    body = body_of(users)
    texts = ["one\ntwo", "three\n\n"]

    async def test() -> None:
        async with serving(settings) as (client, _):

            async def post(path: str, body: dict[str, Any], **headers: str) -> Any:
                return await client.post(path, json=body, headers=headers)

            url = "/v1/users/embed"
            plain = await post(url, body)
            truth = vectors_in(plain)
            coded = (await post(url, {**body, "encoding_format": "base64"})).json()["data"]
            for row, vector in zip(coded, truth, strict=True):
                np.testing.assert_array_equal(read(row, "<f4"), vector)
            octets = await post(url, body, accept="application/octet-stream")
            shape = (int(octets.headers["x-rows"]), int(octets.headers["x-width"]))
            assert octets.headers["x-model"] == plain.json()["model"]
            assert json.loads(octets.headers["x-blocks"]) == {}
            np.testing.assert_array_equal(
                np.frombuffer(octets.content, "<f4").reshape(shape), truth
            )
            mixed = {**body, "encoding_format": "int8"}
            problem(await post(url, mixed, accept="application/octet-stream"), 422)
            width = truth.shape[1]
            assert vectors_in(await post(url, {**body, "dimensions": width})).shape == truth.shape
            for wrong in (1, width - 1, width + 1, 0, -1):
                refused = problem(await post(url, {**body, "dimensions": wrong}), 422)
                assert refused["errors"][0]["pointer"] == "/dimensions"
            asked = {"model": "clue", "input": texts, "service": "films", "user": "u"}
            answer = (await post("/v1/embeddings", asked)).json()
            found = [one["embedding"] for one in answer["data"]]
            np.testing.assert_array_equal(np.array(found, np.float32), truth)
            assert answer["usage"]["prompt_tokens"] > 0
            one = {**asked, "input": texts[1], "encoding_format": "base64"}
            (single,) = (await post("/v1/embeddings", one)).json()["data"]
            np.testing.assert_allclose(
                np.frombuffer(base64.b64decode(single["embedding"]), "<f4"), truth[1], atol=1e-6
            )

    asyncio.run(test())


def test_refusals_of_the_openai_view_have_its_shape(settings: Settings) -> None:
    wrong: list[tuple[dict[str, Any], int, str | None]] = [
        ({"input": ""}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": [[1, 2]]}, 400, "input"),
        ({"input": "a\0b"}, 400, "input"),
        ({"input": "a", "dimensions": 1}, 400, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"input": "a", "model": "gpt"}, 404, None),
        ({}, 400, "input"),
    ]

    async def test() -> None:
        async with serving(settings) as (client, _):
            for body, status, param in wrong:
                answer = await client.post("/v1/embeddings", json=body)
                assert answer.status_code == status, (body, answer.text)
                error = answer.json()["error"]
                assert set(error) == {"message", "type", "param", "code"}
                assert error["type"] == "invalid_request_error"
                assert (error["param"] or "").partition(".")[0] == (param or "")

    asyncio.run(test())
