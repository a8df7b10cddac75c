"""Which texts a tokenizer reads nothing of, by its make and by trying."""

import json
import sys

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from clue.data.text import learn_tokenizer, reads_every_text
from clue.inference.text_reader import TextReader


def test_a_tokenizer_of_bytes_reads_every_text() -> None:
    tokenizer = learn_tokenizer(iter([["tea and jam", "pan"]]), 300)
    assert reads_every_text(tokenizer)
    every = [chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000]
    assert len(every) > 1_100_000
    some = [*every[:0x3000], *every[0x3000::97], "\u00ad\u200b", " ", "\n\t "]
    encoded = tokenizer.encode_batch_fast(some, add_special_tokens=False)
    assert all(one.ids for one in encoded)
    reader = TextReader(tokenizer, 8)
    assert reader.unread([("shop", "tea"), ("shop", ""), ("shop", "\u200b")]) == [1]


def test_one_that_drops_what_it_does_not_know_is_asked() -> None:
    bytewise = learn_tokenizer(iter([["tea and jam", "pan"]]), 300)
    strip = Tokenizer.from_str(bytewise.to_str())
    strip.normalizer = normalizers.Strip()
    strip.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Tokenizer(models.BPE(vocab={"t": 0, "e": 1, "te": 2}, merges=[("t", "e")]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    shape = json.loads(bytewise.to_str())
    del shape["model"]["vocab"]["q"]
    shape["model"]["vocab"]["<spare>"] = max(shape["model"]["vocab"].values()) + 1
    lacking = Tokenizer.from_str(json.dumps(shape))
    unread = {}
    for name, tokenizer in {"strip": strip, "words": words, "lacking": lacking}.items():
        assert not reads_every_text(tokenizer)
        events = [("shop", text) for text in ("te", "   ", "q", "")]
        unread[name] = TextReader(tokenizer, 8).unread(events)
    assert unread == {"strip": [1, 3], "words": [1, 2, 3], "lacking": [3]}
