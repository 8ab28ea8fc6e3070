"""A small labelled dataset and a tagger that needs no library, for tests of the evaluation."""

import json
import random
from pathlib import Path

from hangtag.tagging import ScoredTag, Tagging

COLOURS = ("red", "blue", "green")
KINDS = ("shoes", "boots", "coat")


def write_dataset(folder, *, num_train=60, num_test=40, chinese=0):
    """Write a dataset whose gold tags stand in the titles, and return its folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    for split, number in (("train", num_train), ("validation", 10), ("test", num_test)):
        rows = []
        for index in range(number):
            colour, kind = generator.choice(COLOURS), generator.choice(KINDS)
            title = f"{colour} {kind} model {index}" if index >= chinese else f"漂亮的女鞋 {colour} {kind}"
            tags = [colour, kind] if index % 7 else [kind]
            row = {"id": f"{split}-{index}", "title": title, "description": "a fine thing", "tags": tags}
            rows.append(json.dumps(row, ensure_ascii=False))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    vocabulary = [{"tag": tag, "facet": "colour"} for tag in COLOURS]
    vocabulary += [{"tag": "shoes", "facet": "kind"}, {"tag": "boots", "facet": "kind", "parent": "shoes"}]
    vocabulary += [{"tag": "coat", "facet": "kind"}]
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return folder


class WordTagger:
    """Answers the tags that stand in the title; every fourth product gets a wrong colour, some answers fail."""

    name = "words"

    def __init__(self, vocabulary, *, unparsed=(), violations=(), dies_after=None, calls=None):
        self.vocabulary = vocabulary
        self._unparsed, self._violations = unparsed, violations
        self._dies_after = dies_after
        self.calls = [] if calls is None else calls

    def tag(self, products):
        self.calls.append([product.id for product in products])
        if self._dies_after is not None and len(self.calls) > self._dies_after:
            raise RuntimeError("out of memory\nand a long trace")
        return [self._tag(product) for product in products]

    def _tag(self, product):
        fields = {"id": product.id, "model": self.name, "vocabulary": self.vocabulary.fingerprint}
        number = int(product.id.rsplit("-", 1)[1])
        if number in self._unparsed:
            return Tagging(status="unparsed", reason="not JSON", **fields)
        words = self._words(product, number)
        violations = {"unknown": 1} if number in self._violations else {}
        tags = tuple(ScoredTag(tag=tag, confidence=0.6 + 0.3 * (number % 4 > 0)) for tag in words)
        return Tagging(tags=tags, violations=violations, **fields)

    def _words(self, product, number):
        words = [tag for tag in self.vocabulary.names if tag in product.title.split()]
        return ["blue" if tag == "red" else tag for tag in words] if number % 4 == 0 else words
