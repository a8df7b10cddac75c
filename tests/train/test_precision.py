"""bf16 is taken where it is faster."""

from clue.train.precision import BF16_WIDTH, bf16_pays, uses_bf16


def test_bf16_is_taken_where_it_is_faster() -> None:
    assert bf16_pays(["amx_bf16"], 16)
    assert bf16_pays(["avx512f", "avx512_bf16"], BF16_WIDTH)
    assert not bf16_pays(["avx512f", "avx512_bf16"], BF16_WIDTH - 1)
    assert not bf16_pays(["avx2"], 4096)


def test_what_is_asked_for_is_done() -> None:
    assert uses_bf16("bf16", 8)
    assert not uses_bf16("fp32", 4096)
