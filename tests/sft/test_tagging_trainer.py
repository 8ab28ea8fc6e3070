from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch
import transformers
from tiny_model import make_tiny_model

from hangtag import Product, TagVocabulary
from hangtag.errors import RecipeError
from hangtag.language_model.tag_tokens import TagTokens
from hangtag.sample import sample_folder
from sft.labelled import load_labelled_splits, tag_counts
from sft.language_model import grow_embeddings, load_tokenizer, tag_rows
from sft.machine import can_compile, choose_attention, compile_layers
from sft.pairs import Pair, PairMaker, TagOrder, answer_settings
from sft.recipe import Augmentation, TrainRecipe
from sft.tag_rows import TagRows
from sft.tagging_trainer import IGNORED, PairBatch

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def products() -> tuple[Product, ...]:
    return load_labelled_splits(sample_folder()).train[:24]


@pytest.fixture(scope="module")
def vocabulary() -> TagVocabulary:
    return load_labelled_splits(sample_folder()).vocabulary


class Setup:
    """A tiny model with its run's tokenizer, pairs and batches."""

    def __init__(
        self, folder: Path, products, vocabulary, *, tie: bool = True, chat_of: str = "", **recipe
    ) -> None:
        template = {"chat": _template_of(chat_of)} if chat_of else {}
        self.recipe = TrainRecipe(model=str(make_tiny_model(folder / "base", tie=tie, **template)), **recipe)
        self.tokenizer, num_rows = load_tokenizer(self.recipe, vocabulary, folder / "tokenizer")
        self.settings = answer_settings(self.recipe, products, vocabulary, self.tokenizer)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base").eval()
        self.rows: TagRows | None = None
        if self.recipe.answer == "tag_tokens":
            tokens = TagTokens.read(self.tokenizer.get_vocab(), vocabulary)
            self.rows = tag_rows(self.model, self.tokenizer, vocabulary, tokens)
            grow_embeddings(self.model, num_rows)
        self.maker = PairMaker(
            self.tokenizer,
            vocabulary,
            self.settings,
            template=self.recipe.template,
            order=TagOrder(self.recipe.order, vocabulary, tag_counts(products)),
            augmentation=Augmentation(),
            seed=3,
        )
        self.batch = PairBatch(
            self.maker,
            rows=self.rows,
            end_token=self.tokenizer.eos_token_id,
            is_order_free=self.recipe.order == "free",
        )


