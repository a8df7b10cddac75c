"""Scaling laws: sweeps of runs, fits with intervals over runs, predictions made before the runs."""
