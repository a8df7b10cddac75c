"""The objective of the contrastive encoder: views of one user agree, and not those of others."""

from functools import partial

import torch
from torch import nn

from clue.data.batches import Batch, PairSampler
from clue.data.corpus import Corpus
from clue.data.groups import GroupSampler
from clue.evaluation.encode import history_vectors
from clue.evaluation.matching import evaluate_matching, matching_pairs
from clue.nn.dual_encoder import DualEncoder
from clue.run.objectives.base import Autocast
from clue.run.pretrain_config import PretrainConfig
from clue.train.flops import StepFlops, Work, step_flops
from clue.train.memory import find_budget
from clue.train.packing import Budget
from clue.train.step import Forward, contrastive_forward


class Contrastive:
    """CLUE on the training users of a corpus; held out is matching on its validation users."""

    task = "matching"

    def __init__(self, config: PretrainConfig, corpus: Corpus) -> None:
        """Raise ValueError where the corpus has longer texts than the item encoder reads, or too
        few users for a share of the batch.
        """
        longest, limit = corpus.manifest.max_item_tokens, config.model.item.max_tokens
        if longest > limit:
            raise ValueError(
                f"{config.corpus} holds texts of up to {longest} tokens, model.item.max_tokens is "
                f"{limit}; set model.item.max_tokens={longest}"
            )
        self.config, self.corpus = config, corpus
        kind = GroupSampler if config.views.groups else PairSampler
        self.sampler = kind(
            corpus, config.views, batch=config.batch, seed=config.seed, users=config.users
        )
        self.pairs = matching_pairs(
            corpus,
            corpus.users_in("valid"),
            max_events=config.views.max_events,
            most=config.gallery,
        )

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share a batch equally."""
        self.sampler.check(world)

    def model(self) -> DualEncoder:
        """Return the model with fresh weights."""
        return DualEncoder(self.config.model, self.corpus.manifest.vocab_size)

    def begin(self, core: DualEncoder) -> None:
        """Leave fresh weights as they are."""

    def draw(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return this process's part of batch `step`."""
        return self.sampler.at(step, rank, world)

    def budget(
        self, core: DualEncoder, batch: Batch, *, free: int, fixed: bool, autocast: Autocast
    ) -> Budget:
        """Return what steps on such batches may hold; compiles the encoders of fixed shapes."""
        tokens = None if self.config.chunk_tokens == "auto" else self.config.chunk_tokens
        budget = find_budget(
            core, batch, chunk_tokens=tokens, free=free, fixed=fixed, autocast=autocast
        )
        if fixed and self.config.compile:
            core.items.compile(dynamic=False)
            core.users.compile(dynamic=False)
        return budget

    def forward(
        self, model: nn.Module, batch: Batch, budget: Budget, device: torch.device
    ) -> Forward:
        """Return the contrastive loss of a batch."""
        return contrastive_forward(model, batch, budget, self.config.loss, device)

    def flops(self, work: Work) -> StepFlops:
        """Return the FLOPs of a step."""
        return step_flops(self.config.model, work)

    def held_out(self, weights: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
        """Return the figures of matching for each pair of services."""
        model = self.model()
        model.load_state_dict(weights)
        if torch.accelerator.is_available():
            model.to(torch.accelerator.current_accelerator())
        encode = partial(history_vectors, model, self.corpus.item_tokens)
        return evaluate_matching(self.pairs, encode, model.scale().item())
