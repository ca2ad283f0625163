"""Accuracy on labelled data, speed of encoders, and `doctor`. Knows no run."""
