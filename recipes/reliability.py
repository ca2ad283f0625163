"""Draws docs/reliability.svg: of records of val by p_virus, how many are viral, from the cards.

python recipes/reliability.py > docs/reliability.svg
"""

import sys

from virnucpro.bundle import load

BUNDLES = {"mini-500-v2": "#c1440e", "mini-300-v2": "#7a9cc0"}
SIDE, MARGIN = 320, 48


def drawn() -> str:
    """Return the drawing as SVG."""
    end = MARGIN + SIDE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {end + 120} {end + MARGIN}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{end + 120}" height="{end + MARGIN}" fill="#fff"/>',
        f'<path d="M{MARGIN} {end}L{end} {MARGIN}" stroke="#999" stroke-dasharray="4"/>',
        f'<path d="M{MARGIN} {MARGIN}V{end}H{end}" fill="none" stroke="#333"/>',
        f'<text x="{MARGIN + SIDE / 2}" y="{end + 36}" text-anchor="middle">p_virus</text>',
        f'<text x="{MARGIN}" y="{MARGIN - 12}">share that is viral</text>',
    ]
    for tick in (0, 0.5, 1):
        at = MARGIN + SIDE * tick
        parts.append(f'<text x="{at:g}" y="{end + 16}" text-anchor="middle">{tick:g}</text>')
        y = end - SIDE * tick + 4
        parts.append(f'<text x="{MARGIN - 8}" y="{y:g}" text-anchor="end">{tick:g}</text>')
    for row, (name, colour) in enumerate(BUNDLES.items()):
        points = [
            (MARGIN + SIDE * r["p_virus"], end - SIDE * r["viral"])
            for r in load(name).parts["calibration"]["reliability"]
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        y = MARGIN + 24 * row
        parts.append(f'<text x="{end + 12}" y="{y}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(drawn())
