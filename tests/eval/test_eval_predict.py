"""The prediction log: what a kill may leave behind, and what must never be continued."""

import pytest

from eval.predict import Batch, Contestant, content_hash, open_log, predict, slug
from hangtag.errors import DataError
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary
from tests.eval_dataset import WordTagger

VOCABULARY = TagVocabulary.from_json(["red", "blue"])
PRODUCTS = [Product(id=f"p-{number}", title="red shoes") for number in range(7)]


def tag(path, calls, batch_size=3):
    advanced = []
    done = predict(
        open_log(path, {"arm": "words"}),
        PRODUCTS,
        lambda: Contestant(WordTagger(VOCABULARY, calls=calls)),
        batch_size=batch_size,
        advance=advanced.append,
    )
    assert sum(advanced) == len(PRODUCTS)
    return done


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "words.jsonl"
    tag(path, [])
    return path


def test_a_whole_log_is_read_back_without_loading_anything(whole):
    def load():
        raise AssertionError("nothing is left to do")

    done = predict(open_log(whole, {}), PRODUCTS, load, batch_size=3, advance=lambda number: None)
    assert [tagging.id for tagging in done.taggings] == [product.id for product in PRODUCTS]
    assert [batch.num_products for batch in done.batches] == [3, 3, 1]
    assert done.setup_seconds >= 0


def test_a_log_cut_at_any_byte_loses_one_batch_at_most(whole):
    data = whole.read_bytes()
    expected = open_log(whole, {}).done.taggings
    for length in range(0, len(data), 7):
        whole.write_bytes(data[:length])
        calls = []
        done = tag(whole, calls)
        assert done.taggings == expected
        kept = open_log(whole, {}).done
        # What was appended behind the cut can be read again: nothing is left to do.
        assert kept.taggings == expected
        held = sum(b'"start"' in line for line in data[:length].split(b"\n")[:-1])
        assert len(calls) == 3 - held


def test_a_line_that_lacks_only_its_end_is_done_again(whole):
    whole.write_bytes(whole.read_bytes().rstrip(b"\n"))
    calls = []
    tag(whole, calls)
    assert calls == [["p-6"]]
    assert len(open_log(whole, {}).done.taggings) == 7


@pytest.mark.parametrize(
    "junk", [b"\0\0\0\n", b"[]\n", b'{"start": 7}\n', b'{"start": 0, "taggings": [], "seconds": 1}\n']
)
def test_junk_at_the_end_is_cut_off(whole, junk):
    data = whole.read_bytes()
    whole.write_bytes(data + junk)
    assert len(open_log(whole, {}).done.taggings) == 7
    assert whole.read_bytes() == data


def test_a_full_disk_is_one_clear_error(tmp_path):
    log = open_log(tmp_path / "words.jsonl", {})
    log.path = tmp_path / "gone" / "words.jsonl"
    with pytest.raises(DataError, match="cannot be written"):
        log.append([], Batch(0, 0.0))


def test_names_and_hashes():
    assert slug("few_shot:unconstrained") == "few_shot-unconstrained"
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
