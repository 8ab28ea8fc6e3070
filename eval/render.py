"""results.json as texts for people: a summary for the terminal, report.md and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from eval.formats import (
    answer_text,
    breakable,
    p_value,
    shade,
    significant,
    verdict,
)
from eval.plots import pareto_front, plots
from hangtag.durable import replaced
from hangtag.metrics.text import interval, markdown_table, markdown_text, signed

TEMPLATE = Path(__file__).parent / "report.html.jinja"
MAIN_FIGURES = {
    "exact_match": "exact match",
    "set_f1": "set-F1",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "validity": "validity",
}
OTHER_FIGURES = {
    "micro_precision": "micro precision",
    "micro_recall": "micro recall",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "jaccard": "Jaccard",
    "hierarchical_f1": "hierarchical F1",
    "cardinality_error": "cardinality error (tags)",
    "cardinality_bias": "cardinality bias (tags)",
    "calibration_error": "calibration error (ECE)",
    "coverage_at_95": "coverage at 95 % precision",
    "coverage_at_99": "coverage at 99 % precision",
}
_GROUP_NAMES = {
    "head_f1": "frequent tags (head), F1",
    "torso_f1": "middling tags (torso), F1",
    "tail_f1": "rare tags (tail), F1",
    "seen_set_exact_match": "tag set seen in train, exact match",
    "seen_set_set_f1": "tag set seen in train, set-F1",
    "unseen_set_exact_match": "tag set never seen in train, exact match",
    "unseen_set_set_f1": "tag set never seen in train, set-F1",
    "chinese_exact_match": "Chinese products, exact match",
    "chinese_set_f1": "Chinese products, set-F1",
    "english_exact_match": "other products, exact match",
    "english_set_f1": "other products, set-F1",
}
_INVALID = {
    "unparsed": "unparsed answers",
    "failed": "failed products",
    "answers_with_violations": "answers with violations",
    "unknown": "unknown tags",
    "repeated": "repeated tags",
    "over_limit": "tags over a facet's limit",
}
_PERTURBATIONS = {
    "typos": "typos",
    "lost_description": "lost description",
    "upper_case": "upper case",
    "shuffled_attributes": "shuffled attributes",
    "injected_instructions": "injected instructions",
}
_IDENTITY = (
    "model",
    "method",
    "model_sha256",
    "run",
    "run_manifest_sha256",
    "engine",
    "decoding",
    "shots",
    "url",
    "prompt_sha256",
    "code",
)


def write_reports(out: Path, results: dict[str, Any]) -> None:
    """Write report.md and report.html into the results folder, each replaced as a whole."""
    for name, text in (("report.md", markdown(results)), ("report.html", html(results))):
        with replaced(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def findings(results: dict[str, Any]) -> list[str]:
    """Return what the results say, in a few sentences."""
    arms, best, baseline = results["arms"], results["best"], results["baseline"]
    if best is None:
        return ["No arm finished, so there is no figure."]
    found = [
        f"Best set-F1: {best} with {interval(arms[best]['figures']['set_f1'])}, exact match "
        f"{interval(arms[best]['figures']['exact_match'])}, on {arms[best]['num_products']} products."
    ]
    against = {arm: held["against"] for arm, held in arms.items() if held["against"]}
    for name in ("better", "not told apart", "worse"):
        members = [arm for arm, pair in against.items() if verdict(pair["figures"]["set_f1"]) == name]
        if members:
            found.append(f"Against {baseline}, in set-F1 on the same products, {name}: {', '.join(members)}.")
    if baseline is None:
        found.append(
            f"The baseline {results['recipe']['baseline']} is not among the arms, so nothing is compared with it."
        )
    invalid = [
        f"{arm} {100 * (1 - held['figures']['validity']['value']):.1f} %"
        for arm, held in arms.items()
        if held["figures"]["validity"]["value"] < 1
    ]
    found.append(
        f"Answers that are no correct set of tags: {', '.join(invalid)}; no other arm has any."
        if invalid
        else "Every answer of every arm is a correct set of tags."
    )
    few = [arm for arm, held in arms.items() if not held["is_reliable"]]
    if few:
        found.append(f"Fewer than 30 products: the intervals of {', '.join(few)} are unreliable.")
    return found


def summary(results: dict[str, Any]) -> str:
    """Return the main figures as a table of plain text."""
    head = ["arm", "products", *MAIN_FIGURES.values(), "products/s"]
    rows = [
        [
            arm,
            str(held["num_products"]),
            *(interval(held["figures"][name]) for name in MAIN_FIGURES),
            significant(held["efficiency"]["products_per_s"]["value"]),
        ]
        for arm, held in results["arms"].items()
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    ]
    return "\n".join(["", *(line.rstrip() for line in lines), "", *findings(results)])


def markdown(results: dict[str, Any]) -> str:
    """Return report.md."""
    arms = results["arms"]
    dataset, recipe = results["dataset"], results["recipe"]
    lines = [f"# Evaluation: {dataset['name']}", "", results["note"], "", *_bullets(findings(results)), ""]
    for arm, reason in results["failed"].items():
        lines += [f"**Arm {arm} failed:** {reason}", ""]
    lines += ["## Arms", ""]
    lines += _table(
        ["arm", "products", *MAIN_FIGURES.values(), "products/s"],
        [
            [
                _name(arm, results),
                str(held["num_products"]),
                *(interval(held["figures"][name]) for name in MAIN_FIGURES),
                significant(held["efficiency"]["products_per_s"]["value"]),
            ]
            for arm, held in arms.items()
        ],
    )
    lines += ["In brackets: 95 % intervals by bootstrap over products. Definitions: docs/metrics.md.", ""]
    if any(held["against"] for held in arms.values()):
        lines += [f"## Against {results['baseline']}, on the same products", ""]
        lines += _table(
            ["arm", "products", "exact match", "set-F1", "", "micro-F1", "macro-F1"],
            [
                [
                    arm,
                    str(held["against"]["num_products"]),
                    signed(held["against"]["figures"].get("exact_match")),
                    signed(held["against"]["figures"].get("set_f1")),
                    p_value(held["against"]["figures"]["set_f1"]["p"]),
                    signed(held["against"]["figures"].get("micro_f1")),
                    signed(held["against"]["figures"].get("macro_f1")),
                ]
                for arm, held in arms.items()
                if held["against"]
            ],
        )
        lines += ["Differences (arm minus baseline) by paired bootstrap; p is two-sided, for set-F1.", ""]
    for title, rows in _figure_tables(results):
        lines += [f"## {title}", "", *_table(["", *arms], rows)]
    lines += ["## Confused most", ""]
    if results["best"] and arms[results["best"]]["confused"]:
        lines += [f"By {results['best']}:", ""]
        lines += _table(
            ["facet", "gold", "predicted instead", "products"],
            [
                [pair["facet"], pair["gold"], pair["predicted"], str(pair["num_products"])]
                for pair in arms[results["best"]]["confused"]
            ],
        )
    else:
        lines += ["No pair.", ""]
    lines += [f"## The {len(results['worst'])} worst products of {results['best']}", ""]
    for row in results["worst"]:
        lines += [f"- `{row['id']}` " + markdown_text(row.get("text", ""))]
        if "gold" in row:
            lines += [f"  - gold: {markdown_text(', '.join(row['gold'])) or 'no tag'}"]
        lines += [
            f"  - {arm} ({answer['set_f1']:.2f}): {markdown_text(answer_text(answer))}"
            for arm, answer in row["arms"].items()
        ]
    lines += ["", "## How this was made", ""]
    lines += _table(["", ""], provenance_rows(results))
    lines += ["```", results["command"], "```", ""]
    if results["missing"]:
        lines += ["Arms that were not there:", ""]
        lines += [*_bullets(f"{arm}: {reason}" for arm, reason in results["missing"].items()), ""]
    if not recipe["texts"]:
        lines += ["Texts and tags of single products are left out of this report.", ""]
    return "\n".join(lines)


def html(results: dict[str, Any]) -> str:
    """Return report.html: one file without any reference to another."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    arms = results["arms"]
    points = [
        (held["efficiency"]["products_per_s"]["value"], held["figures"]["set_f1"]["value"], arm)
        for arm, held in arms.items()
    ]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        results=results,
        arms=arms,
        findings=findings(results),
        main_figures=MAIN_FIGURES,
        figure_tables=_figure_tables(results),
        facets=_facets(results),
        plots=plots(results) if arms else {},
        pareto=[name for _, _, name in pareto_front(points)],
        provenance=provenance_rows(results),
        interval=interval,
        significant=significant,
        signed=signed,
        p_value=p_value,
        verdict=verdict,
        answer_text=answer_text,
        breakable=breakable,
        shade=shade,
    )


