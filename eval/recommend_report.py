"""recommend.json of eval.recommend as report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hangtag.metrics.text import interval, markdown_table, signed

_FIGURES = {
    "products": ("map@12", "recall@100", "recall@12", "hit@12", "ndcg@10", "mrr"),
    "tags": ("recall@5", "precision@5", "recall@10", "hit@5", "map@5", "ndcg@10"),
    "next tags": ("recall@10", "precision@10", "map@10"),
    "among the new items": ("recall@20", "hit@20", "ndcg@10"),
    "among all items": ("recall@100", "hit@12", "recall@12"),
}
_INTRODUCTION = {
    "products": "Each user's past is ranked against all items; what the user took next is to be found.",
    "tags": "Which tags does this person give to this item? One post a user; all tags of train are ranked.",
}


def markdown(found: Mapping[str, Any]) -> str:
    """Return report.md."""
    made = found["provenance"]
    commit = (made["commit"] or "none")[:12] + (" with uncommitted changes" if made["dirty"] else "")
    lines = [f"# Recommendation: {found['dataset']}", "", _INTRODUCTION[found["kind"]]]
    lines += [f"Weights were learned on {found['num_learned_from']} users behind a cut of train.", ""]
    for name, section in found["sections"].items():
        lines += _section(name, section, _FIGURES.get(name, _FIGURES[found["kind"]]), found["own"])
    if "lists" in found:
        rows = [
            [arm, f"{own['coverage']:.3f}", f"{own['novelty']:.1f}", f"{own['new']:.3f}"]
            for arm, own in found["lists"].items()
        ]
        lines += ["## The first 12 places", ""]
        lines += markdown_table(["arm", "coverage", "novelty (bits)", "share of items nobody took"], rows)
        lines += [""]
    for name, section in found.get("activity", {}).items():
        lines += _section(f"users with {name} items in their past", section, ("recall@12", "map@12"), found["own"])
    if "new" in found:
        new = found["new"]
        lines += [f"## New items: the takings of {new['num_new']} items are taken out of train", ""]
        lines += [
            f"`{found['own']}` ranks them by content alone. Among all items it gives every {new['every']}th place "
            "to an item that nobody took.",
            "",
        ]
        for name, section in new["sections"].items():
            lines += _section(name, section, _FIGURES[name], found["own"])
    lines += [
        "In brackets: 95 % intervals by bootstrap over users. `Δ` is the arm in bold minus the other one, paired "
        "over the same users. Definitions: `hangtag.metrics.rankings`.",
        "",
        f"Commit {commit}, {made['date']}, {found['seconds']:.0f} s, seed {found['seed']}, "
        f"{found['resamples']} resamples:",
        "",
        "```",
        found["command"],
        "```",
    ]
    return "\n".join(lines) + "\n"


def _section(name: str, section: Mapping[str, Any], figures: Sequence[str], own: str) -> list[str]:
    rows = []
    for arm, held in section["arms"].items():
        cells = [interval(held["figures"][figure]) for figure in figures]
        changes = [signed((held["exceeded_by"] or {}).get(figure)) for figure in figures[:2]]
        rows.append([f"**{arm}**" if arm == own else arm, *cells, *changes])
    head = ["arm", *figures, *(f"Δ {figure}" for figure in figures[:2])]
    return [f"## {name[0].upper()}{name[1:]}: {section['num_users']} users", "", *markdown_table(head, rows), ""]
