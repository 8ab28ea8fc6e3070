"""Say what is left to win: what several arms have wrong together, and what combining them would give.

    python -m eval.ceiling eval/out/mine
    python -m eval.ceiling eval/out/mine --arms linear,bert,full

DIR is a results folder of eval.run with its predictions. What unlike arms all have wrong is most likely left open
by the product's text, or labelled wrong; a better model will hardly win it. For each facet: the share of products
that each arm has right; that a vote has right (the answer that most arms gave; at a tie, of those the one of the
arm with the best set-F1); that at least one arm has right; that none has, and of these those where all arms give
one and the same answer: their labels are worth a look. Then exact match and set-F1 of the vote, and of the best
pick (in each facet the answer of an arm that is right there, if one is), against the evaluation's baseline by
paired bootstrap; and of each arm with confidences if it kept only the tags above a threshold, a facet each, chosen
for the best set-F1 on these very products.

Writes DIR/ceiling.json and DIR/ceiling.md; `disputed` in ceiling.json lists the products with an answer that all
arms gave against gold, with the tags where the evaluation shows texts. Prints ceiling.md; the last line of stdout
is the path of ceiling.json. Exit codes: 0 done, 2 misused.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.settings import split_names
from eval.store import ArmPredictions, Context, read_context, read_predictions, read_products
from hangtag import metrics, program
from hangtag.baselines.facet_decoding import decode_scores, tag_matrix, tune_thresholds
from hangtag.errors import RecipeError
from hangtag.manifest import write_json
from hangtag.metrics import Outcomes
from hangtag.metrics.text import interval, markdown_table, signed
from hangtag.vocabulary import TagVocabulary

NUM_ARMS = 3
VOTE, PICK, THRESHOLDS = "vote", "best pick", "best thresholds"
ANY, NONE, ALIKE = "at least one", "none", "none, all alike"

_Answers = Sequence[frozenset[str] | None]
"""An arm's answers to all products; None where one was unparsed or failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m eval.ceiling", __doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="results folder of eval.run, with predictions/")
    parser.add_argument(
        "--arms",
        metavar="A,B,C",
        help=f"two arms or more that tagged all products (default: of those the {NUM_ARMS} with the best set-F1)",
    )
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder

    def work() -> int:
        found = ceiling(folder, split_names(arguments.arms))
        write_json(folder / "ceiling.json", found)
        text = markdown(found)
        (folder / "ceiling.md").write_text(text, encoding="utf-8")
        print(f"{text}\n{folder / 'ceiling.json'}")
        return 0

    return program.run("eval.ceiling", work)


