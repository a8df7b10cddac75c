"""What each fork of a test run begins with: the trainer imported, the processor's peak measured."""

from importlib import import_module

import pandas  # Arrow asks for it, .5 s of a core
import torch

from clue import embed, pretrain
from clue.train.flops import peak_flops

__all__ = ["embed", "pandas", "pretrain"]

import_module("torch._dynamo")  # optimisers and FSDP ask for it, 1.5 s
torch.set_num_threads(1)  # a pool of threads would not outlive a fork
peak_flops(torch.device("cpu"), "fp32")
