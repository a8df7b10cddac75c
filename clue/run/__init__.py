"""A run directory: its config, its checkpoints, how it begins and goes on."""
