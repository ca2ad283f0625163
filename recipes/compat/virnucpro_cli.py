#!/usr/bin/env python3
"""For /opt of an image, where pipelines of the published program's container look for it."""

from virnucpro.__main__ import compat

compat()
