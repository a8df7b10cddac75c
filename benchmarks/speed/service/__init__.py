"""The parts of `serve` and `soak`: a server on one core, a load generator on another."""
