"""What turns vectors into a better model: losses, optimiser, evaluation."""
