"""Plots of a report as inline SVG, drawn by matplotlib, legible without colour."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

# Okabe and Ito's palette is told apart with every common colour blindness; markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7A5195", "#8C8C00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_WIDTH_IN = 5.2
_STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "axes.edgecolor": "#8a929c",
    "axes.axisbelow": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "hangtag",
    "font.sans-serif": ["DejaVu Sans"],
}


def plots(results: dict[str, Any]) -> dict[str, str]:
    """Return the plots of a report by name, each an `<svg>` element: quality, pareto, and, where an arm has
    confidences, reliability and risk_coverage."""
    import matplotlib

    matplotlib.use("Agg")
    arms = results["arms"]
    styles = {
        arm: {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        for number, arm in enumerate(arms)
    }
    with matplotlib.rc_context(_STYLE):
        found = {"quality": _quality(arms, styles), "pareto": _pareto(arms, styles)}
        if any(arm["reliability"] for arm in arms.values()):
            found["reliability"] = _reliability(arms, styles)
            found["risk_coverage"] = _risk_coverage(arms, styles)
    return found


def _quality(arms: dict[str, Any], styles: dict[str, Any]) -> str:
    figure, axes = _axes(height_in=1.3 + 0.52 * len(arms))
    names = list(arms)
    for row, arm in enumerate(reversed(names)):
        for name, offset, filled in (("set_f1", 0.14, True), ("exact_match", -0.14, False)):
            estimate = arms[arm]["figures"][name]
            face = styles[arm]["color"] if filled else "white"
            axes.plot(
                [estimate["low"], estimate["high"]], [row + offset] * 2, color=styles[arm]["color"], linewidth=2
            )
            axes.plot(
                estimate["value"], row + offset, styles[arm]["marker"],
                color=styles[arm]["color"], markerfacecolor=face, markersize=7,
            )  # fmt: skip
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("filled: set-F1, open: exact match")
    return _svg(figure, "Set-F1 and exact match of every arm, with 95 % intervals")


def _pareto(arms: dict[str, Any], styles: dict[str, Any]) -> str:
    figure, axes = _axes()
    points = []
    for arm, held in arms.items():
        speed, estimate = held["efficiency"]["products_per_s"]["value"], held["figures"]["set_f1"]
        points.append((speed, estimate["value"], arm))
        axes.plot([speed, speed], [estimate["low"], estimate["high"]], color=styles[arm]["color"], linewidth=2)
        axes.plot(speed, estimate["value"], linestyle="", markersize=8, label=arm, **styles[arm])
    front = pareto_front(points)
    axes.plot(
        [speed for speed, _, _ in front],
        [value for _, value, _ in front],
        "--",
        color="#6b7480",
        linewidth=1.2,
        zorder=0,
    )
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("products a second (logarithmic)")
    axes.set_ylabel("set-F1")
    _legend(axes, len(arms))
    return _svg(
        figure, "Set-F1 against products a second; the dashed line joins arms that no other arm beats in both"
    )


def pareto_front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Return the (speed, quality, name) points that no other beats in both, fastest last.

    >>> pareto_front([(10, 0.5, "a"), (1, 0.9, "b"), (5, 0.4, "c")])
    [(1, 0.9, 'b'), (10, 0.5, 'a')]
    """
    front: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda p: (-p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]


def _reliability(arms: dict[str, Any], styles: dict[str, Any]) -> str:
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color="#6b7480", linestyle="--", linewidth=1)
    for arm, held in arms.items():
        if held["reliability"]:
            axes.plot(
                [part["confidence"] for part in held["reliability"]],
                [part["precision"] for part in held["reliability"]],
                label=arm, markersize=5, linewidth=1.3, **styles[arm],
            )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("mean confidence of a bin")
    axes.set_ylabel("share of right tags")
    _legend(axes, len(arms))
    return _svg(
        figure, "Reliability: the share of right tags against their confidence; on the dashed line is calibrated"
    )


def _risk_coverage(arms: dict[str, Any], styles: dict[str, Any]) -> str:
    figure, axes = _axes()
    for arm, held in arms.items():
        if held["risk_coverage"]:
            coverage, risk = zip(*held["risk_coverage"], strict=True)
            axes.plot(
                coverage,
                risk,
                label=arm,
                linewidth=1.5,
                markersize=5,
                markevery=max(1, len(coverage) // 8),
                **styles[arm],
            )
    axes.axhline(0.05, color="#6b7480", linestyle="--", linewidth=1)
    axes.text(0.99, 0.055, "95 % precision", color="#4a525c", fontsize=9, horizontalalignment="right")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of predicted tags accepted")
    axes.set_ylabel("share of wrong tags among them")
    _legend(axes, len(arms))
    return _svg(figure, "Risk against coverage: wrong tags among those accepted, from the most confident on")


def _axes(height_in: float = 3.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots()


def _legend(axes: Any, number: int) -> None:
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=min(3, number),
        frameon=False,
        fontsize=9.5,
        handlelength=1.6,
    )


def _svg(figure: Any, title: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The size comes from the page; ids would clash between several plots on it.
    prefix = re.sub(r"\W+", "-", title[:18].lower())
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
