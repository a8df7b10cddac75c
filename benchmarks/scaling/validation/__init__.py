"""The fitter against published studies."""
