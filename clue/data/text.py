"""Text of the items: templates that make it out of columns, and the tokenizer learned from it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Formatter

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD = "<pad>"


def template_fields(template: str) -> list[tuple[str, str | None]]:
    """Gives a template in pairs: "by {name}." -> [("by ", "name"), (".", None)].

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
    """Gives a byte-level BPE learned from batches of distinct texts; the same texts, the same BPE.

    Id 0 is `PAD`. The vocabulary is smaller than asked where the texts hold too few pairs.
    Raises ValueError for a `vocab_size` without room for the 256 bytes and the pad.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise ValueError(f"tokenizer.vocab_size={vocab_size} must exceed 256 bytes + 1 pad")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Gives the tokenizer in a `tokenizer.json`; raises ValueError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"tokenizer.path: no file {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises nothing narrower
        raise ValueError(f"{path} is no tokenizer.json: {error}") from None


def encode(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[np.ndarray]:
    """Gives the first `limit` token ids (int32) of every text, without special tokens."""
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(one.ids[:limit], dtype=np.int32) for one in encoded]
