"""Chat and text completions, the request: what a client's body asks for, and which parameters are open.

A request is a product: the one user message of a chat, the prompt (or each of several) of a completion. It
becomes a text completion of token ids under the constraint, in the form that its `response_format` asks for. Where
the server allows it, a request whose own format does not admit tags goes to vLLM as it is. Either way only the
parameters listed here are open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hangtag.endpoint.answer_format import AnswerFormat, read_format
from hangtag.endpoint.asgi import Refusal
from hangtag.endpoint.settings import EndpointSettings
from hangtag.endpoint.vocabularies import Ask, ServedVocabulary, Vocabularies, check_arguments, read_product
from hangtag.engines.vllm_arguments import KEY
from hangtag.product import Product

Kind = Literal["chat", "text"]

MAX_CHOICES, MAX_PROMPTS, MAX_LOGPROBS = 8, 256, 20
# Go on to vLLM, which checks them.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "n", "presence_penalty", "frequency_penalty")
# Read here.
_READ = ("model", "messages", "prompt", "stream", "stream_options", "logprobs", "top_logprobs", "max_tokens",
         "max_completion_tokens", "vllm_xargs", "response_format")  # fmt: skip
# Say nothing that could change an answer.
_IGNORED = ("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
            "parallel_tool_calls", "verbosity")  # fmt: skip
_OPEN_WITH_OWN_FORMAT = (*_SAMPLING, *_READ, *_IGNORED, "structured_outputs", "stop", "logit_bias",
                         "repetition_penalty")  # fmt: skip
_NO_FUNCTIONS = (
    "; it calls no functions: ask for JSON with a response_format of type json_schema "
    '(Instructor: Mode.JSON_SCHEMA, LangChain: method="json_schema", pydantic-ai: NativeOutput)'
)
# What to do instead of asking for a parameter that is not open.
_INSTEAD = {
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call"), _NO_FUNCTIONS),
    "structured_outputs": "; ask with a response_format of type json_schema, or start it with --allow-own-formats",
}
_ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class Completion:
    """A client's request, read: products and how to answer."""

    kind: Kind
    model: str
    vocabulary: ServedVocabulary
    ask: Ask
    format: AnswerFormat
    products: tuple[Product, ...]
    sampling: dict[str, Any]
    num_choices: int
    is_streamed: bool
    includes_usage: bool
    has_logprobs: bool
    num_top: int

    @property
    def num_answers(self) -> int:
        """How many answers vLLM writes."""
        return len(self.products) * self.num_choices


def is_passed_on(body: Mapping[str, Any], settings: EndpointSettings) -> bool:
    """Whether a request goes to vLLM as it is: the server allows that, and its own format does not admit tags."""
    if not settings.allow_own_formats:
        return False
    own = body.get("response_format")
    if body.get("structured_outputs") is not None or own == {"type": "text"}:
        return True
    try:
        read_format(own)
    except Refusal:
        return True
    return False


def check_own_format(body: dict[str, Any], kind: Kind, settings: EndpointSettings) -> int:
    """Return how many answers a request with its own format asks for, once it may go on to vLLM.

    Raises:
        Refusal: a parameter is not open, or would harm the server.
    """
    for name, value in body.items():
        if name not in _OPEN_WITH_OWN_FORMAT and value not in (None, [], {}, False):
            raise _not_open(name)
    for name in [name for name in body if name not in _OPEN_WITH_OWN_FORMAT]:
        del body[name]
    if body.get("vllm_xargs"):
        raise Refusal(400, "invalid", "vllm_xargs: tags and an own format exclude each other", param="vllm_xargs")
    _check_shapes(body, kind)
    _model(body, settings)
    _refuse_seed(body, settings, temperature=1.0)
    prompts = body.get("prompt")
    num_prompts = len(prompts) if kind == "text" and isinstance(prompts, list) else 1
    if num_prompts > MAX_PROMPTS:
        raise Refusal(400, "invalid", f"prompt: expected at most {MAX_PROMPTS}", param="prompt")
    _logprobs(body, kind)
    num_choices: int = _integer(body, "n", 1, 1, MAX_CHOICES)
    return num_choices * max(1, num_prompts)


