"""The objective of the universal encoder: contrastive and predictive steps take turns."""

import numpy as np
import torch
from torch import nn

from clue.data.batches import Batch
from clue.data.corpus import Corpus
from clue.data.groups import Turns
from clue.data.windows import ServiceWindows, WindowBatch, marks_of
from clue.evaluation.next_item import evaluate_predictive
from clue.nn.universal import UniversalEncoder
from clue.run.objectives.base import Autocast
from clue.run.objectives.contrastive import Contrastive
from clue.run.pretrain_config import PretrainConfig
from clue.train.alignment import align
from clue.train.factors import item_factors, rotated, token_factors
from clue.train.flops import StepFlops, Work, predictive_flops, step_flops, window_work
from clue.train.losses.item_softmax import Sample, next_item_loss
from clue.train.memory import find_window_budget
from clue.train.packing import Budget, pack_windows
from clue.train.step import Forward

HELD_OUT = 2_048  # questions of a service asked in training, the first of a fixed shuffle


class Universal:
    """Both parts on one corpus; held out are matching and the next items of valid users."""

    task = "held_out"

    def __init__(self, config: PretrainConfig, corpus: Corpus) -> None:
        """Raise ValueError where the corpus has too little for either part."""
        self.config, self.corpus = config, corpus
        self.contrastive = Contrastive(config, corpus)
        self.marks = marks_of(corpus) if config.predictive.context else None
        self.windows = ServiceWindows(
            corpus,
            config.windows,
            seed=config.seed,
            users=config.users,
            join=config.predictive.join,
            marks=self.marks,
        )
        share = config.factors.contrastive
        self.turns = Turns(np.array([share, 1 - share]), config.seed)
        self.questions = {
            f"next {name}": self.windows.held_out(number, HELD_OUT)
            for number, name in enumerate(corpus.services)
        }
        self.window_budget: Budget | None = None

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share a batch equally."""
        self.contrastive.check(world)
        self.windows.check(world)

    def model(self) -> UniversalEncoder:
        """Return the model with fresh weights, the factors as random as the rest."""
        config, manifest = self.config, self.corpus.manifest
        return UniversalEncoder(
            config.model,
            config.predictive,
            config.factors,
            manifest.num_items,
            manifest.vocab_size,
            len(manifest.services),
            self.marks.size if self.marks else 1,
        )

    def begin(self, core: UniversalEncoder) -> None:
        """Put the factors of the training users into a fresh model."""
        users = self.corpus.users_in("train")
        factors, seed = self.config.factors, self.config.seed
        core.item_factors.data.copy_(item_factors(self.corpus, users, factors.items, seed))
        alignment = align(
            self.corpus, users, factors.aligned, seed, basis=factors.basis, groups=factors.groups
        )
        for name, weights in core.aligned.items():
            weights.data.copy_(getattr(alignment, name))
        tables = [core.contrastive.items.token.weight, core.predictive.text.token.weight]
        width = max(factors.tokens, *(table.shape[1] for table in tables))
        tokens = token_factors(self.corpus, users, width, seed)
        core.token_factors.data.copy_(rotated(tokens, factors.tokens, seed))
        for table in tables if factors.start else []:
            start = rotated(tokens, table.shape[1], seed)
            known = start.square().sum(1) > 0
            # the size that fresh tokens have
            table.data[known] = start[known] * (table.data.std() / start[known].std())

    def draw(self, step: int, rank: int = 0, world: int = 1) -> Batch | WindowBatch:
        """Return this process's part of batch `step`, of the part whose turn it is."""
        part, turn = self.turns.at(step)
        return (self.contrastive.sampler, self.windows)[part].at(turn, rank, world)

    def budget(
        self,
        core: UniversalEncoder,
        batch: Batch | WindowBatch,
        *,
        free: int,
        fixed: bool,
        autocast: Autocast,
    ) -> Budget:
        """Return what contrastive steps may hold, and keep what predictive ones may.

        A step is of one part, so that each may take all that is free.
        """
        del batch  # step 0's, of either part: both are drawn here
        views, windows = self.contrastive.draw(0), self.windows.at(0)
        self.window_budget = find_window_budget(
            core.predictive,
            windows,
            chunk_tokens=self.config.chunk_tokens,
            free=free,
            fixed=fixed,
            autocast=autocast,
        )
        return self.contrastive.budget(
            core.contrastive, views, free=free, fixed=fixed, autocast=autocast
        )

    def forward(
        self, model: nn.Module, batch: Batch | WindowBatch, budget: Budget, device: torch.device
    ) -> Forward:
        """Return the loss of the batch's own part."""
        if isinstance(batch, Batch):
            return self.contrastive.forward(model, batch, budget, device)
        assert self.window_budget is not None  # `budget` comes before the first step
        packed = pack_windows(batch, self.window_budget, device)
        states, candidates, own = model(packed)
        log_expected = torch.from_numpy(batch.log_expected).to(device)
        sample = Sample(packed.candidates, log_expected, own)
        loss = next_item_loss(states, packed.targets, candidates, total=batch.total, sample=sample)
        return Forward(loss, {}, window_work(batch, packed))

    def flops(self, work: Work) -> StepFlops:
        """Return the FLOPs of a step: pairs are compared in a contrastive one alone."""
        if work.pairs:
            return step_flops(self.config.model, work)
        return predictive_flops(self.config.predictive, work)

    def held_out(self, weights: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
        """Return the figures of matching for pairs of services, and of each one's next items."""
        prefix = "contrastive."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        figures = self.contrastive.held_out(own)
        model = self.model()
        model.load_state_dict(weights)
        if torch.accelerator.is_available():
            model.to(torch.accelerator.current_accelerator())
        for number, (name, questions) in enumerate(self.questions.items()):
            if len(questions.targets):
                figures[name] = evaluate_predictive(
                    model.predictive, self.corpus, number, questions
                )
        return figures
