"""Charts as SVG, by hand: a library for one picture would be the project's largest dependency."""

from __future__ import annotations

from itertools import cycle
from typing import NamedTuple

_NAMESPACE = "http://www.w3.org/2000/svg"
_COLOURS = ("#c0392b", "#2468b4", "#7f7f7f", "#2e8b57")
_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 140, 40, 50
_TICKS = 5
_BAR, _BAR_GAP, _BAR_LEFT = 22, 10, 260

Points = list[tuple[float, float]]


class Axis(NamedTuple):
    """What an axis shows, and up to where."""

    words: str
    end: float


def chart(title: str, x: Axis, y: Axis, lines: dict[str, Points]) -> str:
    """The lines by name, each from the origin on, with axes and their ticks."""

    def place(across: float, up: float) -> tuple[float, float]:
        return (
            _LEFT + across / x.end * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up / y.end * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>')
    parts.append(f'<text x="{_LEFT}" y="20" font-size="14">{title}</text>')
    for step in range(_TICKS + 1):
        share = step / _TICKS
        left, level = place(0, y.end * share)
        right, floor = place(x.end * share, 0)
        parts.append(f'<path d="M{left:.1f} {level:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{level + 4:.1f}" text-anchor="end">{y.end * share:g}</text>')
        parts.append(f'<text x="{right:.1f}" y="{floor + 18:.1f}" text-anchor="middle">{x.end * share:,.0f}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 10}">{x.words}</text>')
    parts.append(f'<text x="10" y="{_TOP - 6}">{y.words}</text>')
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        placed = [place(*point) for point in [(0.0, 0.0), *points]]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>' for across, down in placed[1:]]
        across, down = placed[-1]
        parts.append(f'<text x="{across + 8:.1f}" y="{down + 4:.1f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def bars(title: str, unit: str, groups: dict[str, dict[str, float]]) -> str:
    """Horizontal bars with their values; in each group the same names, each of which has a colour of four."""
    highest = max(value for group in groups.values() for value in group.values())
    height = _TOP + sum(len(group) * _BAR + _BAR_GAP for group in groups.values()) + _BAR_GAP
    parts = [f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{_WIDTH}" height="{height}" fill="white"/>')
    parts.append(f'<text x="10" y="20" font-size="14">{title}</text>')
    top = _TOP
    for name, group in groups.items():
        for (what, value), colour in zip(group.items(), cycle(_COLOURS), strict=False):
            length = value / highest * (_WIDTH - _BAR_LEFT - _RIGHT)
            middle = top + _BAR * 0.65
            words = f"{name}, {what}" if name else what
            parts.append(f'<text x="{_BAR_LEFT - 8}" y="{middle:.1f}" text-anchor="end">{words}</text>')
            parts.append(
                f'<rect x="{_BAR_LEFT}" y="{top + 2}" width="{length:.1f}" height="{_BAR - 4}" fill="{colour}"/>'
            )
            parts.append(f'<text x="{_BAR_LEFT + length + 6:.1f}" y="{middle:.1f}">{value:.3g} {unit}</text>')
            top += _BAR
        top += _BAR_GAP
    return "\n".join([*parts, "</svg>"]) + "\n"
