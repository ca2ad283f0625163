"""The program with another list of published models: python other_catalogue.py FILE ARGUMENTS..."""

import sys
from pathlib import Path

from virnucpro.__main__ import main
from virnucpro.bundle import catalogue

catalogue.CATALOGUE = Path(sys.argv.pop(1))
main()