def _check_shapes(body: dict[str, Any], kind: Kind) -> None:
    """Refuse what vLLM's own checks stumble over: it would answer with an error of the server."""
    for name in ("response_format", "structured_outputs", "stream_options", "logit_bias"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise Refusal(400, "invalid", f"{name}: expected an object", param=name)
    if kind == "text":
        prompts = body["prompt"] if isinstance(body.get("prompt"), list) else [body.get("prompt")]
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise Refusal(400, "invalid", "prompt: expected a text, or a list of them", param="prompt")
        return
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise Refusal(400, "invalid", "messages: expected a list of messages", param="messages")
    for message in messages:
        if message.get("role") not in _ROLES:
            raise Refusal(400, "invalid", f"messages: expected a role of {', '.join(_ROLES)}", param="messages")
        _text_of(message.get("content"))


def read_completion(
    body: Mapping[str, Any], kind: Kind, vocabularies: Vocabularies, settings: EndpointSettings
) -> Completion:
    """Return a client's request, read.

    Raises:
        Refusal: it is wrong; the message says what was expected.
    """
    for name, value in body.items():
        is_known = name in _SAMPLING or name in _READ or name in _IGNORED
        if not is_known and value not in (None, [], {}, False) and (name, value) not in _HARMLESS:
            raise _not_open(name)
    answer_format = read_format(body.get("response_format"))
    arguments = check_arguments(body.get("vllm_xargs"))
    vocabulary = vocabularies.choose((body.get("vllm_xargs") or {}).get(KEY))
    limit_name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = _integer(body, limit_name, None, 1, 1 << 31)
    num_choices = _integer(body, "n", 1, 1, MAX_CHOICES)
    has_logprobs, num_top = _logprobs(body, kind)
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise Refusal(400, "invalid", "stream_options: expected an object", param="stream_options")
    _refuse_seed(body, settings, temperature=0.0)
    sampling = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    if settings.is_cpu:
        # Greedy, so it changes nothing; but vLLM's CPU engine may die of it.
        sampling.pop("seed", None)
    sampling["logprobs"] = num_top
    return Completion(
        kind=kind,
        model=_model(body, settings),
        vocabulary=vocabulary,
        ask=_ask(vocabulary, arguments, max_tokens, answer_format),
        format=answer_format,
        products=_products(body, kind),
        sampling=sampling,
        num_choices=num_choices,
        is_streamed=_boolean(body, "stream"),
        includes_usage=_boolean(stream_options, "include_usage"),
        has_logprobs=has_logprobs,
        num_top=num_top,
    )


_HARMLESS = (("tool_choice", "none"), ("tool_choice", "auto"), ("repetition_penalty", 1), ("best_of", 1))


def _not_open(name: str) -> Refusal:
    message = f"{name:.80}: not open at this server{_INSTEAD.get(name, '')}"
    return Refusal(400, "invalid", message, param=name[:80])


def _ask(
    vocabulary: ServedVocabulary, arguments: dict[str, Any], max_tokens: int | None, answer_format: AnswerFormat
) -> Ask:
    ask = vocabulary.ask(arguments, max_tokens)
    narrower = answer_format.narrow(ask.limits, vocabulary.vocabulary)
    if not narrower:
        return ask
    try:
        return vocabulary.ask(arguments | narrower, max_tokens)
    except Refusal as refusal:
        message = f"response_format: no set of tags conforms to it: {refusal}"
        raise Refusal(400, "invalid", message, param="response_format") from None


def _products(body: Mapping[str, Any], kind: Kind) -> tuple[Product, ...]:
    param = "messages" if kind == "chat" else "prompt"
    contents: list[Any]
    if kind == "chat":
        messages = body.get("messages")
        if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
            got = f"{len(messages)} messages" if isinstance(messages, list) else "none"
            raise Refusal(
                400,
                "invalid",
                f"messages: got {got}, expected one, of role user: the product; the server brings the prompt",
                param=param,
            )
        if messages[0].get("role") != "user":
            raise Refusal(400, "invalid", "messages: expected the role user, with the product", param=param)
        contents = [_text_of(messages[0].get("content"))]
    else:
        prompt = body.get("prompt")
        contents = prompt if isinstance(prompt, list) else [prompt]
        if not 1 <= len(contents) <= MAX_PROMPTS or not all(isinstance(content, str) for content in contents):
            raise Refusal(
                400, "invalid", f"prompt: expected a product's text, or 1 to {MAX_PROMPTS} of them", param=param
            )
    products = []
    for number, content in enumerate(contents):
        try:
            products.append(read_product(content, number))
        except ValueError as error:
            raise Refusal(400, "invalid", f"{param}: {error}", param=param) from None
    return tuple(products)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(content):
            return "\n".join(texts)
    raise Refusal(400, "invalid", "messages: expected the product as text", param="messages")


def _model(body: Mapping[str, Any], settings: EndpointSettings) -> str:
    model = body.get("model", settings.names[0])
    if model is None:
        return settings.names[0]
    if model not in settings.names:
        names = ", ".join(settings.names)
        raise Refusal(404, "model", f"model: got {model!r:.80}, expected one of {names}", param="model")
    return str(model)


def _refuse_seed(body: Mapping[str, Any], settings: EndpointSettings, *, temperature: float) -> None:
    given = body.get("temperature")
    if settings.is_cpu and body.get("seed") is not None and (temperature if given is None else given) != 0:
        raise Refusal(
            400, "invalid", "seed: vLLM on a CPU takes none at a temperature above 0; leave it out", param="seed"
        )


def _integer(body: Mapping[str, Any], name: str, default: Any, low: int, high: int) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refusal(400, "invalid", f"{name}: got {value!r:.40}, expected {low} to {high}", param=name)
    return value


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, "invalid", f"{name}: got {value!r:.40}, expected true or false", param=name)
    return bool(value)


def _logprobs(body: Mapping[str, Any], kind: Kind) -> tuple[bool, int]:
    if kind == "text":
        number = _integer(body, "logprobs", None, 0, MAX_LOGPROBS)
        return number is not None, number or 0
    is_wanted = _boolean(body, "logprobs")
    number = _integer(body, "top_logprobs", 0, 0, MAX_LOGPROBS)
    if number and not is_wanted:
        raise Refusal(400, "invalid", "top_logprobs: expected logprobs: true beside it", param="top_logprobs")
    return is_wanted, number
