"""The objective of the next-item model: after every event, which item comes next?"""

from dataclasses import replace

import torch
from torch import nn

from clue.data.corpus import Corpus
from clue.data.negatives import Proposal
from clue.data.sequences import SequenceBatch, Sequences, WindowSampler
from clue.evaluation.next_item import evaluate
from clue.nn.decoder import NextItemDecoder
from clue.run.objectives.base import Autocast
from clue.run.pretrain_config import PretrainConfig
from clue.train.flops import StepFlops, Work, sequence_flops, sequence_work
from clue.train.losses.item_softmax import Sample, next_item_loss
from clue.train.memory import find_sequence_budget
from clue.train.packing import Budget, pack_sequences
from clue.train.step import Forward

HELD_OUT = 16_384  # questions asked in training, the first of a fixed shuffle; a benchmark asks all


class NextItemObjective:
    """The decoder on the sequences of a corpus; held out are their validation items."""

    task = "next_item"

    def __init__(self, config: PretrainConfig, corpus: Corpus) -> None:
        """Raise ValueError where the corpus leaves nothing to learn from or to ask."""
        self.config = config
        sequences = Sequences(corpus, config.sequences, config.users)
        self.catalogue = len(sequences.catalogue)
        self.sampler = WindowSampler(
            sequences.training(),
            max_events=config.decoder.max_events,
            batch=config.batch,
            seed=config.seed,
        )
        self.proposal = None
        if config.softmax.negatives:
            self.proposal = Proposal(sequences.counts(), config.softmax)
        self.questions = sequences.questions("valid").some(HELD_OUT)

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share a batch equally."""
        self.sampler.check(world)

    def model(self) -> NextItemDecoder:
        """Return the model with fresh weights."""
        return NextItemDecoder(self.config.decoder, self.catalogue)

    def begin(self, core: NextItemDecoder) -> None:
        """Leave fresh weights as they are."""

    def draw(self, step: int, rank: int = 0, world: int = 1) -> SequenceBatch:
        """Return this process's part of batch `step`; the drawn negatives are everybody's."""
        batch = self.sampler.at(step, rank, world)
        if self.proposal is None:
            return batch
        drawn, log_expected = self.proposal.draw(self.config.seed, step)
        return replace(batch, drawn=drawn, log_expected=log_expected)

    def budget(
        self,
        core: NextItemDecoder,
        batch: SequenceBatch,
        *,
        free: int,
        fixed: bool,
        autocast: Autocast,
    ) -> Budget:
        """Return what steps on such batches may hold; compiles the decoder of fixed shapes."""
        tokens = None if self.config.chunk_tokens == "auto" else self.config.chunk_tokens
        budget = find_sequence_budget(
            core, batch, chunk_tokens=tokens, free=free, fixed=fixed, autocast=autocast
        )
        if fixed and self.config.compile:
            core.decoder.compile(dynamic=False)
        return budget

    def forward(
        self, model: nn.Module, batch: SequenceBatch, budget: Budget, device: torch.device
    ) -> Forward:
        """Return the mean cross-entropy of all processes' places."""
        views = pack_sequences(batch, budget, device)
        states, table, own = model(views)
        sample = None
        if views.candidates is not None:
            assert own is not None and batch.log_expected is not None
            log_expected = torch.from_numpy(batch.log_expected).to(device)
            sample = Sample(views.candidates, log_expected, own)
        loss = next_item_loss(states, views.targets, table, total=batch.total, sample=sample)
        return Forward(loss, {}, sequence_work(batch, views, self.catalogue))

    def flops(self, work: Work) -> StepFlops:
        """Return the FLOPs of a step."""
        return sequence_flops(self.config.decoder, work)

    def held_out(self, weights: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
        """Return the figures of the held-out questions, over the whole catalogue."""
        model = self.model()
        model.load_state_dict(weights)
        if torch.accelerator.is_available():
            model.to(torch.accelerator.current_accelerator())
        return {"next item": evaluate(model, self.questions)}
