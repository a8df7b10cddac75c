"""Predictions, plans and their verification."""
