"""transformers in this process: the reference that other engines are compared with; starts in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from hangtag.engines.hardware import probe_hardware
from hangtag.errors import MissingExtra, ModelError
from hangtag.language_model.generative import Generation, Plan, Request
from hangtag.models import resolve_model

MAX_MODEL_LEN = 4096


class TransformersEngine:
    """An engine over `transformers` `generate`, in padded batches."""

    def __init__(
        self, model: str, *, dtype: str | None = None, max_model_len: int = MAX_MODEL_LEN, batch_size: int = 8
    ) -> None:
        """Load `model` (a packaged name, a folder or a hub id).

        `dtype` None means float32 on a CPU, where few products are tagged this way and exactness is what counts,
        and the GPU's own elsewhere. `max_model_len` is in tokens, `batch_size` in products.

        Raises:
            MissingExtra: torch or transformers is not installed.
            ModelError: transformers cannot load the model.
        """
        path = resolve_model(model)
        hardware = probe_hardware()
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtra(str(error.name), "cpu") from None
        transformers.utils.logging.disable_progress_bar()
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(path, padding_side="left")
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                path,
                dtype=getattr(torch, dtype or ("float32" if hardware.device == "cpu" else hardware.dtype)),
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines() or ["no message"]
            raise ModelError(f"{path}: transformers cannot load it ({reason[0]:.300})") from None
        self._model.to(hardware.device)
        self._adopt(model, max_model_len, batch_size)

    @classmethod
    def around(
        cls, model: Any, tokenizer: Any, *, name: str, max_model_len: int = MAX_MODEL_LEN, batch_size: int = 8
    ) -> TransformersEngine:
        """Return an engine over a model that is loaded already, such as one in training; see `__init__`.

        The model is left on its device; `generate` sees it as it is at each call.
        """
        engine = cls.__new__(cls)
        engine._model, engine.tokenizer = model, tokenizer
        engine._adopt(name, max_model_len, batch_size)
        return engine

    def _adopt(self, name: str, max_model_len: int, batch_size: int) -> None:
        import transformers

        self.name = name
        self._model.eval()
        # Sampling settings that a model ships with (temperature, top-p) must not change an answer.
        self._model.generation_config = transformers.GenerationConfig(
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id
            if self.tokenizer.pad_token_id is not None
            else self.tokenizer.eos_token_id,
        )
        longest = getattr(self._model.config, "max_position_embeddings", max_model_len)
        self.max_model_len = min(max_model_len, int(longest))
        self._batch_size = batch_size

    def stream(self, requests: Iterable[Request], plan: Plan) -> Iterator[tuple[int, Generation]]:
        """Yield (key, generation) batch by batch, in order. See `Engine`."""
        waiting = iter(requests)
        while batch := list(islice(waiting, self._batch_size)):
            yield from zip((request.key for request in batch), self._generate(batch, plan), strict=True)

    def _generate(self, batch: list[Request], plan: Plan) -> list[Generation]:
        prompts = [list(request.prompt) for request in batch]
        if plan.schema is not None:
            return [
                Generation(error="transformers has no structured outputs; use --decoding set or the engine vllm")
            ] * len(prompts)
        import torch

        longest = max(map(len, prompts))
        pad = self._model.generation_config.pad_token_id
        padded = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts], device=self._model.device)
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=padded.device)
        max_tokens = plan.max_tokens - len(plan.prefix)
        end = self.tokenizer.eos_token_id
        processors = []
        if plan.constraint is not None:
            from hangtag.engines.transformers_processor import TagLogitsProcessor

            processors.append(
                TagLogitsProcessor(
                    plan.constraint,
                    prompt_length=longest,
                    end_token=end,
                    max_tokens=max_tokens,
                    limits=plan.limits,
                    prefix=plan.prefix,
                    evidence=[request.evidence for request in batch],
                )
            )
        with torch.inference_mode():
            output = self._model.generate(
                padded,
                attention_mask=mask,
                logits_processor=processors,
                do_sample=plan.temperature > 0,
                temperature=plan.temperature or None,
                min_new_tokens=plan.exact_tokens,
                max_new_tokens=plan.exact_tokens or max_tokens + 1,
                return_dict_in_generate=True,
                output_scores=True,
            )
        written = output.sequences[:, longest:]
        # One softmax a step over what the constraint left; -inf elsewhere counts nothing.
        logprobs = torch.stack(
            [
                scores.float().log_softmax(-1).gather(-1, written[:, step, None])[:, 0]
                for step, scores in enumerate(output.scores)
            ],
            dim=1,
        )
        return [_until(end, ids, probs) for ids, probs in zip(written.tolist(), logprobs.tolist(), strict=True)]


def _until(end: int, ids: list[int], logprobs: list[float]) -> Generation:
    length = ids.index(end) if end in ids else len(ids)
    return Generation(token_ids=ids[:length], logprobs=logprobs[:length])
