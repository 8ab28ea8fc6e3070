"""The commands `hangtag recommend tags|products`; `hangtag.cli` has them among its own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hangtag.errors import RecipeError
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from hangtag.recommend.history import History
    from hangtag.recommend.recommender import Recommender

_PER_FACET = 3


def add_commands(actions: Any) -> None:
    """Add the commands to the subparsers of `hangtag recommend`."""
    tags = actions.add_parser("tags", help="the tags that customers are interested in, and those they take next")
    products = actions.add_parser("products", help="the products that customers take next, best first")
    for command, work in ((tags, _tags), (products, _products)):
        add_fit_arguments(command)
        command.add_argument(
            "--history", required=True, metavar="F", help="what the customers took: as --interactions"
        )
        command.add_argument(
            "--user",
            action="append",
            default=[],
            metavar="U",
            help="one customer; who is not in --history gets what all like (default: all of --history)",
        )
        command.add_argument(
            "--count", type=int, default=10, metavar="K", help="tags or products a customer (default: %(default)s)"
        )
        command.add_argument("--json", action="store_true", help="print JSON Lines instead of a text")
        command.set_defaults(command=work)
    add_list_arguments(products)


def add_fit_arguments(parser: argparse.ArgumentParser, *, are_positional: bool = False) -> None:
    """Add the options that say what is learned from; `fit` reads them."""
    about = {
        "interactions": "who took what and when: .csv, .jsonl (also .gz) or .parquet with user, item, time",
        "items": "products with tags, or taggings: .jsonl, .csv (also .gz) or .parquet",
    }
    for name, text in about.items():
        if are_positional:
            parser.add_argument(name, metavar=name.upper(), help=text)
        else:
            parser.add_argument(f"--{name}", required=True, metavar="F", help=text)
    parser.add_argument("--vocabulary", metavar="F", help="facets of the tags (default: those the items name)")
    parser.add_argument(
        "--map", action="append", default=[], metavar="FIELD=COLUMN", help="where user, item, time, weight stand"
    )
    parser.add_argument(
        "--cut",
        choices=("time", "last"),
        default="time",
        help="learn from the last days of all, or from the last takings of each customer (default: %(default)s)",
    )
    parser.add_argument(
        "--horizon", type=float, default=30.0, metavar="DAYS", help="days ahead (default: %(default)s)"
    )


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a list of products holds."""
    parser.add_argument(
        "--without-repeats", action="store_true", help="leave out what a customer took before (default: keep it)"
    )
    parser.add_argument(
        "--new-every",
        type=int,
        default=0,
        metavar="N",
        help="every N-th place goes to a product that nobody took yet (default: 0, as learned)",
    )


def fit(arguments: argparse.Namespace) -> Recommender:
    """Return a recommender of what the options of `add_fit_arguments` name; what was left out goes to stderr.

    Raises:
        DataError: a file cannot be read, or holds too little to learn from.
        RecipeError: an option is refused.
    """
    from hangtag.recommend.cut import Cut
    from hangtag.recommend.interactions import parse_columns, read_interactions
    from hangtag.recommend.items import read_items
    from hangtag.recommend.recommender import Recommender

    if not arguments.horizon > 0:
        raise RecipeError(f"--horizon {arguments.horizon}: expected a number of days above 0")
    if getattr(arguments, "new_every", 0) < 0 or arguments.count < 1:
        raise RecipeError("--count and --new-every: expected at least 1 and 0")
    vocabulary = TagVocabulary.from_path(arguments.vocabulary) if arguments.vocabulary else None
    items = read_items(arguments.items, vocabulary=vocabulary)
    found = read_interactions(arguments.interactions, columns=parse_columns(arguments.map), items=items.ids)
    say_what_was_left_out(arguments.interactions, found.counts)
    return Recommender.fit(found, items, Cut(arguments.cut, arguments.horizon))


def say_what_was_left_out(path: str, counts: Mapping[str, int]) -> None:
    """Print a line on what reading interactions left out or changed, if anything."""
    if counts:
        print(f"hangtag: {path}: {', '.join(f'{n} {name}' for name, n in counts.items())}", file=sys.stderr)


def _histories(arguments: argparse.Namespace, recommender: Recommender) -> tuple[tuple[str, ...], History]:
    """Return the customers to answer for, and their pasts."""
    import numpy as np

    from hangtag.recommend.history import History
    from hangtag.recommend.interactions import parse_columns, read_interactions

    items = recommender.items.ids
    found = read_interactions(
        arguments.history, columns=parse_columns(arguments.map), items=items, users=arguments.user
    )
    say_what_was_left_out(arguments.history, found.counts)
    # The latest moment that is known: what comes next comes after it.
    now = np.full(len(found.users), recommender.history.now.max())
    history = History.of(found, len(items), now=now)
    number = len(set(arguments.user)) or len(found.users)
    return found.users[:number], history[np.arange(number)]


def _products(arguments: argparse.Namespace) -> int:
    import numpy as np

    from hangtag.recommend.reasons import reasons

    recommender = fit(arguments)
    users, history = _histories(arguments, recommender)
    ranked, scores = recommender.recommend(
        history, arguments.count, with_taken=not arguments.without_repeats, new_every=arguments.new_every
    )
    for row, user in enumerate(users):
        one = history[np.array([row])]
        products = [
            {
                "item": recommender.items.ids[item],
                "title": recommender.items.titles[item],
                "score": round(float(score), 4),
                "reasons": list(reasons(one, int(item), recommender.items, recommender.sources)),
            }
            for item, score in zip(ranked[row], scores[row], strict=True)
            if np.isfinite(score)
        ]
        if arguments.json:
            print(json.dumps({"user": user, "known": bool(one.size[0]), "products": products}, ensure_ascii=False))
            continue
        print(_head(user, one))
        for product in products:
            print(f"  {product['item']}  {product['title']}  ({'; '.join(product['reasons'])})")
    return 0


def _tags(arguments: argparse.Namespace) -> int:
    import numpy as np

    from hangtag.recommend.profile import profile
    from hangtag.recommend.ranking import top

    recommender = fit(arguments)
    users, history = _histories(arguments, recommender)
    tags = recommender.next_tags
    for row, user in enumerate(users):
        one = history[np.array([row])]
        scores = tags.scores(recommender.sources, one, [recommender.scores(one)])
        following = [recommender.items.tags[tag] for tag in top(scores, arguments.count)[0]]
        wishes = profile(one, recommender.items, recommender.sources, strength=tags.strength, per_facet=_PER_FACET)
        if arguments.json:
            facets = {facet: [asdict(wish) for wish in held] for facet, held in wishes.items()}
            document = {"user": user, "known": bool(one.size[0]), "next": following, "profile": facets}
            print(json.dumps(document, ensure_ascii=False))
            continue
        print(f"{_head(user, one)}\n  next: {', '.join(following)}")
        for facet, held in wishes.items():
            for wish in held:
                because = f", because of {', '.join(wish.because)}" if wish.because else ""
                print(f"  {facet or 'tags'}: {wish.tag} ({wish.share:.2f}, {wish.lift:.1f} x all{because})")
    return 0


def _head(user: str, history: History) -> str:
    return f"{user}:" if history.size[0] else f"{user}: nothing known of this customer, what all like:"
