"""What a run scored on every test query, kept beside it: figures that pair up across runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from clue.data.corpus import Corpus
from clue.data.sequences import Sequences
from clue.evaluation.encode import history_vectors
from clue.evaluation.matching import (
    MatchingPairs,
    contrastive_entropy,
    fit_scale,
    matching_pairs,
    pair_ranks,
)
from clue.evaluation.next_item import losses_and_ranks
from clue.nn.decoder import NextItemDecoder
from clue.nn.dual_encoder import DualEncoder
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint

KEPT = "test_queries.npz"


@dataclass(frozen=True)
class QueryScores:
    """Q test queries: `users` (Q,) index the corpus, `part` (Q,) is a pair of services or a task.

    `scores` are (Q,) by measure: "entropy" in nats, lower is better; "R@10" and, of next items,
    "NDCG@10". `negatives` K is the mean number of other candidates.
    """

    users: np.ndarray
    part: np.ndarray
    scores: Mapping[str, np.ndarray]
    negatives: int


def query_scores(run: Path) -> QueryScores:
    """Return the scores of a run's best checkpoint on the test users (or items) of its corpus.

    They are kept in RUN/test_queries.npz and computed again for another checkpoint. Raises
    FileNotFoundError without a checkpoint or corpus, ValueError where the corpus is another one or
    has nothing to ask.
    """
    source = checkpoint.find(run)
    file = run / KEPT
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["fingerprint"]) == source.fingerprint:
                names = [name for name in kept.files if name.startswith("score ")]
                scores = {name.removeprefix("score "): kept[name] for name in names}
                return QueryScores(kept["users"], kept["part"], scores, int(kept["negatives"]))
    corpus = Corpus.open(source.config.corpus)
    if corpus.fingerprint != source.corpus["fingerprint"]:
        raise ValueError(
            f"{run} was trained on another corpus than {corpus.path} holds now; prepare that again"
        )
    measure = next_item_scores if source.config.objective == "next_item" else matching_scores
    result = measure(source, corpus)
    scores = {f"score {name}": values for name, values in result.scores.items()}
    with file.open("wb") as stream:
        np.savez(
            stream,
            allow_pickle=False,
            fingerprint=np.array(source.fingerprint),
            users=result.users,
            part=result.part,
            negatives=np.array(result.negatives),
            **scores,
        )
    return result


def matching_scores(source: Checkpoint, corpus: Corpus) -> QueryScores:
    """Return each test user's matching, a gallery for each pair of services.

    The temperature of a gallery is fitted on the validation users alone.
    """
    config = source.config
    model = DualEncoder(config.model, corpus.manifest.vocab_size)
    model.load_state_dict(source.weights())
    encode = partial(history_vectors, model, corpus.item_tokens)

    def pairs_of(split: Literal["valid", "test"]) -> list[MatchingPairs]:
        users, events = corpus.users_in(split), config.views.max_events
        return matching_pairs(corpus, users, max_events=events, most=config.gallery)

    scales = {pair.name: fit_scale(encode(pair.a), encode(pair.b)) for pair in pairs_of("valid")}
    galleries = [pair for pair in pairs_of("test") if pair.name in scales]
    if not galleries:
        raise ValueError(f"{corpus.path}: no two services share two test users; give more users")
    entropy: list[np.ndarray] = []
    hits: list[np.ndarray] = []
    for pair in galleries:
        a, b = encode(pair.a), encode(pair.b)
        entropy.append(contrastive_entropy(a, b, scales[pair.name]))
        forward, backward = pair_ranks(a, b)
        hits.append((forward.hit(10) + backward.hit(10)) / 2)
    sizes = [len(pair.users) for pair in galleries]
    return QueryScores(
        np.concatenate([pair.users for pair in galleries]),
        np.repeat([pair.name for pair in galleries], sizes),
        {"entropy": np.concatenate(entropy), "R@10": np.concatenate(hits)},
        round(float(np.average(np.array(sizes) - 1, weights=sizes))),
    )


def next_item_scores(source: Checkpoint, corpus: Corpus) -> QueryScores:
    """Return the rank of each test item over the whole catalogue, and its cross-entropy."""
    sequences = Sequences(corpus, source.config.sequences)
    model = NextItemDecoder(source.config.decoder, len(sequences.catalogue))
    model.load_state_dict(source.weights())
    questions = sequences.questions("test")
    if not len(questions.targets):
        raise ValueError(f"{corpus.path}: no sequence has a test item; give longer histories")
    losses, ranks = losses_and_ranks(model, questions)
    return QueryScores(
        questions.users,
        np.full(len(losses), "next item"),
        {
            "entropy": losses.numpy(),
            "R@10": ranks.hit(10),
            "NDCG@10": ranks.ndcg(10),
        },
        len(sequences.catalogue) - 1,
    )
