"""Fitting a head, a small encoder, the k-mer model. Knows no run."""
