"""A text reads alike in the corpus, in Python and over HTTP, whatever the tokenizer."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig, TokenizerConfig
from clue.data.text import encode, read_tokenizer
from clue.inference.text_encoder import TextEncoder
from clue.nn.dual_encoder import DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.prepare import prepare
from clue.pretrain import pretrain
from clue.run.pretrain_config import PretrainConfig
from serving.build_index import BuildConfig, build
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.client import body_of, serving, vectors_in

WORDS = [f"word{number}" for number in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def bert_like(path: Path) -> Path:
    """Write a tokenizer as BERT's are: special tokens around a text, padding and truncation."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(max_length=4)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A corpus of texts of 1 to 7 words and a run of it, both with the tokenizer above."""
    root = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(30)]
    lines = ["user_id,service,item_id,timestamp,text"]
    for user in range(60):
        for when, item in enumerate(rng.choice(30, 8, replace=False)):
            service = ("shop", "news")[item % 2]
            lines.append(f"u{user},{service},i{item},{1e9 + when},{texts[item]}")
    (root / "log.csv").write_text("\n".join(lines) + "\n")
    tokenizer = TokenizerConfig(path=bert_like(root / "tokenizer.json"))
    logs = PrepareConfig(
        name="foreign", events=[str(root / "log.csv")], out=root / "corpus", tokenizer=tokenizer
    )
    corpus = prepare(logs, progress=False)
    config = PretrainConfig(
        name="foreign",
        corpus=corpus,
        runs=root,
        steps=2,
        batch=16,
        precision="fp32",
        trackers=[],
        model=DualEncoderConfig(
            item=ItemEncoderConfig(width=32, layers=1, heads=2),
            user=UserEncoderConfig(width=32, layers=1, heads=2, embedding=16),
        ),
    )
    assert pretrain(config)
    return TinyRun(corpus, config.run)


def test_a_tokenizer_of_one_s_own_reads_alike_everywhere(foreign: TinyRun, tmp_path: Path) -> None:
    corpus, encoder = Corpus.open(foreign.corpus), TextEncoder.load(foreign.run)
    asked = json.loads((foreign.run.parent / "tokenizer.json").read_text())
    assert asked["padding"] and asked["truncation"] and asked["post_processor"]

    # the corpus: the words of a text and nothing else
    texts = corpus.item_texts.to_pylist()
    tokens, lengths = encode(read_tokenizer(encoder.tokenizer_path), texts, encoder.max_item_tokens)
    ids = {word: len(SPECIAL) + number for number, word in enumerate(WORDS)}
    expected = [[ids[word] for word in text.split()] for text in texts]
    assert len(texts) == 30 and max(map(len, expected)) > 4
    assert [list(corpus.item_tokens[row]) for row in range(len(texts))] == expected
    assert tokens.tolist() == [token for row in expected for token in row]
    assert lengths.tolist() == [len(row) for row in expected]

    # Python
    items = encoder.encode_catalogue(corpus)
    np.testing.assert_allclose(encoder.encode_items(texts), items, atol=1e-6)
    users = [
        {
            name: [texts[item] for item in corpus.items_of(number)[user]]
            for number, name in enumerate(corpus.services)
        }
        for user in range(corpus.num_users)
    ]
    shop = encoder.encode_histories(corpus, corpus.items_of(0))
    alone = [user for user in range(corpus.num_users) if users[user][corpus.services[0]]]
    vectors = encoder.encode(
        [{corpus.services[0]: users[user][corpus.services[0]]} for user in alone]
    )
    np.testing.assert_allclose(vectors, shop[alone], atol=1e-6)

    # HTTP
    index = tmp_path / "index"
    build(BuildConfig(checkpoint=foreign.run, corpus=foreign.corpus, out=index))
    settings = Settings(checkpoint=foreign.run, index=index)

    async def ask() -> np.ndarray:
        async with serving(settings) as (client, _):
            return vectors_in(await client.post("/v1/users/embed", json=body_of(users)))

    np.testing.assert_allclose(asyncio.run(ask()), encoder.encode(users), atol=1e-6)


def test_batches_and_one_user_give_the_same(tiny_run: TinyRun) -> None:
    encoder = TextEncoder.load(tiny_run.run)
    users = [{"shop": [f"pan {n}", "apron"], "news": ["bread"] * (n % 2)} for n in range(7)]
    whole = encoder.encode(users)
    assert whole.shape == (7, encoder.width)
    parts = encoder.encode(users, batch_size=3, show_progress_bar=False)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(users[2]), whole[2], atol=1e-6)
    assert encoder.encode(users[2]).shape == (encoder.width,)
    with pytest.raises(ValueError, match="user 5 has no events"):
        encoder.encode([*users[:5], {"shop": []}], batch_size=2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        encoder.encode(users, batch_size=0)
    cosines = encoder.similarity(whole[0], whole)
    np.testing.assert_allclose(cosines, whole[:1] @ whole.T, atol=1e-6)
    assert encoder.similarity(2 * whole, whole).shape == (7, 7)
    np.testing.assert_allclose(np.diag(encoder.similarity(2 * whole, whole)), 1, atol=1e-6)
