"""Scaling laws: runs of many sizes, a law fitted on the small ones, a prediction of the large."""
