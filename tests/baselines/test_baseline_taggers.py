import numpy as np
import pytest

from hangtag.baselines import linear
from hangtag.baselines.facet_decoding import tag_matrix
from hangtag.baselines.lexical import LexicalTagger
from hangtag.baselines.linear import LinearTagger
from hangtag.baselines.majority import MajorityTagger
from hangtag.baselines.nearest import NearestTagger
from hangtag.encoders.nearest import NearestTexts
from hangtag.encoders.tfidf import TfidfEncoder
from hangtag.product import Product
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

COLOURS = ("red", "blue", "green")
TYPES = ("boots", "shirt", "lamp")


@pytest.fixture
def shop() -> TagVocabulary:
    tags = [Tag(name, "colour") for name in COLOURS] + [Tag(name, "type") for name in TYPES]
    return TagVocabulary(
        [*tags, Tag("warm", "feature"), Tag("soft", "feature")],
        facets={"colour": FacetLimits(max=1), "type": FacetLimits(min=1, max=1)},
    )


def labelled(count: int, *, start: int = 0) -> list[Product]:
    """Products whose words tell their tags, though never by name."""
    colours = {"red": "scarlet", "blue": "azure", "green": "olive"}
    said = colours | {"boots": "stiefel", "shirt": "hemd", "lamp": "leuchte"}
    products = []
    for number in range(start, start + count):
        colour, kind = COLOURS[number % 3], TYPES[number // 3 % 3]
        # One in four tells no colour and holds none.
        tags = (kind,) if number % 4 == 0 else (colour, kind)
        words = " ".join(said[tag] for tag in tags)
        tags += ("warm",) * (number % 2)
        text = f"{words} number {number}" + " winterlich" * (number % 2)
        products.append(Product(id=str(number), title=text, tags=tags))
    return products


def names(tagger, *texts):
    products = [Product(id=str(number), title=text) for number, text in enumerate(texts)]
    taggings = tagger.tag(products)
    assert [tagging.id for tagging in taggings] == [product.id for product in products]
    assert {tagging.model for tagging in taggings} <= {tagger.name}
    return [tagging.names for tagging in taggings]


def test_majority_gives_what_half_hold_and_what_is_needed(shop):
    train = [
        Product(id="1", title="x", tags=("red", "boots", "warm")),
        Product(id="2", title="x", tags=("boots", "warm", "soft")),
        Product(id="3", title="x", tags=("blue", "shirt")),
    ]
    tagger = MajorityTagger.fit(train, shop)
    assert names(tagger, "a", "b") == [("boots", "warm")] * 2
    assert tagger.tag(train[:1])[0].tags[0].confidence == pytest.approx(2 / 3)
    assert tagger.tag([]) == []


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("A RED shirt", ("red", "shirt")),
        ("redder shirts", ()),
        ("ruby-red boots", ("red", "boots")),
        ("blue, red and green", ("blue",)),
        ("warm and soft", ("warm", "soft")),
        ("soft and warm, soft", ("soft", "warm")),
        ("ｒｅｄ lamp", ("red", "lamp")),
        ("", ()),
    ],
)
def test_lexical_finds_whole_words_under_the_limits(shop, title, expected):
    product = Product(id="1", title=title, description="" if title else "-")
    assert LexicalTagger(shop).tag([product])[0].names == expected


def test_lexical_reads_title_then_description_then_attribute_values(shop):
    product = Product(id="1", title="a boot", description="in blue", attributes={"lamp": "no", "colour": "red"})
    tagging = LexicalTagger(shop).tag([product])[0]
    assert tagging.names == ("blue",)
    assert tagging.tags[0].confidence is None


def test_lexical_prefers_the_longest_of_overlapping_finds():
    words = TagVocabulary(
        [
            Tag("shoes", "type"),
            Tag("running shoes", "type"),
            Tag("night running", "use"),
            Tag("t-shirt", "type2", aliases=("tee",)),
            Tag("连衣裙", "中文"),
            Tag("裙", "中文", aliases=("半身裙",)),
            Tag("🔥", "mark"),
            Tag("café noir", "colour"),
            Tag("red wine", "use"),
            Tag("wine glass set", "type"),
        ]
    )
    tagger = LexicalTagger(words)
    assert names(
        tagger,
        "night running shoes",
        "running shoes, shoes",
        "a T Shirt",
        "best TEE ever",
        "夏季新款连衣裙",
        "黑色半身裙",
        "hot🔥",
        "Cafe\u0301 Noir",
        "running. Shoes",
        "a red wine glass set",
    ) == [
        ("night running", "shoes"),
        ("running shoes", "shoes"),
        ("t-shirt",),
        ("t-shirt",),
        ("连衣裙",),
        ("裙",),
        ("🔥",),
        ("café noir",),
        ("running shoes",),
        ("wine glass set",),
    ]


