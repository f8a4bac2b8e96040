"""Small charts as SVG: no library in the browser, no picture on disk, colours from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

__all__ = ["Chart", "histogram"]

WIDTH, HEIGHT = 330, 214
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 28, 42


@dataclass
class Chart:
    """One chart: an axis in x, one in y, bars and lines.

    Attributes
    ----------
    title, x_label, y_label : str
    x_range, y_range : (float, float)
    log : bool
        Logarithmic x.
    log_y : bool
    """

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool = False
    log_y: bool = False
    legend_below: bool = False
    _marks: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str]] = field(default_factory=list)

    def bars(self, edges: ArrayLike, heights: ArrayLike, *, name: str = "", style: str = "a") -> Chart:
        """Bars between edges."""
        x, heights = self._x(edges), np.asarray(heights, float)
        bottom = self._y([self.y_range[0]])[0]
        for first, last, height in zip(x[:-1], x[1:], heights, strict=True):
            if height > 0 and np.isfinite(height):
                top = min(self._y([height])[0], bottom)
                self._marks.append(
                    f'<rect class="bar {style}" x="{first + 0.5:.1f}" y="{top:.1f}" '
                    f'width="{max(last - first - 1, 0.5):.1f}" height="{bottom - top:.1f}"/>'
                )
        return self._named(name, f"bar {style}")

    def line(self, x: ArrayLike, y: ArrayLike, *, name: str = "", style: str = "a") -> Chart:
        """A line through points; breaks where a value is missing."""
        x, y = self._x(x), self._y(y)
        path, pen = "", "M"
        for one, other in zip(x, y, strict=True):
            if not (np.isfinite(one) and np.isfinite(other)):
                pen = "M"
                continue
            path += f"{pen}{one:.1f} {other:.1f}"
            pen = "L"
        if path:
            self._marks.append(f'<path class="line {style}" d="{path}"/>')
        return self._named(name, f"line {style}")

    def points(self, x: ArrayLike, y: ArrayLike, low: ArrayLike, high: ArrayLike, *, name: str = "") -> Chart:
        """Points with error bars."""
        for one, other, bottom, top in zip(self._x(x), self._y(y), self._y(low), self._y(high), strict=True):
            if np.isfinite([one, other, bottom, top]).all():
                self._marks.append(
                    f'<path class="line b" d="M{one:.1f} {bottom:.1f}V{top:.1f}"/>'
                    f'<circle class="point b" cx="{one:.1f}" cy="{other:.1f}" r="3"/>'
                )
        return self._named(name, "line b")

    def svg(self) -> Markup:
        """The chart as SVG; every text in it is escaped."""
        inner: list[str] = []
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for value, text in _ticks(*self.y_range, log=self.log_y, count=4):
            y = self._y([value])[0]
            inner.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
            inner.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for value, text in _ticks(*self.x_range, log=self.log, count=4):
            x = self._x([value])[0]
            inner.append(f'<path class="tick" d="M{x:.1f} {bottom}v4"/>')
            inner.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
        middle = (TOP + bottom) / 2
        label = escape(self.x_label)
        inner.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{label}</text>')
        inner.append(
            f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">'
            f"{escape(self.y_label)}</text>"
        )
        inner.extend(self._marks)
        inner.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
        for number, (name, style) in enumerate(self._legend):
            x, y = LEFT + 10, TOP + 12 + 15 * number
            if self.legend_below:
                x, y = right - 160, bottom - 8 - 15 * (len(self._legend) - 1 - number)
            inner.append(f'<path class="{style}" d="M{x} {y - 4}h16"/>')
            inner.append(f'<text class="legend" x="{x + 22}" y="{y}">{escape(name)}</text>')
        title = escape(self.title)
        inner.append(f'<text class="heading" x="{LEFT}" y="14">{title}</text>')
        return Markup(  # noqa: S704 - numbers, style names of this file and escaped texts only
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
            f"<title>{title}</title>{''.join(inner)}</svg>"
        )

    def _named(self, name: str, style: str) -> Chart:
        if name:
            self._legend.append((name, style))
        return self

    def _x(self, values: ArrayLike) -> NDArray[np.float64]:
        return LEFT + _share(values, self.x_range, self.log) * (WIDTH - LEFT - RIGHT)

    def _y(self, values: ArrayLike) -> NDArray[np.float64]:
        return HEIGHT - BOTTOM - _share(values, self.y_range, self.log_y) * (HEIGHT - TOP - BOTTOM)


def _share(values: ArrayLike, limits: tuple[float, float], log: bool) -> NDArray[np.float64]:
    values = np.asarray(values, float)
    low, high = limits
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log10(np.where(values > 0, values, np.nan))
        values = np.where(np.isnan(values), np.log10(low), values)
        low, high = np.log10(low), np.log10(high)
    return np.clip((values - low) / (high - low), -0.02, 1.02)


def _ticks(low: float, high: float, *, log: bool, count: int) -> list[tuple[float, str]]:
    if log:
        first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
        decades = range(first, last + 1, max(1, (last - first + count) // count))
        if last - first < 2:
            values = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
        else:
            values = [10.0**e for e in decades]
        return [(value, _text(value)) for value in values]
    step = 10.0 ** np.floor(np.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    whole = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1)
    return [(float(value), _text(value)) for value in whole * step]


def _text(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{power}" if mantissa == "1" else f"{mantissa}·10{power}"


def histogram(
    values: ArrayLike, *, title: str, label: str, log: bool = False, limits: Sequence[float] | None = None,
    bins: int = 28,
) -> Chart | None:  # fmt: skip
    """Number of sources by a quantity; None when no value is finite (and above 0 on a logarithmic axis).

    Parameters
    ----------
    values : array_like
    title, label : str
    log : bool
        Logarithmic bins.
    limits : (float, float), optional
        Range of the axis; default is that of 99.8% of the values.
    bins : int
    """
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values) & ((values > 0) if log else True)]
    if not values.size:
        return None
    low, high = limits or (float(v) for v in np.percentile(values, [0.1, 99.9]))
    if not high > low:
        low, high = (low / 1.5, low * 1.5) if log else (low - 0.5, low + 0.5)
    if log:
        low, high = low / 1.02, high * 1.02
        edges = np.geomspace(low, high, bins + 1)
    else:
        edges = np.linspace(low, high, bins + 1)
    counts, _ = np.histogram(values, edges)
    top = max(float(counts.max()) * 1.08, 1.0)
    return Chart(title, label, "sources", (low, high), (0.0, top), log=log).bars(edges, counts)