def provenance_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return what the figures were made from, as pairs of name and text."""
    dataset, made, recipe = results["dataset"], results["provenance"], results["recipe"]
    machine = made["machine"]
    commit = made["commit"][:12] if made["commit"] else "none"
    rows = [
        ["dataset", f"{dataset['name']}, SHA-256 {dataset['digest'][:16]}"],
        [
            "products",
            f"{dataset['num_train']} train, {dataset['num_validation']} validation, {dataset['num_test']} test, "
            f"of these {dataset['num_evaluated']} evaluated",
        ],
        [
            "vocabulary",
            f"{results['vocabulary']['num_tags']} tags in {len(results['vocabulary']['facets'])} facets, "
            f"fingerprint {results['vocabulary']['fingerprint'][:16]}",
        ],
        ["commit", commit + (" with uncommitted changes" if made["dirty"] else "")],
        ["date (UTC)", made["date"]],
        [
            "machine",
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
            + (f", {', '.join(machine['gpus'])}" if machine["gpus"] else ", no GPU"),
        ],
        ["versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())],
        ["seed, resamples", f"{recipe['seed']}, {recipe['resamples']}"],
        ["recipe", f"SHA-256 {results['recipe_sha256']}"],
        ["time of all arms", f"{results['seconds']:.0f} s, loading and fitting included"],
    ]
    for arm, held in results["arms"].items():
        described = held["identity"]
        shown = [
            f"{name.replace('_', ' ')} {str(described[name])[:16] if name.endswith('sha256') else described[name]}"
            for name in _IDENTITY
            if described.get(name) is not None
        ]
        shown.append(f"loading and fitting {held['setup_seconds']:.1f} s, tagging {held['seconds']:.1f} s")
        rows.append([f"arm {arm}", "; ".join(shown)])
    return rows


def _figure_tables(results: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the further tables of a report: title, and rows of a name and one cell an arm."""
    arms = results["arms"].values()
    tables = []

    def rows(names: Mapping[str, str]) -> list[list[str]]:
        return [
            [label, *(interval(arm["figures"].get(name)) for arm in arms)]
            for name, label in names.items()
            if any(arm["figures"].get(name) for arm in arms)
        ]

    tables.append(("More figures", rows(OTHER_FIGURES)))
    groups = results["groups"]
    sizes = {f"{name}_f1": f"{number} tags" for name, number in groups["tags"].items()}
    for part, number in groups["products"].items():
        mark = ", unreliable" if number < 30 else ""
        sizes |= {
            f"{part}_{name}": f"{number} product{'' if number == 1 else 's'}{mark}"
            for name in ("exact_match", "set_f1")
        }
    named = {name: f"{label} ({sizes[name]})" for name, label in _GROUP_NAMES.items() if name in sizes}
    tables.append(("Frequent and rare, seen and unseen", rows(named)))
    for name, label in (("accuracy", "Accuracy"), ("f1", "F1")):
        facets = {f"facet_{name}:{facet}": facet for facet in results["vocabulary"]["facets"]}
        tables.append((f"{label} of each facet", rows(facets)))
    tables.append(
        (
            "Invalid answers",
            [[label, *(str(arm["invalid"][name]) for arm in arms)] for name, label in _INVALID.items()],
        )
    )
    efficiency = {
        "products_per_s": "products a second",
        "prompt_tokens": "prompt tokens a product",
        "output_tokens": "output tokens a product",
        "cost_per_1000": f"cost of 1,000 products at {results['recipe']['rate']} an hour",
    }
    tables.append(
        (
            "Speed and cost",
            [
                [label, *(_quantity(arm["efficiency"].get(name)) for arm in arms)]
                for name, label in efficiency.items()
                if any(name in arm["efficiency"] for arm in arms)
            ],
        )
    )
    tables.append(
        (
            "Robustness: change of set-F1",
            [
                [label, *(signed(arm["robustness"][name]["change"]) for arm in arms)]
                for name, label in _PERTURBATIONS.items()
                if all(name in arm["robustness"] for arm in arms)
            ]
            if results["arms"]
            else [],
        )
    )
    return [(title, found) for title, found in tables if found]


def _facets(results: dict[str, Any]) -> dict[str, str]:
    """Return the facets that have an accuracy, by the name of the figure."""
    figures = {name for arm in results["arms"].values() for name in arm["figures"]}
    names = {f"facet_accuracy:{facet}": facet for facet in results["vocabulary"]["facets"]}
    return {name: facet for name, facet in names.items() if name in figures}


def _quantity(estimate: Mapping[str, float | None] | None) -> str:
    if not estimate:
        return "–"
    if estimate["low"] is None:
        return significant(estimate["value"])
    return f"{significant(estimate['value'])} [{significant(estimate['low'])}, {significant(estimate['high'])}]"


def _name(arm: str, results: dict[str, Any]) -> str:
    mark = "" if results["arms"][arm]["is_reliable"] else " (unreliable: fewer than 30 products)"
    return f"**{arm}**{mark}" if arm == results["best"] else arm + mark


def _bullets(items: Any) -> list[str]:
    return [f"- {item}" for item in items]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [*markdown_table(head, rows), ""]
