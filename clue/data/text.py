"""Text of the items: templates that make it out of columns, and the tokenizer learned from it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD = "<pad>"
LEAST_VOCAB = 257  # the pad and every byte


def template_fields(template: str) -> list[tuple[str, str | None]]:
    """Return a template in pairs: "by {name}." -> [("by ", "name"), (".", None)].

    Raises ValueError for a template that is not plain `{column}` fields or has none of them.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r}: {error}; write it like '{{title}}'") from None
    if any(form or conversion for _, _, form, conversion in parts):
        raise ValueError(f"template {template!r}: only plain {{column}} fields are read")
    fields = [(before, name) for before, name, _, _ in parts]
    if not any(name for _, name in fields):
        raise ValueError(
            f"template {template!r} names no column: all its items would read the same"
        )
    return fields


def learn_tokenizer(texts: Iterator[Sequence[str]], vocab_size: int) -> Tokenizer:
    """Return a byte-level BPE learned from batches of distinct texts; the same texts, the same BPE.

    Id 0 is `PAD`. The vocabulary is smaller than asked where the texts hold too few pairs.
    `vocab_size` is at least `LEAST_VOCAB`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The pad keeps its id but is not looked for in text: a title that says "<pad>" is a title.
    plain = json.loads(tokenizer.to_str()) | {"added_tokens": []}
    return Tokenizer.from_str(json.dumps(plain))


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a `tokenizer.json`, without its padding and truncation.

    A text is kept at its own length. Raises FileNotFoundError where there is no file and
    ValueError where it is no tokenizer.
    """
    if not path.is_file():
        raise FileNotFoundError(f"tokenizer.path: no file {path}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises nothing narrower
        raise ValueError(f"{path} is no tokenizer.json: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def reads_every_text(tokenizer: Tokenizer) -> bool:
    """Return whether each text but the empty one certainly has a token.

    So it is where every byte is one, behind nothing but Unicode's normal forms and lower case.
    """
    shape: dict[str, Any] = json.loads(tokenizer.to_str())
    first: dict[str, Any] = shape["normalizer"] or {"type": "Sequence", "normalizers": []}
    steps: list[dict[str, Any]] = first["normalizers"] if first["type"] == "Sequence" else [first]
    keeps = {step["type"] for step in steps} <= {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}
    by_bytes = (shape["pre_tokenizer"] or {}).get("type") == "ByteLevel"
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    every_byte = all(byte in vocab for byte in pre_tokenizers.ByteLevel.alphabet())
    return keeps and by_bytes and every_byte and shape["model"]["type"] == "BPE"


def encode(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first `limit` tokens of every text end to end (int32), and their counts (int64).

    The one way from text to tokens, for corpora and for what is asked of a model later. Tokens that
    a foreign tokenizer sets around a text are left out.
    """
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [one.ids[:limit] for one in encoded]
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32)
    return flat, np.array([len(each) for each in ids], dtype=np.int64)


def content_of(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return an int64 for each of the runs of `lengths` (n,) in `tokens`: equal for equal tokens.

    It is 60 bits of SHA-256 of the tokens as little-endian int32. What a model reads alike, a title
    in capitals or one that differs behind the cut, is no negative of itself.
    """
    flat = tokens.astype("<i4", copy=False)
    ends = np.cumsum(lengths)
    pairs = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    hashes = (hashlib.sha256(flat[start:end].tobytes()).hexdigest()[:15] for start, end in pairs)
    return np.fromiter((int(each, 16) for each in hashes), np.int64, len(lengths))
