"""How a request to vLLM asks for the constraint: the keys, their check, and the answer's first state.

The keys stand in `SamplingParams.extra_args` or, over HTTP, in `vllm_xargs`, which admits text, numbers and
lists of them:

    hangtag               the constraint: its digest, the path of its file, or a registered name
    hangtag_min_tags      fewest tags, default 0
    hangtag_max_tags      most tags, default any number
    hangtag_only_facets   list of facets; tags of others are not given; default all
    hangtag_facets        JSON text with limits by facet, `{"colour": {"min": 0, "max": 1}}`, in place of the
                          vocabulary's own
    hangtag_with_parents  1: a tag's parents come with it; default 0
    hangtag_evidence      scores of the tags and of the end, as `Evidence.to_text` writes them; for a request of
                          several prompts a list, each entry after its prompt's digest (`evidence_argument`)
    hangtag_prefix        how many tokens of the answer the prompt already ends with, default 0

Registered names are the keys of the JSON object (name to path, relative to that file) in the file that the
environment variable HANGTAG_CONSTRAINTS names. Where it is set, requests cannot give paths.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hangtag.constraint import Evidence, Limits, State, TagConstraint
from hangtag.errors import ConstraintError
from hangtag.home import hangtag_home
from hangtag.vocabulary import FacetLimits

KEY = "hangtag"
MIN_TAGS, MAX_TAGS, ONLY_FACETS = "hangtag_min_tags", "hangtag_max_tags", "hangtag_only_facets"
FACETS, WITH_PARENTS = "hangtag_facets", "hangtag_with_parents"
EVIDENCE, PREFIX = "hangtag_evidence", "hangtag_prefix"
KEYS = (KEY, MIN_TAGS, MAX_TAGS, ONLY_FACETS, FACETS, WITH_PARENTS, EVIDENCE, PREFIX)
REGISTER_VARIABLE = "HANGTAG_CONSTRAINTS"

# Parameters that forbid or force tokens regardless of the constraint: together they may leave no token at all.
_CONFLICTING = (
    "allowed_token_ids",
    "bad_words",
    "ignore_eos",
    "min_tokens",
    "repetition_detection",
    "structured_outputs",
    "thinking_token_budget",
    "trace_decode_token_ids",
)
_FACET_LIMITS = TypeAdapter(dict[str, FacetLimits])
_DIGEST = re.compile("[0-9a-f]{64}")
_CONSTRAINTS_KEPT = 16
_OPENINGS_KEPT = 512


@dataclass(frozen=True)
class Opening:
    """An admitted request's constraint and the state of its answer before the first generated token.

    Openings are shared between requests: `constraint.fork(state)` before advancing.
    """

    constraint: TagConstraint
    state: State


def to_arguments(
    constraint: TagConstraint | str, limits: Limits | None = None, *, num_prefix: int = 0
) -> dict[str, str | int | list[str]]:
    """Return what goes into `extra_args` or `vllm_xargs`.

    A constraint goes by its digest if its file is in hangtag's home, else by its path; text goes as it is (a
    name that the server registers).

    Raises:
        ConstraintError: the constraint has no file, so no other process could load it.
    """
    limits = limits or Limits()
    arguments: dict[str, str | int | list[str]] = {
        KEY: constraint if isinstance(constraint, str) else _reference(constraint)
    }
    if limits.min_tags:
        arguments[MIN_TAGS] = limits.min_tags
    if limits.max_tags is not None:
        arguments[MAX_TAGS] = limits.max_tags
    if limits.only_facets is not None:
        arguments[ONLY_FACETS] = sorted(limits.only_facets)
    if limits.facets is not None:
        arguments[FACETS] = facet_arguments(limits.facets)
    if limits.with_parents:
        arguments[WITH_PARENTS] = 1
    if num_prefix:
        arguments[PREFIX] = num_prefix
    return arguments


def evidence_argument(evidence: Sequence[Evidence], prompts: Sequence[Sequence[int]]) -> str | list[str]:
    """Return what goes into `EVIDENCE` for a request of these prompts, each with its own evidence."""
    if len(prompts) == 1:
        return evidence[0].to_text()
    return [f"{_prompt_digest(ids)}:{one.to_text()}" for one, ids in zip(evidence, prompts, strict=True)]


def read_opening(params: Any, *, room: int | None = None, prompt: Sequence[int] | None = None) -> Opening | None:
    """Return how the answer of a request with these SamplingParams begins, None if it asks for no constraint.

    `prompt`, in token ids, chooses among the evidence for several; without it, that of the first one counts.
    `room` is the number of tokens that the engine can generate after the prompt whatever `max_tokens` says.
    One token of `max_tokens` and `room` is kept for the end-of-text token, unless the request stops at the
    constraint's `stop_token` (`stop_token_ids`).

    Raises:
        ConstraintError: an argument is unknown, wrong, or contradicts another parameter; the constraint cannot
            be loaded; or no legal answer fits.
    """
    extra: Mapping[str, Any] = params.extra_args or {}
    arguments = {name: value for name, value in extra.items() if name.startswith(KEY)}
    if not arguments:
        return None
    check_names(arguments)
    if KEY not in arguments:
        raise ConstraintError(
            f"{min(arguments)}: no constraint is named; give its digest, path or name as {KEY!r}"
        )
    for name in _CONFLICTING:
        if getattr(params, name, None):
            raise ConstraintError(f"{name} cannot be combined with {KEY!r}; leave one of them out")
    evidence = arguments.pop(EVIDENCE, None)
    try:
        text = json.dumps(arguments, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConstraintError(f"arguments must be plain JSON values ({error})") from None
    path = _constraint_file(arguments[KEY])
    version = _version(path)
    budgets = [number for number in (params.max_tokens, room) if number is not None]
    budget = min(budgets, default=None)
    if budget is not None and _load(path, version).stop_token not in (params.stop_token_ids or ()):
        budget -= 1
    opening = _opening(text, path, version, budget)
    if evidence is None:
        return opening
    scores = Evidence.from_text(_evidence_of(prompt, evidence), len(opening.constraint.names))
    return Opening(opening.constraint, opening.constraint.weighed(opening.state, scores))


def _evidence_of(prompt: Sequence[int] | None, given: Any) -> Any:
    if not isinstance(given, list):
        return given
    entries = [entry.partition(":")[::2] if isinstance(entry, str) else ("", "") for entry in given]
    wanted = entries[0][0] if prompt is None and entries else _prompt_digest(prompt or ())
    found = next((text for digest, text in entries if digest == wanted), None)
    if found is None:
        raise ConstraintError(f"{EVIDENCE}: a list of {len(entries)}, none of them for this prompt")
    return found


def _prompt_digest(prompt: Sequence[int]) -> str:
    return hashlib.blake2b(array("q", prompt).tobytes(), digest_size=8).hexdigest()


def facet_arguments(facets: Mapping[str, FacetLimits]) -> str:
    """Return limits by facet as the argument FACETS takes them."""
    return _FACET_LIMITS.dump_json(dict(facets)).decode()


def check_names(arguments: Iterable[str]) -> None:
    """Return if every argument is one of KEYS. Raises ConstraintError: one is not."""
    for name in arguments:
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(KEYS)}"
            raise ConstraintError(f"unknown argument {name!r:.80}; {hint}")


def read_limits(given: Mapping[str, Any]) -> Limits:
    """Return the limits that these arguments ask for. Raises ConstraintError: an argument is unknown or wrong."""
    check_names(given)
    only = given.get(ONLY_FACETS)
    if only is not None and not (isinstance(only, list) and all(isinstance(name, str) for name in only)):
        raise ConstraintError(f"{ONLY_FACETS}: got {only!r:.80}, expected a list of facets")
    with_parents = given.get(WITH_PARENTS, 0)
    if with_parents not in (0, 1) or isinstance(with_parents, float):
        raise ConstraintError(f"{WITH_PARENTS}: got {with_parents!r:.80}, expected 0 or 1")
    return Limits(
        min_tags=_count(given, MIN_TAGS, 0),
        max_tags=_count(given, MAX_TAGS, 0) if given.get(MAX_TAGS) is not None else None,
        facets=_facet_limits(given.get(FACETS)),
        only_facets=None if only is None else frozenset(only),
        with_parents=bool(with_parents),
    )


@lru_cache(_OPENINGS_KEPT)
def _opening(arguments: str, path: Path, version: tuple[int, int], budget: int | None) -> Opening:
    given = json.loads(arguments)
    constraint = _load(path, version)
    limits = read_limits(given)
    num_prefix = _count(given, PREFIX, 0)
    total = None if budget is None else budget + num_prefix
    state = constraint.start(max_tokens=total, limits=limits)
    forced = constraint.forced(state) if num_prefix else []
    if num_prefix > len(forced):
        # Later tokens could be of any answer; taking them from the prompt could fail only after admission.
        raise ConstraintError(
            f"{PREFIX}: got {num_prefix}, but only the first {len(forced)} tokens are the same in every answer"
        )
    for token in forced[:num_prefix]:
        constraint.advance(state, token)
    return Opening(constraint, state)


@lru_cache(_CONSTRAINTS_KEPT)
def _load(path: Path, _version: tuple[int, int]) -> TagConstraint:
    return TagConstraint.load(path)


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        raise ConstraintError(f"{KEY}: there is no constraint {path.stem!r}; compile it, or correct it") from None
    return status.st_mtime_ns, status.st_size


def _constraint_file(reference: Any) -> Path:
    if not isinstance(reference, str) or not reference:
        raise ConstraintError(f"{KEY}: got {reference!r:.80}, expected a digest, a path or a registered name")
    register = os.environ.get(REGISTER_VARIABLE)
    names = _registered(Path(register)) if register else {}
    if reference in names:
        return names[reference]
    if _DIGEST.fullmatch(reference):
        return _cached_file(reference)
    if register:
        known = ", ".join(sorted(names)) or "none"
        raise ConstraintError(f"{KEY}: got {reference!r:.80}, expected one of the registered names: {known}")
    return Path(reference)


def _cached_file(digest: str) -> Path:
    return hangtag_home() / "constraints" / f"{digest}.constraint"


def _registered(register: Path) -> dict[str, Path]:
    try:
        names = json.loads(register.read_text(encoding="utf-8"))
        return {str(name): register.parent / path for name, path in names.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConstraintError(
            f"{REGISTER_VARIABLE}: {register} is not a JSON object of names and paths ({error})"
        ) from None


def _reference(constraint: TagConstraint) -> str:
    if constraint.path is None:
        raise ConstraintError(
            "the constraint is not in a file; compile it with a cache folder that can be written"
        )
    path = constraint.path
    return constraint.digest if path == _cached_file(constraint.digest) else str(path.resolve())


def _facet_limits(text: Any) -> dict[str, FacetLimits] | None:
    if text is None:
        return None
    try:
        return _FACET_LIMITS.validate_json(text if isinstance(text, str) else b"")
    except ValidationError:
        raise ConstraintError(
            f'{FACETS}: got {text!r:.80}, expected JSON text such as {{"colour": {{"min": 0, "max": 1}}}}'
        ) from None


def _count(given: Mapping[str, Any], name: str, default: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConstraintError(f"{name}: got {value!r:.80}, expected a whole number from 0")
    return value
