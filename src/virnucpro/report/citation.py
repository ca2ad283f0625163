"""The citations of the program and the article of its method; CITATION.cff says the same.

This module knows nothing of runs.
"""

from virnucpro import __version__

PROGRAM = "The VirNucPro developers"
ARTICLE_AUTHORS = (
    ("Li", "Jing"),
    ("Mi", "Jia"),
    ("Lin", "Wei"),
    ("Tian", "Fengjuan"),
    ("Wan", "Jing"),
    ("Gao", "Jingyang"),
    ("Tong", "Yigang"),
)
ARTICLE_TITLE = (
    "VirNucPro: an identifier for the identification of viral short sequences using six-frame "
    "translation and large language models"
)
JOURNAL, VOLUME, ISSUE, YEAR = "Briefings in Bioinformatics", 26, 3, 2025
ARTICLE_NUMBER = "bbaf224"
DOI = f"10.1093/bib/{ARTICLE_NUMBER}"


def program_reference() -> str:
    """The program, in one sentence."""
    return f"{PROGRAM}. virnucpro, version {__version__}."


def article_reference() -> str:
    """The article of the method, in one sentence."""
    authors = ", ".join(f"{family} {given[0]}" for family, given in ARTICLE_AUTHORS)
    return (
        f"{authors}. {ARTICLE_TITLE}. {JOURNAL} {YEAR};{VOLUME}({ISSUE}):{ARTICLE_NUMBER}. "
        f"doi:{DOI}"
    )


def bibtex(version: str = __version__) -> str:
    """Both as BibTeX."""
    authors = " and ".join(f"{family}, {given}" for family, given in ARTICLE_AUTHORS)
    return (
        "@software{virnucpro,\n"
        f"  author  = {{{{{PROGRAM}}}}},\n"
        "  title   = {virnucpro},\n"
        f"  version = {{{version}}}\n"
        "}\n"
        "\n"
        f"@article{{li{YEAR}virnucpro,\n"
        f"  author  = {{{authors}}},\n"
        f"  title   = {{{{{ARTICLE_TITLE}}}}},\n"
        f"  journal = {{{JOURNAL}}},\n"
        f"  volume  = {{{VOLUME}}},\n"
        f"  number  = {{{ISSUE}}},\n"
        f"  pages   = {{{ARTICLE_NUMBER}}},\n"
        f"  year    = {{{YEAR}}},\n"
        f"  doi     = {{{DOI}}}\n"
        "}\n"
    )
