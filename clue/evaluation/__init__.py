"""Rankings and held-out figures, the same for training and benchmarks."""
