from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.logs import EVENTS, corpus_of, histories, many_events, slow_histories, write_log


def test_equal_texts_have_equal_content(tmp_path: Path) -> None:
    rows = [{**EVENTS[0], "item_id": n, "text": f"text {n % 7}"} for n in range(50)]
    corpus = corpus_of(tmp_path / "c", f"events=[{write_log(tmp_path / 'log.csv', rows)}]")
    texts = corpus.item_texts.to_pylist()
    pairs = {(text, content) for text, content in zip(texts, corpus.item_content, strict=True)}
    assert len(pairs) == 7 == len({content for _, content in pairs})


def test_tokens_are_cut(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", EVENTS)
    whole = corpus_of(tmp_path / "whole", f"events=[{log}]")
    cut = corpus_of(tmp_path / "cut", f"events=[{log}]", "max_item_tokens=2")
    assert whole.item_tokens.lengths.max() > 2
    for item in range(whole.num_items):
        assert cut.item_tokens[item].tolist() == whole.item_tokens[item][:2].tolist()


def test_a_log_larger_than_the_memory_limit(tmp_path: Path) -> None:
    rows = many_events(40_000, seed=5)
    log = pa.Table.from_pylist([dict(row) for row in rows])
    texts = pa.array([f"{row['service']} {row['item_id']} " + "long " * 200 for row in rows])
    assert texts.nbytes > 2 * 20_000_000
    pq.write_table(log.append_column("text", texts), tmp_path / "log.parquet")
    small = ["memory_limit=20MB", "max_item_tokens=2"]
    corpus = corpus_of(tmp_path / "c", f"events=[{tmp_path}/log.parquet]", *small)
    assert histories(corpus) == slow_histories(rows)
