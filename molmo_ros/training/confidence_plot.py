"""A picture of a confidence: how often answers came true, by how sure the model was. Plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from molmo_ros.training.confidence_figures import Bin

_SIDE, _MARGIN = 320, 44


def reliability_svg(bins: Sequence[Bin], title: str) -> str:
    """Bars of what came true in each tenth, a dot for what was said, the diagonal where both are equal."""
    most = max((b.count for b in bins), default=0) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIDE + 2 * _MARGIN}" height="{_SIDE + 2 * _MARGIN}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN / 2}" font-size="13">{escape(title)}</text>',
    ]
    width = _SIDE / len(bins)
    for index, b in enumerate(bins):
        left, height = _MARGIN + index * width, b.right * _SIDE
        if b.count:
            shade = 0.25 + 0.75 * b.count / most
            parts += [
                f'<rect x="{left + 1:.1f}" y="{_y(b.right):.1f}" width="{width - 2:.1f}" height="{height:.1f}" '
                f'fill="#3b7ea1" fill-opacity="{shade:.2f}"/>',
                f'<circle cx="{_MARGIN + b.confidence * _SIDE:.1f}" cy="{_y(b.confidence):.1f}" r="3" fill="#c4572e"/>',
                f'<text x="{left + width / 2:.1f}" y="{_y(0) - 4:.1f}" text-anchor="middle">{b.count}</text>',
            ]
        parts.append(
            f'<text x="{left:.1f}" y="{_y(0) + 14:.1f}" text-anchor="middle">{index / len(bins):g}</text>'
        )
    parts += [
        f'<text x="{_MARGIN + _SIDE}" y="{_y(0) + 14:.1f}" text-anchor="middle">1</text>',
        f'<line x1="{_MARGIN}" y1="{_y(0)}" x2="{_MARGIN + _SIDE}" y2="{_y(1)}" stroke="#888" stroke-dasharray="4 3"/>',
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#444"/>',
        f'<text x="{_MARGIN + _SIDE / 2}" y="{_y(0) + 32}" text-anchor="middle">'
        "confidence (bars: came true, with counts; dots: said)</text>",
        f'<text x="{_MARGIN - 8}" y="{_y(1) + 4}" text-anchor="end">1</text>',
        f'<text x="{_MARGIN - 8}" y="{_y(0.5) + 4}" text-anchor="end">0.5</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _y(share: float) -> float:
    return _MARGIN + (1 - share) * _SIDE
