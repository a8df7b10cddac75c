"""Tensors in, tensors out: attention, blocks, the two encoders and CLUE itself."""
