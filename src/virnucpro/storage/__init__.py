"""The way of bytes to a disk: atomic files, locks, digests, sorting. Knows no content."""
