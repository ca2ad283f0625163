"""How bytes reach a disk: atomic files, locks, digests, sorting. Knows no content."""
