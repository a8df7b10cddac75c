"""bf16: taken where it is as good, refused aloud where it is not, and said."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from clue.inference.text_encoder import TextEncoder
from clue.nn.attention import Attention
from serving.index import Index
from serving.precision import FP32, chosen_precision
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, serving, vectors_in

USERS = [{"films": ["one two", "three"]}, {"news": ["a word"], "films": ["the end"]}]


def test_bf16_is_near_fp32_in_every_block_and_that_is_said(
    tiny_universal: TinyRun, universal_index: Path
) -> None:
    async def answers(precision: str) -> tuple[np.ndarray, dict[str, object], dict[str, list[int]]]:
        settings = Settings(checkpoint=tiny_universal.run, index=universal_index)
        chosen = settings.model_copy(update={"precision": precision})
        async with serving(chosen) as (client, _):
            model = (await client.get("/v1/models")).json()["data"][0]
            answer = await client.post("/v1/users/embed", json=body_of(USERS))
            return vectors_in(answer), model["precision"], answer.json()["blocks"]

    exact, none, blocks = asyncio.run(answers("fp32"))
    near, said, _ = asyncio.run(answers("bf16"))
    assert none == {"name": "fp32", "cosine": {}, "deviation": {}, "fallback": ""}
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert said == {**none, "fallback": "the processor has no bf16"}
        return
    assert said["name"] == "bf16" and said["fallback"] == ""
    cosine, deviation = said["cosine"], said["deviation"]
    assert isinstance(cosine, dict) and isinstance(deviation, dict)
    assert list(cosine) == list(deviation) == list(blocks)
    assert min(cosine.values()) >= 0.999
    assert 0 < max(deviation.values()) < 0.05
    assert deviation["activity"] == 0  # no matrix product makes it
    assert 0 < np.abs(exact - near).max() < 0.05
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(near, axis=1)
    assert ((exact * near).sum(1) / norms).min() > 0.999


def test_a_model_that_bf16_would_change_stays_fp32(
    tiny_run: TinyRun, tiny_index: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("the processor has no bf16")
    encoder, index = TextEncoder.load(tiny_run.run), Index.load(tiny_index)
    assert chosen_precision("fp32", encoder, index) == FP32
    assert chosen_precision("bf16", encoder, index).name == "bf16"
    with torch.no_grad():
        for module in encoder.model.modules():
            if isinstance(module, Attention):  # a softmax of huge scores picks another key
                module.qkv.weight.mul_(100)
                module.out.weight.mul_(100)
    refused = chosen_precision("bf16", encoder, index)
    assert refused.name == "fp32" and refused.cosine["all"] < 0.999
    assert refused.fallback.startswith("the cosine of bf16 with fp32 is below 0.999: all")
    assert refused.fallback in caplog.text
