"""Untrained next-item checkpoints, as a run leaves them, for the tests of the benchmarks."""

from pathlib import Path

import torch

from clue.data.corpus import Corpus
from clue.data.sequences import Catalogue, SequencesConfig
from clue.nn.decoder import DecoderConfig, NextItemDecoder
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from clue.train.state_dict import StateDict
from tests.benchmarks.worlds import Event, corpus_of, parts


def two_services(directory: Path, *, items: int = 30) -> Corpus:
    """Users of 13 events in each of two services, whose items follow one another in a ring."""
    events: list[Event] = []
    split = parts(16)
    for number, user in enumerate(split):
        for service in ("news", "shop"):
            names = [f"{service}{(3 * number + place) % items:02}" for place in range(13)]
            events += [(user, service, name) for name in names]
    return corpus_of(directory, events, split)


def saved_run(
    runs: Path, name: str, corpus: Corpus, sequences: SequencesConfig, *, width: int = 8
) -> Path:
    """Write the run's only checkpoint, of weights drawn by its name's length and the width."""
    config = PretrainConfig(
        name=name,
        runs=runs,
        corpus=corpus.path,
        objective="next_item",
        decoder=DecoderConfig(layers=1, width=width, heads=2, max_events=8),
        sequences=sequences,
    )
    torch.manual_seed(width + len(name))
    model = NextItemDecoder(config.decoder, len(Catalogue(corpus, sequences.services)))
    with torch.no_grad():  # at their start all scores are nearly equal
        model.decoder.item.weight.mul_(30)
    weights = {key: value.detach() for key, value in model.state_dict().items()}
    checkpoint.save(config, corpus, StateDict(weights, {}), 5, {})
    return config.run
