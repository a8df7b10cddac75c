"""Trained models as functions: behaviours in, vectors out."""
