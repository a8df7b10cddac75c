"""The losses, their tiles and their gradients."""
