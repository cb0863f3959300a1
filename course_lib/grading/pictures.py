"""The pictures of the summary: horizontal bars as SVG, the same bytes on every machine."""

from __future__ import annotations

import html
from collections.abc import Sequence

LABELS, BARS, ROW = 300, 380, 26


def draw_bars(finding: str, bars: Sequence[tuple[str, int]], whole: int) -> str:
    """Return a figure of labelled bars, with what it shows as its caption and in its description.

    Arguments:
        finding: one sentence, what the picture shows.
        bars: label and count of each, from top to bottom.
        whole: the count that fills the width, at least 1.
    """
    height = ROW * len(bars) + 8
    width = LABELS + BARS + 60
    said = "; ".join(f"{label}: {count}" for label, count in bars)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(finding)} {html.escape(said)}.">\n'
    ]
    for place, (label, count) in enumerate(bars):
        middle = ROW * place + 18
        length = BARS * count / max(whole, 1)
        parts.append(
            f'<text x="{LABELS - 8}" y="{middle}" text-anchor="end">{html.escape(_short(label))}'
            f'</text><rect x="{LABELS}" y="{ROW * place + 5}" width="{length:.1f}" height="18"/>'
            f'<text x="{LABELS + length + 6:.1f}" y="{middle}">{count}</text>\n'
        )
    parts.append(f'<line x1="{LABELS}" y1="0" x2="{LABELS}" y2="{height}"/>\n</svg>\n')
    return f"<figure>\n{''.join(parts)}<figcaption>{html.escape(finding)}</figcaption>\n</figure>\n"


def _short(label: str) -> str:
    return label if len(label) <= 42 else label[:41] + "…"
