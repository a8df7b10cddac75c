from pathlib import Path

import pytest

from clue.data.text import (
    LEAST_VOCAB,
    PAD,
    encode,
    learn_tokenizer,
    read_tokenizer,
    template_fields,
)

TEXTS = [
    f"{adjective} {noun}" for adjective in ("blue", "cast iron") for noun in ("pan", "skillet")
]


def test_a_template_in_pairs() -> None:
    assert template_fields("by {name}.") == [("by ", "name"), (".", None)]
    assert template_fields("{a}{b c}") == [("", "a"), ("", "b c")]
    assert template_fields("{{{a}}}") == [("{", None), ("", "a"), ("}", None)]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("no field", "no column"),
        ("", "no column"),
        ("{}", "no column"),
        ("{a", "expected"),
        ("{a:>3}", "plain"),
        ("{a!r}", "plain"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        template_fields(template)


def test_the_same_texts_make_the_same_tokenizer_however_they_are_batched() -> None:
    whole = learn_tokenizer(iter([TEXTS]), 300)
    parts = learn_tokenizer(iter([TEXTS[:1], TEXTS[1:]]), 300)
    assert whole.to_str() == parts.to_str()
    assert learn_tokenizer(iter([TEXTS[:2]]), 300).to_str() != whole.to_str()


def test_tokens_are_bytes_merged_and_give_the_text_back() -> None:
    tokenizer = learn_tokenizer(iter([TEXTS]), 300)
    for text in ("cast iron skillet", "größe 한국 🍳 \x00", "<pad>", "<PAD> pan"):
        flat, counts = encode(tokenizer, [text], 1000)
        assert counts.tolist() == [len(flat)] and flat.min() > 0  # 0 is the pad, never text
        assert tokenizer.decode(flat.tolist()).strip() == text.lower()
    assert encode(tokenizer, ["cast iron skillet"], 1000)[1] < 6
    assert encode(learn_tokenizer(iter([TEXTS]), LEAST_VOCAB), ["pan"], 1000)[1] == len(" pan")
    assert tokenizer.token_to_id(PAD) == 0


def test_every_text_keeps_its_own_first_tokens() -> None:
    tokenizer = learn_tokenizer(iter([TEXTS]), 300)
    flat, counts = encode(tokenizer, ["blue pan", "x" * 9, "pan"], 3)
    alone = [encode(tokenizer, [text], 3)[0].tolist() for text in ("blue pan", "x" * 9, "pan")]
    assert flat.tolist() == sum(alone, []) and counts.tolist() == [len(each) for each in alone]
    assert counts[1] == 3


def test_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tokenizer.path"):
        read_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="bad.json"):
        read_tokenizer(tmp_path / "bad.json")