def ceiling(folder: Path, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the arms `wanted`, or the best ones, have wrong together, and what they give combined.

    Raises:
        DataError: the folder holds no whole evaluation.
        RecipeError: an arm is not there or has not tagged all products, or fewer than two arms are left.
    """
    context, products = read_context(folder), read_products(folder)
    held = _whole_arms(folder, context, list(products), wanted)
    sets = {arm: predictions.outcomes(products, context.vocabulary) for arm, predictions in held.items()}
    arms = sorted(held, key=lambda arm: float(metrics.set_f1(sets[arm])), reverse=True)[: len(wanted) or NUM_ARMS]
    gold = [product.gold for product in products.values()]
    answers: dict[str, _Answers] = {
        arm: [frozenset(tagging.names) if tagging.status == "ok" else None for tagging in held[arm].taggings]
        for arm in arms
    }
    facets = {
        facet: _combine(frozenset(context.vocabulary.in_facet(facet)), gold, answers)
        for facet in context.vocabulary.facet_names
    }
    combined: dict[str, _Answers] = {
        VOTE: [frozenset().union(*parts) for parts in zip(*(part.vote for part in facets.values()), strict=True)],
        PICK: [frozenset().union(*parts) for parts in zip(*(part.pick for part in facets.values()), strict=True)],
        **_above_thresholds({arm: held[arm] for arm in arms}, gold, context.vocabulary),
    }
    compared = {arm: sets[arm] for arm in arms}
    compared |= {name: Outcomes.from_sets(gold, answer) for name, answer in combined.items()}
    baseline = context.recipe.baseline if context.recipe.baseline in arms else arms[0]
    return {
        "arms": arms,
        "baseline": baseline,
        "num_products": len(products),
        "facets": {facet: _shares(part.is_right, context) for facet, part in facets.items()},
        "sets": _differences(compared, baseline, context),
        "disputed": [
            {"id": product.id, "facet": facet}
            | (
                {"gold": sorted(product.gold & part.members), "answer": sorted(vote)}
                if context.recipe.texts
                else {}
            )
            for facet, part in facets.items()
            for product, vote, is_alike in zip(products.values(), part.vote, part.is_right[ALIKE], strict=True)
            if is_alike
        ],
        "dataset": context.dataset,
        "provenance": context.provenance,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Return ceiling.md."""
    columns = [*found["arms"], VOTE, ANY, NONE, ALIKE]
    lines = [f"# What is left to win: {found['dataset']['name']}", ""]
    lines += [f"{found['num_products']} test products, each facet by itself: the share that is right.", ""]
    lines += markdown_table(
        ["facet", *columns],
        [[facet, *(interval(shares[name]) for name in columns)] for facet, shares in found["facets"].items()],
    )
    lines += [
        "",
        f"`{ANY}`: at least one arm is right there; `{NONE}`: no arm is; `{ALIKE}`: no arm is, and all give the "
        "same answer. In brackets: 95 % intervals by bootstrap over products. Differences to "
        f"{found['baseline']} are paired:",
        "",
        *markdown_table(
            ["", "exact match", "set-F1", "Δ exact match", "Δ set-F1"],
            [
                [name]
                + [interval(row[figure]) for figure in ("exact_match", "set_f1")]
                + [signed((row["against"] or {}).get(figure)) for figure in ("exact_match", "set_f1")]
                for name, row in found["sets"].items()
            ],
        ),
        "",
        f"`{VOTE}`: in each facet the answer that most arms gave; `{PICK}`: in each facet the answer of an arm "
        f"that is right there, if one is, which no choice between these arms can exceed; `{THRESHOLDS}`: only "
        "the tags above thresholds, a facet each, that were chosen for set-F1 on these very products, which "
        "thresholds from other products will not exceed by much.",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Facet:
    """One facet of all products: what was right by column, and the combined answers."""

    members: frozenset[str]
    is_right: dict[str, NDArray[np.bool_]]
    vote: list[frozenset[str]]
    pick: list[frozenset[str]]


def _combine(members: frozenset[str], gold: Sequence[frozenset[str]], answers: Mapping[str, _Answers]) -> _Facet:
    """Combine the arms' answers, the best arm's first, in the facet that holds the tags `members`."""
    vote, pick = [], []
    rows: dict[str, list[bool]] = {name: [] for name in [*answers, VOTE, ANY, NONE, ALIKE]}
    for tags, given in zip(gold, zip(*answers.values(), strict=True), strict=True):
        right = tags & members
        parts = [None if answer is None else answer & members for answer in given]
        # Counter keeps the order of first occurrence among equals: that of the arms.
        counted = Counter(part for part in parts if part is not None).most_common(1)
        most = counted[0][0] if counted else frozenset()
        hits = [part == right for part in parts]
        for arm, is_hit in zip(answers, hits, strict=True):
            rows[arm].append(is_hit)
        rows[VOTE].append(most == right)
        rows[ANY].append(any(hits))
        rows[NONE].append(not any(hits))
        rows[ALIKE].append(not any(hits) and None not in parts and len(set(parts)) == 1)
        vote.append(most)
        pick.append(right if any(hits) else most)
    return _Facet(members, {name: np.array(row, dtype=np.bool_) for name, row in rows.items()}, vote, pick)


def _above_thresholds(
    held: Mapping[str, ArmPredictions], gold: Sequence[frozenset[str]], vocabulary: TagVocabulary
) -> dict[str, _Answers]:
    """Return what each arm that gives confidences answers above the thresholds that suit `gold` best."""
    found: dict[str, _Answers] = {}
    for arm, predictions in held.items():
        taggings = predictions.taggings
        if not all(tag.confidence is not None for tagging in taggings for tag in tagging.tags):
            continue
        scores = np.zeros((len(gold), len(vocabulary)))
        for row, tagging in enumerate(taggings):
            for tag in tagging.tags:
                if tag.tag in vocabulary:
                    scores[row, vocabulary.position(tag.tag)] = tag.confidence
        chosen = decode_scores(
            scores, vocabulary, tune_thresholds(scores, tag_matrix(gold, vocabulary), vocabulary)
        )
        found[f"{arm}, {THRESHOLDS}"] = [
            frozenset(vocabulary.names[position] for position in np.flatnonzero(row)) & frozenset(tagging.names)
            if tagging.status == "ok"
            else None
            for row, tagging in zip(chosen, taggings, strict=True)
        ]
    return found


def _whole_arms(
    folder: Path, context: Context, ids: Sequence[str], wanted: Sequence[str]
) -> dict[str, ArmPredictions]:
    """Return the predictions of the arms that tagged all products, in the order of `ids`."""
    unknown = [arm for arm in wanted if arm not in context.arms]
    if unknown:
        raise RecipeError(f"{folder}: no arm {unknown[0]!r}; expected some of {', '.join(context.arms)}")
    found = {}
    for arm in wanted or context.arms:
        held = read_predictions(folder, arm)
        if set(ids) <= set(held.ids):
            found[arm] = held.only(ids)
        elif wanted:
            raise RecipeError(f"{folder}: arm {arm} tagged {len(held.ids)} of {len(ids)} products; leave it out")
    if len(found) < 2:
        raise RecipeError(
            f"{folder}: {len(found)} of the arms with all {len(ids)} products; expected two or more to combine"
        )
    return found


def _shares(columns: Mapping[str, NDArray[np.bool_]], context: Context) -> dict[str, Any]:
    """Return the share of products of each column, with its interval."""
    num_products = len(next(iter(columns.values())))
    found = context.resample(
        {name: functools.partial(_share, column.astype(np.float64)) for name, column in columns.items()},
        num_products,
    )
    return {name: asdict(found.estimate(name, share_of=num_products)) for name in columns}


def _share(column: NDArray[np.float64], weights: Any) -> Any:
    return column.mean() if weights is None else weights @ column / len(column)


def _differences(compared: Mapping[str, Outcomes], baseline: str, context: Context) -> dict[str, Any]:
    """Return exact match and set-F1 of each, and by how much they exceed the baseline's."""
    found = {
        name: context.resample(metrics.bind(outcomes, metrics.exact_match, metrics.set_f1), len(outcomes))
        for name, outcomes in compared.items()
    }
    return {
        name: {figure: asdict(own.estimate(figure)) for figure in own.values}
        | {
            "against": None
            if name == baseline
            else {figure: asdict(change) for figure, change in own.exceeds(found[baseline]).items()}
        }
        for name, own in found.items()
    }


if __name__ == "__main__":
    sys.exit(main())
