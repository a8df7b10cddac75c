"""Texts as a model reads them: the first tokens of each."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from clue.data.ragged import Ragged
from clue.data.text import encode, reads_every_text
from clue.inference.pooling import Event


class TextReader:
    """A tokenizer, of which a model reads at most `max_tokens` a text."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        """`tokenizer` is that of the model's corpus."""
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._reads_every_text = reads_every_text(tokenizer)

    def tokens(self, texts: Sequence[str]) -> Ragged:
        """Return the token ids of each text; raises ValueError for one without any."""
        # the very step that wrote the corpus, or a text would read otherwise here than there
        tokens, lengths = encode(self._tokenizer, texts, self._max_tokens)
        if not lengths.all():
            text = texts[int(lengths.argmin())]
            raise ValueError(f"{text!r} is an empty text; an event needs words to be read")
        return Ragged(tokens, np.concatenate([[0], np.cumsum(lengths)]))

    def keys(self, events: Sequence[Event]) -> list[str]:
        """Return the token ids of each event (service, text), joined."""
        texts = [text for _, text in events]
        tokens, lengths = encode(self._tokenizer, texts, self._max_tokens)
        rows = np.split(tokens, np.cumsum(lengths)[:-1])
        return [" ".join(map(str, row.tolist())) for row in rows]

    def unread(self, events: Sequence[Event]) -> list[int]:
        """Return the numbers of the events (service, text) without any token."""
        if self._reads_every_text:  # to tokenize cost 18 µs an event, the rest of an encode 15
            return [number for number, (_, text) in enumerate(events) if not text]
        return [number for number, key in enumerate(self.keys(events)) if not key]