def test_lexical_does_not_join_words_of_two_fields():
    words = TagVocabulary([Tag("running shoes")])
    product = Product(id="1", title="For running", description="Shoes")
    assert LexicalTagger(words).tag([product])[0].names == ()


def fit_nearest(train, validation, vocabulary):
    encoder = TfidfEncoder([product.text for product in train])
    return NearestTagger.fit(train, validation, vocabulary, encoder=encoder)


@pytest.mark.parametrize("fit", [LinearTagger.fit, fit_nearest])
def test_learnt_taggers_learn_what_the_words_say(fit, shop):
    tagger = fit(labelled(144), labelled(36, start=144), shop)
    wanted = labelled(36, start=180)
    taggings = tagger.tag(wanted)
    right = sum(set(tagging.names) == set(product.tags) for tagging, product in zip(taggings, wanted, strict=True))
    assert right >= 33
    assert all(tagging.vocabulary == shop.fingerprint for tagging in taggings)
    assert all(0 <= tag.confidence <= 1 for tagging in taggings for tag in tagging.tags)
    assert tagger.tag([]) == []


@pytest.mark.parametrize("fit", [LinearTagger.fit, fit_nearest])
def test_learnt_taggers_are_deterministic_and_keep_limits(fit, shop):
    first, second = (fit(labelled(60), labelled(20, start=60), shop) for _ in range(2))
    strange = [Product(id="1", title="scarlet azure olive"), Product(id="2", title="???")]
    assert first.tag(strange) == second.tag(strange)
    for tagging in first.tag(strange):
        held = [tag.facet for tag in tagging.tags]
        assert held.count("type") == 1
        assert held.count("colour") <= 1


@pytest.mark.parametrize("fit", [LinearTagger.fit, fit_nearest])
def test_learnt_taggers_take_tags_that_all_or_none_hold(fit, shop):
    train = [product.model_copy(update={"tags": (*product.tags, "soft")}) for product in labelled(30)]
    tagging = fit(train, train, shop).tag([Product(id="1", title="scarlet stiefel")])[0]
    assert "soft" in tagging.names
    assert tagging.names[:1] == ("red",)


def test_nearest_chooses_few_neighbours_where_there_are_few(shop):
    train = labelled(3)
    tagger = fit_nearest(train, train, shop)
    assert tagger.k <= 3
    assert [set(tagging.names) for tagging in tagger.tag(train)] == [set(product.tags) for product in train]


def test_nearer_neighbours_count_more(shop):
    class Line:
        """Places texts "0" to "9" on a line; the cosine falls by 0.05 a step from the first."""

        name = "line"

        def encode(self, texts):
            angles = np.arccos(1 - 0.05 * np.array([int(text) for text in texts], dtype=np.float64))
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    texts = NearestTexts(Line(), ["1", "2", "9"])
    gold = tag_matrix([("red", "boots"), ("blue", "boots"), ("blue", "lamp")], shop)
    tagger = NearestTagger(texts, gold, shop, k=2, reach=0.05, thresholds={})
    tagging = tagger.tag([Product(id="1", title="0")])[0]
    assert tagging.names == ("red", "boots")
    assert tagging.tags[0].confidence == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-4)
    assert tagging.tags[1].confidence == pytest.approx(1.0)


def test_processes_may_write_to_large_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What joblib would map into memory, more than a megabyte, reaches a process read-only."""
    from scipy import sparse

    monkeypatch.setattr(linear, "_WORTH_PROCESSES", 0)
    inputs = sparse.random(4000, 500, density=0.2, format="csr", dtype=np.float32, random_state=0)
    # Not in the order of columns, which liblinear wants and makes in place.
    inputs = sparse.csr_matrix((inputs.data, 499 - inputs.indices, inputs.indptr), shape=inputs.shape)
    gold = np.zeros((4000, 400), np.bool_)
    gold[:, :2] = np.random.default_rng(0).random((4000, 2)) < 0.5
    weights, _ = linear._fit(inputs, gold, 0.01)
    assert weights.any()


def test_lexical_gives_the_ids_of_its_tags():
    tagger = LexicalTagger(TagVocabulary([Tag("red", id="166"), Tag("boots")]))
    [tagging] = tagger.tag([Product(id="1", title="red boots")])
    assert [(tag.tag, tag.id) for tag in tagging.tags] == [("red", "166"), ("boots", None)]
