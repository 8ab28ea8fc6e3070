"""The arms of an evaluation: from a name to a tagger.

| arm | what it is | needs |
|---|---|---|
| majority | the most frequent tags, whatever the product | |
| lexical | tags whose name or alias stands in the text | |
| evidence | words and meaning with default weights, and the nearest labelled products | |
| linear | TF-IDF and one-vs-rest logistic regression | scikit-learn |
| bert | an encoder with a multi-label head, from `--run` or trained on a small dataset | torch, transformers |
| nearest | the tags of the nearest labelled products, voted | |
| zero_shot, few_shot | a prompted language model, and nothing else | vllm or transformers, a fetched model |
| fused_zero_shot, fused_few_shot | the same, led by evidence: what `hangtag tag` does | the same |
| qlora | a fine-tuned language model, from `--run`; called by its method in reports | vllm or transformers |
| http | an OpenAI-compatible endpoint | its address |

An arm with a language model keeps to correct sets of tags (http: to a JSON schema); `NAME:unconstrained` lets it
write what it likes, and `NAME:schema` uses the engine's own JSON schema.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import hangtag
from eval.predict import Contestant, content_hash, slug
from eval.settings import Evaluation
from hangtag.catalogue.labelled import Dataset
from hangtag.errors import DataError, EngineError, HangtagError, RecipeError
from hangtag.evidence.loading import default_fusion
from hangtag.language_model.examples import default_limits
from hangtag.language_model.prompt import default_template
from hangtag.loading import BaselineName, load_baseline, load_engine
from hangtag.manifest import RunFiles, RunManifest, file_sha256, load_run
from hangtag.models import resolve_model
from hangtag.spec import Endpoint, Examples, FineTuned, Prompted, TaggerSpec, of_run
from hangtag.tagging import stream_of

if TYPE_CHECKING:
    from hangtag.language_model.generative import Decoding

BASELINES = ("majority", "lexical", "evidence", "linear", "nearest", "bert")
PROMPTED = ("zero_shot", "few_shot", "fused_zero_shot", "fused_few_shot")
LLM_KINDS = (*PROMPTED, "qlora", "http")
KINDS = (*BASELINES, *LLM_KINDS)
_DECODINGS: dict[str, Decoding] = {"": "set", "unconstrained": "free", "schema": "schema"}
_QUICK_BERT_PRODUCTS = 500
# A minute or two on two cores: a stand-in that shows the arm, far from the best that an encoder can do.
_QUICK_BERT_RECIPE = """\
max_length: 64
evaluations_per_epoch: 1
trainer:
  num_train_epochs: 10
  per_device_train_batch_size: 16