def _template_of(model: str) -> str:
    """Return the chat template of a family of models, as TRL holds it."""
    return resources.files("trl").joinpath("chat_templates", f"{model}.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize("chat_of", ["", "llama3", "qwen3", "gemma3"])
@pytest.mark.parametrize("answer", ["tag_tokens", "text"])
def test_exactly_the_answer_after_its_given_prefix_is_learned(tmp_path, products, vocabulary, answer, chat_of):
    setup = Setup(
        tmp_path, products, vocabulary, answer=answer, chat="base" if chat_of else "plain", chat_of=chat_of
    )
    pairs = setup.maker.pairs(products[:5], epoch=0)
    batch = setup.batch([*pairs])
    prefix = setup.maker.constraint.forced(setup.maker.constraint.start(limits=setup.settings.limits))
    end = [setup.tokenizer.eos_token_id] if answer == "text" else []
    for row, pair in enumerate(pairs):
        at = len(pair.prompt) + len(prefix) - 1
        learned = pair.answer[len(prefix) :] + end
        expected = [IGNORED] * at + learned
        labels = batch["labels"][row].tolist()
        assert labels[: len(expected)] == expected
        assert set(labels[len(expected) :]) <= {IGNORED}
        # What is read at a learned position is everything that comes before the token learned there.
        whole = pair.prompt + pair.answer
        assert batch["input_ids"][row, : at + 1].tolist() == whole[: at + 1]
        assert batch["attention_mask"][row].sum() == at + len(learned)
        assert setup.tokenizer.decode(pair.answer).endswith("]}")


def test_the_targets_are_what_decoding_allows(tmp_path, products, vocabulary):
    setup = Setup(tmp_path, products, vocabulary)
    pairs = setup.maker.pairs(products, epoch=0)
    batch = setup.batch(pairs)
    constraint, step = setup.maker.constraint, 0
    for pair in pairs:
        state = constraint.start(limits=setup.settings.limits, prefix=pair.answer[:1])
        for token in pair.answer[1:]:
            columns = setup.rows.row_of[torch.tensor(constraint.allowed(state)).long()]
            assert set(columns.tolist()) == set(batch["allowed"][step].nonzero()[:, 0].tolist())
            assert batch["target"][step].argmax() == setup.rows.row_of[token]
            assert batch["target"][step].sum() == 1
            constraint.advance(state, token)
            step += 1
        assert state.is_done
    assert step == len(batch["allowed"]) == (batch["labels"] != IGNORED).sum()


def test_without_an_order_all_tags_that_are_left_share_the_target(tmp_path, products, vocabulary):
    setup = Setup(tmp_path, products, vocabulary, order="free")
    [pair] = setup.maker.pairs(products[:1], epoch=0)
    target = setup.batch([pair])["target"]
    number = len(pair.tags)
    assert [int((row > 0).sum()) for row in target] == [*range(number, 0, -1), 1]
    assert torch.allclose(target.sum(dim=1), torch.ones(number + 1))
    assert target[-1, -1] == 1


def test_a_label_that_no_legal_answer_holds_still_has_a_finite_loss(tmp_path, products, vocabulary):
    facet = next(f for f in vocabulary.facet_names if vocabulary.facets[f].min)
    lacking = products[0].model_copy(
        update={"tags": tuple(t for t in products[0].tags if vocabulary[t].facet != facet)}
    )
    setup = Setup(tmp_path, products, vocabulary)
    batch = setup.batch(setup.maker.pairs([lacking]))
    assert (batch["allowed"] | (batch["target"] == 0)).all()


@pytest.mark.parametrize("tie", [True, False])
def test_rows_read_and_score_as_the_merged_model_does(tmp_path, products, vocabulary, tie):
    setup = Setup(tmp_path, products, vocabulary, tie=tie)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in setup.rows.parameters():
            parameter.add_(torch.randn_like(parameter))
    batch = setup.batch(setup.maker.pairs(products[:4]))
    learned = batch["labels"] != IGNORED
    with torch.no_grad():
        vectors = setup.rows.embed(batch["input_ids"], setup.model.get_input_embeddings())
        hidden = setup.model.model(inputs_embeds=vectors, attention_mask=batch["attention_mask"]).last_hidden_state
        own = setup.rows.logits(hidden[learned])
        setup.rows.write_into(setup.model)
        merged = setup.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[learned]
    for column in range(setup.rows.num_columns):
        for token in setup.rows.ids[column]:
            assert torch.allclose(own[:, column], merged[:, token], atol=1e-5)


def test_rows_start_at_the_mean_of_the_ordinary_ones(tmp_path, products, vocabulary):
    setup = Setup(tmp_path, products, vocabulary)
    weight = setup.model.get_input_embeddings().weight
    position = vocabulary.position(vocabulary.names[5])
    ordinary = setup.tokenizer.encode(vocabulary.names[5], add_special_tokens=False)
    assert torch.allclose(setup.rows.input[position], weight[ordinary].mean(dim=0), atol=1e-6)


def test_the_answer_s_tokens_write_exactly_the_json(tmp_path, products, vocabulary):
    setup = Setup(tmp_path, products, vocabulary)
    pair: Pair = setup.maker.pairs(products[:1])[0]
    assert len(pair.answer) == len(pair.tags) + 2
    text = setup.tokenizer.decode(pair.answer)
    assert text == '{"tags":[' + ",".join(f'"{tag}"' for tag in pair.tags) + "]}"


def test_no_text_becomes_the_token_of_a_tag(tmp_path, products, vocabulary):
    setup = Setup(tmp_path, products, vocabulary)
    new = {token for ids in setup.rows.ids for token in ids}
    for name in vocabulary.names:
        for text in (f'"{name}"', f',"{name}"', f'{{"tags":["{name}"]}}', f'a "{name}","{name}" b'):
            product = Product(id="1", title=text, description=text, attributes={"x": text})
            [pair] = setup.maker.pairs([product])
            assert new.isdisjoint(pair.prompt), text


def test_short_texts_get_plain_attention_and_the_same_answers(tmp_path, products, vocabulary):
    setup = Setup(tmp_path, products, vocabulary)
    logits = {}
    for length, kind in ((192, "eager"), (193, "sdpa"), (24, "eager")):
        choose_attention(setup.model, torch.zeros(2, length, dtype=torch.long))
        assert setup.model.config._attn_implementation == kind
        logits[kind] = setup.model(torch.arange(24).repeat(2, 1)).logits
    torch.testing.assert_close(logits["eager"], logits["sdpa"], atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not can_compile(), reason="torch compiles with a C++ compiler, which is not here")
def test_compiled_layers_learn_the_same_from_sequences_of_any_length(tmp_path, products, vocabulary):
    model = Setup(tmp_path, products, vocabulary).model.train()
    choose_attention(model, torch.zeros(2, 24, dtype=torch.long))
    ids = [torch.arange(length).repeat(2, 1) for length in (24, 31, 17)]

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        sum(model(part, use_cache=False).logits.square().mean() for part in ids).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    eager = gradients()
    # Graphs of tests that ran before would serve this model too, and none would be counted.
    torch._dynamo.reset()
    compile_layers(model)
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(gradients(), eager, atol=1e-5, rtol=1e-4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs <= len(model.model.layers), "one graph a layer at most, whatever the length"
    with torch.compiler.set_stance("force_eager"):
        model.generate(ids[0], attention_mask=torch.ones_like(ids[0]), max_new_tokens=3, min_new_tokens=3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_without_a_compiler_the_recipe_is_refused(tmp_path, products, vocabulary):
    model = Setup(tmp_path, products, vocabulary).model
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(RecipeError, match="needs a C\\+\\+ compiler"),
    ):
        compile_layers(model)
