"""What each fork of a test run begins with: the trainer imported, the processor's peak measured."""

import pandas  # Arrow asks for it, .5 s of a core
import torch
import torch._dynamo  # optimisers and FSDP ask for it, 1.5 s

from clue import embed, pretrain
from clue.train.flops import peak_flops

__all__ = ["embed", "pandas", "pretrain"]

torch.set_num_threads(1)  # a pool of threads would not outlive a fork
peak_flops(torch.device("cpu"), "fp32")
