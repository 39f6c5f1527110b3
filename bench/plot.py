"""Charts as SVG, by hand: a library for two kinds of charts would be the project's largest dependency."""

from __future__ import annotations

import math
from itertools import cycle
from typing import NamedTuple

_NAMESPACE = "http://www.w3.org/2000/svg"
# Distinguishable also with colour blindness (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_TEXT, _SOFT, _GRID = "#24292f", "#57606a", "#e5e8eb"
_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 150, 64, 50
# About so many steps of an axis, each a round number.
_STEPS = 5
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_LINE_HEIGHT = 15
_BAR, _BAR_GAP, _BAR_LEFT, _BAR_TOP = 22, 10, 260, 40

Points = list[tuple[float, float]]


class Axis(NamedTuple):
    """What an axis shows, and the largest value on it."""

    words: str
    end: float


class _Scale(NamedTuple):
    """An axis from 0 to a round end, in pixels from ``first`` to ``last``."""

    end: float
    step: float
    first: float
    last: float

    def place(self, value: float) -> float:
        """The pixel of a value."""
        return self.first + value / self.end * (self.last - self.first)

    def ticks(self) -> list[float]:
        """The values that have a label."""
        return [self.step * number for number in range(round(self.end / self.step) + 1)]


def chart(title: str, x: Axis, y: Axis, lines: dict[str, Points]) -> str:
    """Lines by name, with axes that begin at 0."""
    across = _scale(x.end, _LEFT, _WIDTH - _RIGHT)
    up = _scale(y.end, _HEIGHT - _BOTTOM, _TOP)
    parts = _start(_HEIGHT, title)
    for value in up.ticks():
        level = up.place(value)
        parts.append(f'<path d="M{_LEFT} {level:.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>')
        parts.append(_words(_LEFT - 8, level + 4, f"{value:,g}", _SOFT, "end"))
    for value in across.ticks():
        parts.append(_words(across.place(value), _HEIGHT - _BOTTOM + 18, f"{value:,.0f}", _SOFT, "middle"))
    parts.append(_words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x.words, _SOFT, "middle"))
    parts.append(_words(10, _TOP - 16, y.words, _SOFT))
    ends: list[tuple[float, str, str]] = []
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        placed = [(across.place(right), up.place(high)) for right, high in points]
        path = " ".join(f"{right:.1f},{high:.1f}" for right, high in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{right:.1f}" cy="{high:.1f}" r="3" fill="{colour}"/>' for right, high in placed]
        ends.append((placed[-1][1], name, colour))
    parts += [_words(_WIDTH - _RIGHT + 10, level + 4, name, colour) for level, name, colour in _apart(ends)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def bars(title: str, unit: str, groups: dict[str, dict[str, float]]) -> str:
    """Horizontal bars with their values; each of several groups has the same names, each name a colour of its own."""
    highest = max(value for group in groups.values() for value in group.values())
    height = _BAR_TOP + sum(len(group) * _BAR + _BAR_GAP for group in groups.values())
    parts = _start(height, title)
    top = _BAR_TOP
    for name, group in groups.items():
        colours = cycle(_COLOURS if len(groups) > 1 else _COLOURS[:1])
        for (what, value), colour in zip(group.items(), colours, strict=False):
            length = value / highest * (_WIDTH - _BAR_LEFT - _RIGHT)
            middle = top + _BAR * 0.65
            label = f"{name}, {what}" if name else what
            parts.append(_words(_BAR_LEFT - 8, middle, label.replace("`", ""), _TEXT, "end"))
            parts.append(
                f'<rect x="{_BAR_LEFT}" y="{top + 2}" width="{length:.1f}" height="{_BAR - 4}" rx="2" fill="{colour}"/>'
            )
            parts.append(_words(_BAR_LEFT + length + 6, middle, f"{value:.3g} {unit}", _SOFT))
            top += _BAR
        top += _BAR_GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def _start(height: int, title: str) -> list[str]:
    return [
        f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="15" font-weight="bold" fill="{_TEXT}">{title}</text>',
    ]


def _words(x: float, y: float, text: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{text}</text>'


def _scale(highest: float, first: float, last: float) -> _Scale:
    """A scale to ``highest`` or the next step above it; steps are 1, 2, 2.5 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(highest / _STEPS))
    step = next(factor * power for factor in _ROUND if factor * power * _STEPS >= highest * 0.999)
    return _Scale(math.ceil(highest / step - 0.001) * step, step, first, last)


def _apart(ends: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """The labels at the ends of lines, from top to bottom, moved so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for level, name, colour in sorted(ends):
        lowest = placed[-1][0] + _LINE_HEIGHT if placed else level
        placed.append((max(level, lowest), name, colour))
    return placed
