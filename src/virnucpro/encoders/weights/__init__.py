"""Published checkpoints on disk: their layouts, and tensors by the names of our modules."""
