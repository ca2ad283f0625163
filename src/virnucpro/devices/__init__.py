"""Processors, GPUs, precision, memory and the out-of-memory answer. Knows no network."""
