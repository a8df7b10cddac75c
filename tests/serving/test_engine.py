"""The engine, with a model whose weights have broken."""

from pathlib import Path

import torch

from clue.inference.text_encoder import TextEncoder
from serving.engine import BadVector, Engine, Query
from serving.index import Index
from tests.conftest import TinyRun


def test_each_bad_query_has_an_exception_of_its_own(tiny_run: TinyRun, tiny_index: Path) -> None:
    encoder = TextEncoder.load(tiny_run.run)
    engine = Engine(encoder, Index.load(tiny_index), threads=1)
    with torch.no_grad():
        encoder.model.items.token.weight.fill_(torch.nan)
    answers = engine.run([Query(histories=[[("shop", text)]]) for text in ("tea", "jam", "tea")])
    assert all(isinstance(answer, BadVector) for answer in answers)
    assert len({id(answer) for answer in answers}) == 3
