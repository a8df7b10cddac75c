"""What each fork of a test run begins with: the trainer imported, the processor's peak measured."""

import torch

from clue import embed, pretrain
from clue.train.flops import peak_flops

__all__ = ["embed", "pretrain"]

torch.set_num_threads(1)  # a pool of threads would not outlive a fork
peak_flops(torch.device("cpu"), "fp32")
