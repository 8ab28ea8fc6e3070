"""vLLM in this process: continuous batching and prefix caching over any number of products."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hangtag.engines.hardware import probe_hardware
from hangtag.engines.vllm_arguments import EVIDENCE, to_arguments
from hangtag.errors import EngineError, MissingExtra, ModelError
from hangtag.language_model.generative import Generation, Plan, Request
from hangtag.models import resolve_model

MAX_MODEL_LEN = 4096
MAX_IN_FLIGHT = 64
KV_CACHE_GIB = 2
CPU_STEP_TOKENS = 512
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def max_lora_rank(rank: int) -> int:
    """Return the least bound on ranks that vLLM takes and an adapter of this rank keeps."""
    return min((bound for bound in _LORA_RANKS if bound >= rank), default=rank)


class VllmEngine:
    """An engine over `vllm.LLM`, which is its `llm`. Starting it takes about half a minute on a CPU."""

    def __init__(
        self,
        model: str,
        *,
        dtype: str | None = None,
        max_model_len: int = MAX_MODEL_LEN,
        max_in_flight: int = MAX_IN_FLIGHT,
        adapter: str | Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Load `model` (a packaged name, a folder or a hub id).

        `dtype` None takes what `probe_hardware` finds faster. `max_model_len` is in tokens, `max_in_flight` in
        sequences; `adapter` is the folder of a LoRA adapter that every request uses; `options` go to `vllm.LLM`
        under vLLM's own names and win.

        Raises:
            MissingExtra: vllm is not installed.
            ModelError: vLLM cannot load the model.
        """
        path = resolve_model(model)
        hardware = probe_hardware()
        if hardware.device == "cpu":
            # Read once, when vllm is imported: GiB of the key-value cache, and warnings only.
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(KV_CACHE_GIB))
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        try:
            import transformers
            import vllm
        except ImportError as error:
            raise MissingExtra(str(error.name or "vllm"), "cpu") from error
        self.name = model
        settings: dict[str, Any] = {
            "dtype": dtype or hardware.dtype,
            "max_num_seqs": max_in_flight,
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",
            # Compilation takes two minutes on a CPU and gains little there.
            "enforce_eager": hardware.device == "cpu",
            "disable_log_stats": True,
            # With it, vLLM's V1 runner on a GPU withholds the written tokens that the constraint must follow.
            "async_scheduling": False,
        }
        if hardware.device == "cpu":
            # Steps of a second instead of ten: first answers come early, and throughput is the same.
            settings["max_num_batched_tokens"] = max(CPU_STEP_TOKENS, max_in_flight)
        self._lora = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            rank = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
            settings |= {"enable_lora": True, "max_lora_rank": max_lora_rank(rank), "max_loras": 1}
            self._lora = LoRARequest("adapter", 1, str(adapter))
        try:
            config = transformers.AutoConfig.from_pretrained(path)
            longest = getattr(config.get_text_config(), "max_position_embeddings", max_model_len)
            self.llm = vllm.LLM(
                model=path, **(settings | {"max_model_len": min(max_model_len, longest)} | (options or {}))
            )
        except (ValueError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()
            raise ModelError(f"{path}: vLLM cannot load it ({(reason or ['no message'])[-1]:.300})") from error
        self.dtype = str(self.llm.model_config.dtype).removeprefix("torch.")
        self._max_in_flight = 2 * max_in_flight
        self.tokenizer = self.llm.get_tokenizer()
        self.max_model_len = int(self.llm.model_config.max_model_len)

    def close(self) -> None:
        """End vLLM's processes; the engine is of no use afterwards."""
        self.llm.llm_engine.engine_core.shutdown()

    def stream(self, requests: Iterable[Request], plan: Plan) -> Iterator[tuple[int, Generation]]:
        """Yield (key, generation) as they finish; keeps the engine full. See `Engine`."""
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError

        engine = self.llm.llm_engine
        params = self.sampling_params(plan)
        waiting = iter(requests)
        in_flight: dict[str, int] = {}
        exhausted = False
        try:
            while not exhausted or in_flight:
                while not exhausted and len(in_flight) < self._max_in_flight:
                    request = next(waiting, None)
                    if request is None:
                        exhausted = True
                        break
                    key, prompt, evidence = request
                    own = params.clone()
                    if evidence is not None:
                        own.extra_args = {**own.extra_args, EVIDENCE: evidence.to_text()}
                    try:
                        engine.add_request(
                            str(key),
                            {"prompt_token_ids": list(prompt)},
                            own,
                            lora_request=self._lora,
                        )
                    except (ValueError, VLLMValidationError) as error:
                        yield key, Generation(error=f"vLLM refused the request: {error}")
                        continue
                    in_flight[str(key)] = key
                if not in_flight:
                    continue
                for output in engine.step():
                    if output.finished:
                        yield in_flight.pop(output.request_id), _generation(output.outputs[0], plan)
        except EngineDeadError as error:
            raise EngineError(f"vLLM died while it worked on {len(in_flight)} products: {error}") from error
        finally:
            if in_flight:
                engine.abort_request(list(in_flight))

    def sampling_params(self, plan: Plan) -> Any:
        """Return a plan in vLLM's terms."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        params: dict[str, Any] = {
            "temperature": plan.temperature,
            "max_tokens": plan.max_tokens - len(plan.prefix),
            "detokenize": False,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        if plan.exact_tokens is not None:
            params |= {"max_tokens": plan.exact_tokens, "ignore_eos": True}
        if plan.constraint is not None:
            arguments = to_arguments(plan.constraint, plan.limits, num_prefix=len(plan.prefix))
            params |= {"logprobs": 0, "extra_args": arguments}
            if plan.constraint.stop_token is None:
                params["max_tokens"] += 1
            else:
                # Stopping at the closing saves the step that would write the end of the text.
                params["stop_token_ids"] = [plan.constraint.stop_token]
        elif plan.schema is not None:
            params["structured_outputs"] = StructuredOutputsParams(json=plan.schema, disable_any_whitespace=True)
        return SamplingParams(**params)


def _generation(output: Any, plan: Plan) -> Generation:
    ids = list(output.token_ids)
    logprobs = [step[token].logprob for token, step in zip(ids, output.logprobs or (), strict=False)]
    if plan.constraint is not None and output.finish_reason == "stop" and output.stop_reason is None:
        # The end of the text is no part of the answer.
        ids, logprobs = ids[:-1], logprobs[:-1]
    return Generation(token_ids=ids, logprobs=logprobs)
