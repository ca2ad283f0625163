"""Triton kernels and their references in PyTorch."""
