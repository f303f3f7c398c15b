"""Charts as inline SVG: no script, no style attribute, and words for those who do not see them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 120, 32

_SPARKLINE = Markup(
    '<svg class="spark" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{label}">'
    '<path class="area" d="M0 {h}L{points}L{w} {h}Z"/><path class="line" d="M{points}"/></svg>'
)


def sparkline(values: Sequence[float], label: str) -> Markup:
    """A line over equal steps, from zero up to the greatest value.

    label: what it shows; the greatest and the last value are added.
    """
    top = max(values, default=0) or 1
    step = WIDTH / max(len(values) - 1, 1)
    points = "L".join(f"{n * step:.1f} {HEIGHT - 2 - value / top * (HEIGHT - 4):.1f}" for n, value in enumerate(values))
    said = f"{label}: {values[-1]:,} now, at most {max(values):,}" if values else f"{label}: nothing yet"
    return _SPARKLINE.format(w=WIDTH, h=HEIGHT, points=points or f"0 {HEIGHT - 2}L{WIDTH} {HEIGHT - 2}", label=said)
