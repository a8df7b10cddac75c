"""Inside the rival's environment: write a text model with random weights for it to serve.

    python -m benchmarks.speed.service.rival_model SPEC

A transformer of our model's width, heads and layers over the same tokenizer, mean-pooled. Its
weights are random: what it costs to serve does not depend on them.
"""

import json
import sys
from pathlib import Path
from typing import Any

PAD = "[PAD]"


def write(spec: dict[str, Any]) -> None:
    """Write the model that `spec` describes into the folder `out`."""
    # of the rival's environment alone
    import torch
    from sentence_transformers import SentenceTransformer, models  # pyright: ignore
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast  # pyright: ignore

    out = Path(spec["out"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=spec["tokenizer"], pad_token=PAD, model_max_length=spec["max_tokens"]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec["width"],
        num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"],
        intermediate_size=4 * spec["width"],
        max_position_embeddings=spec["max_tokens"],
    )
    BertModel(config).save_pretrained(out / "bert")
    tokenizer.save_pretrained(out / "bert")
    transformer = models.Transformer(str(out / "bert"), max_seq_length=spec["max_tokens"])
    pooling = models.Pooling(transformer.get_word_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling]).save(str(out / "model"))


if __name__ == "__main__":
    write(json.loads(sys.argv[1]))
