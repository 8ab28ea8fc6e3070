"""Metrics in text: an estimate with its interval, a difference, a Markdown table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def interval(estimate: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """Return `0.812 [0.801, 0.823]`; a dash where the figure is not defined.

    Examples:
        >>> interval({"value": 0.5, "low": 0.4, "high": 0.61}, 2), interval(None)
        ('0.50 [0.40, 0.61]', '–')
    """
    if not estimate or estimate["value"] is None:
        return "–"
    value = f"{estimate['value']:.{digits}f}"
    if estimate["low"] is not None and estimate["high"] is not None:
        value += f" [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"
    return value.replace("-", "−")


def signed(difference: Mapping[str, float | None] | None) -> str:
    """Return `+0.012 [−0.003, +0.027]`; a dash where it is not defined.

    Examples:
        >>> signed({"value": 0.012, "low": -0.003, "high": 0.027, "p": 0.1})
        '+0.012 [−0.003, +0.027]'
    """
    if not difference or difference["value"] is None:
        return "–"
    parts = [f"{difference[name]:+.3f}".replace("-", "−") for name in ("value", "low", "high")]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> list[str]:
    """Return the lines of a Markdown table, cells shown as they are; columns named in `right` are set right.

    Examples:
        >>> markdown_table(["tag", "products"], [["a|b", "3"]], right=["products"])
        ['| tag | products |', '| --- | ---: |', '| a\\\\|b | 3 |']
    """
    lines = [head, ["---:" if name in right else "---" for name in head]]
    lines += [[markdown_text(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def markdown_text(text: str) -> str:
    """Return text of a shop as one line of Markdown that shows it as it is.

    Examples:
        >>> markdown_text("a|b <i>")
        'a\\\\|b &lt;i>'
    """
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