"""
_PACKAGE = Path(hangtag.__file__).parent


@dataclass(frozen=True, slots=True)
class Arm:
    """One contestant: its name, its kind, how its answers are decoded, and the run that it loads."""

    name: str
    kind: str
    decoding: Decoding = "set"
    run: Path | None = None

    @property
    def is_llm(self) -> bool:
        """Whether a language model answers."""
        return self.kind in LLM_KINDS

    @property
    def is_prompted(self) -> bool:
        """Whether a language model answers that has not been trained for it: slow, for its prompts are long."""
        return self.is_llm and self.run is None

    @property
    def batch_size(self) -> int:
        """Products between two writes to the disk: enough to fill an engine, few enough to lose little."""
        return 32 if self.is_prompted else 128


def choose_arms(recipe: Evaluation, runs: tuple[Path, ...], dataset: Dataset) -> tuple[list[Arm], dict[str, str]]:
    """Return the arms to evaluate, and for each arm that is not there, by name, what enables it.

    Runs come in addition to the recipe's arms.

    Raises:
        RecipeError: a name is unknown, stands twice, or a named arm is not there.
        DataError: a run is not complete, of an unknown kind, or was trained on another vocabulary.
    """
    from_runs = _arms_of_runs(runs, dataset)
    wanted = [_parse(name) for name in recipe.arms or KINDS]
    found: list[Arm] = []
    missing: dict[str, str] = {}
    for arm in wanted:
        trained = [run for run in from_runs if run.kind == arm.kind]
        if trained:
            # A named arm stands for all runs of its kind, decoded as it says.
            suffix = arm.name.removeprefix(arm.kind)
            found += [Arm(run.name + suffix, run.kind, arm.decoding, run.run) for run in trained]
        elif reason := _why_missing(arm, recipe, dataset):
            missing[arm.name] = reason
        else:
            found.append(arm)
    found += [run for run in from_runs if run.kind not in {arm.kind for arm in wanted}]
    names = [arm.name for arm in found]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"arm {name!r} stands twice; name each arm once")
    if recipe.arms and missing:
        name, reason = next(iter(missing.items()))
        raise RecipeError(f"arm {name!r} is not there: {reason}")
    return found, missing


def _parse(name: str) -> Arm:
    kind, _, suffix = name.partition(":")
    if kind not in KINDS:
        raise RecipeError(f"arm {name!r} is unknown; expected some of {', '.join(KINDS)}")
    if suffix not in _DECODINGS or (suffix and kind not in LLM_KINDS):
        raise RecipeError(
            f"arm {name!r}: only an arm with a language model ({', '.join(LLM_KINDS)}) may end in "
            ":unconstrained or :schema"
        )
    return Arm(name, kind, _DECODINGS[suffix])


def _arms_of_runs(runs: tuple[Path, ...], dataset: Dataset) -> list[Arm]:
    arms = []
    manifests = [(run, *load_run(run)) for run in runs]
    # A language model's arm is called by the method that it was trained with: not every one is QLoRA.
    labels = [manifest.details.get("method", manifest.kind) for _, manifest, _ in manifests]
    for (run, manifest, vocabulary), label in zip(manifests, labels, strict=True):
        if manifest.kind != "bert" and "answers" not in manifest.details:
            raise DataError(f"{run}: a run of kind {manifest.kind!r}; expected one of sft.train or sft.train_bert")
        if vocabulary.fingerprint != dataset.vocabulary.fingerprint:
            raise DataError(
                f"{run}: trained on vocabulary {vocabulary.fingerprint[:12]} ({len(vocabulary)} tags), but "
                f"{dataset.folder} has {dataset.vocabulary.fingerprint[:12]} ({len(dataset.vocabulary)} tags); "
                "evaluate it on the dataset it was trained on"
            )
        is_only = labels.count(label) == 1
        kind = "bert" if manifest.kind == "bert" else "qlora"
        arms.append(Arm(label if is_only else f"{label}-{run.name}", kind, run=run))
    return arms


def _why_missing(arm: Arm, recipe: Evaluation, dataset: Dataset) -> str | None:
    """Return the command that would enable the arm, or None if it is there."""
    if arm.kind == "qlora":
        return "give a fine-tuned run: --run DIR"
    if arm.kind == "http":
        return None if recipe.http else "give an endpoint: --endpoint URL --endpoint-model NAME"
    if arm.kind == "linear" and not _is_installed("sklearn"):
        return "pip install 'hangtag[eval]'"
    if arm.kind == "bert":
        if len(dataset.train) > _QUICK_BERT_PRODUCTS:
            command = f"python -m sft.train_bert --data {dataset.folder} --out runs/bert"
            return f"train it ({command}) and give it as --run runs/bert"
        if not all(map(_is_installed, ("torch", "transformers", "accelerate"))):
            return "pip install 'hangtag[train]'"
        return _why_not_fetched("minilm-l6")
    if arm.kind in PROMPTED:
        engine = _engine(recipe)
        if not _is_installed(engine):
            return "pip install 'hangtag[cpu]' (or 'hangtag[gpu]')"
        return _why_not_fetched(recipe.model)
    return None


def _why_not_fetched(model: str) -> str | None:
    try:
        resolve_model(model)
    except HangtagError as error:
        return str(error)
    return None


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _engine(recipe: Evaluation) -> Any:
    return recipe.engine or ("vllm" if _is_installed("vllm") else "transformers")


def spec_of(arm: Arm, recipe: Evaluation, dataset: Dataset) -> TaggerSpec | None:
    """Return the description of an arm with a language model, None for any other.

    Raises:
        DataError: its run is not exported.
    """
    vocabulary, everything = dataset.vocabulary, Examples(dataset.train, dataset.digest)
    if arm.kind == "qlora" and arm.run:
        return of_run(arm.run, decoding=arm.decoding)
    if arm.kind == "http" and recipe.http:
        server = recipe.http.model_dump(include={"url", "model", "key_variable", "shots", "concurrency"})
        return TaggerSpec(vocabulary, Endpoint(examples=everything, constrained=arm.decoding != "free", **server))
    if arm.kind not in PROMPTED:
        return None
    # Without examples, not even the number of tags that a labelled product holds is known.
    examples = Examples() if arm.kind.endswith("zero_shot") else everything
    shots = recipe.shots if arm.kind.endswith("few_shot") else 0
    limits = default_limits(vocabulary, examples.products)
    is_led = arm.kind.startswith("fused") and arm.decoding == "set"
    prompted = Prompted(
        recipe.model,
        examples,
        shots,
        limits,
        default_template(shots),
        arm.decoding,
        evidence=default_fusion(has_examples=bool(examples.products)) if is_led else None,
    )
    return TaggerSpec(vocabulary, prompted)


def identity(arm: Arm, recipe: Evaluation, dataset: Dataset) -> dict[str, Any]:
    """Return what decides the arm's answers, data and products excepted: its settings and hashes.

    `model` and `prompt_sha256` are there for arms that have them; `code` is a hash of the whole package.

    Raises:
        HangtagError: a model is not fetched, or a run is not exported.
    """
    described: dict[str, Any] = {"arm": arm.name, "kind": arm.kind, "code": code_sha256(_PACKAGE)}
    spec = spec_of(arm, recipe, dataset)
    if spec is not None:
        described |= {"decoding": arm.decoding, "tagger": spec.identity()}
        if not isinstance(spec.source, Endpoint):
            described["engine"] = _engine(recipe)
        if isinstance(spec.source, Prompted):
            described |= {"model": recipe.model, "shots": spec.source.shots}
            described["prompt_sha256"] = file_sha256(spec.source.template)
    if arm.run:
        manifest = RunManifest.read(arm.run)
        described |= {
            "model": manifest.base_model,
            "method": manifest.details.get("method"),
            "run": arm.run.name,
            "run_manifest_sha256": file_sha256(RunFiles(arm.run).manifest),
        }
    if arm.kind == "http" and recipe.http:
        described |= recipe.http.model_dump(include={"url", "model", "shots"})
        described["prompt_sha256"] = file_sha256(default_template(recipe.http.shots))
    if arm.kind == "bert" and not arm.run:
        described |= {"model": "minilm-l6", "bert_recipe": _QUICK_BERT_RECIPE}
    return described


@functools.cache
def code_sha256(package: Path) -> str:
    """Return one SHA-256 (hex) over the names and bytes of a package's code.

    All of it, because a list of the files that decide an arm goes stale in silence: a needless repeat costs
    minutes, a missed one gives figures of code that is gone. Packaged data is not code and not hashed.
    """
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".jinja"))
    return content_hash([[file.relative_to(package).as_posix(), file_sha256(file)] for file in files])


class ArmLoader:
    """Loads arms for one evaluation; a language model that several arms use is loaded once."""

    def __init__(self, recipe: Evaluation, dataset: Dataset, folder: Path) -> None:
        """Prepare for `dataset`, whose vocabulary carries the limits; `folder` keeps what is trained here."""
        self._recipe = recipe
        self._dataset = dataset
        self._folder = folder
        self._engines: dict[str, Any] = {}

    def load(self, arm: Arm) -> Contestant:
        """Return the arm, loaded and fitted.

        Raises:
            HangtagError: it cannot be loaded.
        """
        train, validation, vocabulary = self._dataset.train, self._dataset.validation, self._dataset.vocabulary
        if arm.kind in get_args(BaselineName):
            return Contestant(load_baseline(cast(BaselineName, arm.kind), train, validation, vocabulary))
        if arm.kind == "bert":
            from hangtag.baselines.bert import BertTagger

            return Contestant(BertTagger(arm.run or self._quick_bert()))
        return self._language_model(arm)

    def _language_model(self, arm: Arm) -> Contestant:
        spec = spec_of(arm, self._recipe, self._dataset)
        assert spec is not None
        engine = _engine(self._recipe)
        if isinstance(spec.source, FineTuned):
            # Two engines rarely fit in memory together.
            self._engines.clear()
        if isinstance(spec.source, Prompted):
            model = spec.source.model
            if model not in self._engines:
                self._engines.clear()
                self._engines[model] = load_engine(model, engine)
            engine = self._engines[model]
        tagger = spec.load(engine)
        return Contestant(tagger, stream_of(tagger)[1])

    def _quick_bert(self) -> Path:
        """Return a run that `sft.train_bert` wrote on this dataset, trained now if it is not there yet."""
        content = [self._dataset.digest, _QUICK_BERT_RECIPE, code_sha256(_PACKAGE)]
        run = self._folder / slug(f"bert-{content_hash(content)}")
        if RunFiles(run).manifest.is_file():
            return run
        self._folder.mkdir(parents=True, exist_ok=True)
        print(f"bert: training on {len(self._dataset.train)} products first", file=sys.stderr, flush=True)
        recipe = run.with_suffix(".yaml")
        recipe.write_text(_QUICK_BERT_RECIPE, encoding="utf-8")
        resumed = ["--resume"] if RunFiles(run).recipe.is_file() else [str(recipe.resolve())]
        command = [sys.executable, "-m", "sft.train_bert"]
        command += ["--data", str(self._dataset.folder.resolve()), "--out", str(run.resolve())]
        done = subprocess.run(
            [*command, *resumed],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).resolve().parents[1],
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise EngineError(
                f"training the bert arm failed ({last:.300}); run it by hand: {' '.join(command[1:])}"
            )
        return run


def _end_with_parent() -> None:
    """Let the kernel end this process with its parent: a trainer left behind would write into a resumed run."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
