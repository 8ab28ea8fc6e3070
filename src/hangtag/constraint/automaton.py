"""The automaton: which token may come next in a partly written answer.

An answer moves through five modes. WORD follows tokens that have no alternative; FORK stands where the
answer goes on or ends; ROOT before a tag; NODE inside the tags that share what was written so far; DONE.
Where a tag ends that begins longer ones, the state carries a second one, in which the tag is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hangtag.constraint.availability import Choice
from hangtag.constraint.evidence import Evidence, Floats
from hangtag.constraint.limits import UNLIMITED, Tally
from hangtag.constraint.trie import Ints, TokenTrie
from hangtag.errors import ConstraintError

WORD, FORK, ROOT, NODE, DONE = range(5)
_NOTHING: Ints = np.zeros(0, np.int32)


class Rules(Protocol):
    """Limits applied to tallies; see `FacetRules`."""

    def begin(self) -> Tally:
        """Return the tally of an empty answer."""
        ...

    def add(self, tally: Tally, position: int) -> None:
        """Count a tag in."""
        ...

    def choose(self, tally: Tally, budget: int) -> tuple[Choice, bool]:
        """Return what may be added and whether the answer may end."""
        ...


class State:
    """One partly written answer; made by `start`, changed by `advance`, read by anyone."""

    __slots__ = (
        "_after",
        "_at",
        "_budget",
        "_choice",
        "_depth",
        "_done_word",
        "_ended",
        "_evidence",
        "_mode",
        "_next_word",
        "_node",
        "_position",
        "_ranks",
        "_rules",
        "_tally",
        "_trie",
        "_word",
        "num_tokens",
    )

    def __init__(self, rules: Rules, tally: Tally, budget: int, choice: Choice) -> None:
        self._rules = rules
        self._evidence: Evidence | None = None
        self._tally = tally
        self._budget = budget
        self.num_tokens = 0
        self._mode = WORD
        self._word: Sequence[int] = ()
        self._at = 0
        self._after = FORK
        self._position = -1
        self._next_word: Sequence[int] = ()
        self._done_word: Sequence[int] = ()
        self._choice = choice
        self._trie: TokenTrie = choice.trie
        self._node = 0
        self._depth = 0
        self._ranks = _NOTHING
        self._ended: State | None = None

    @property
    def is_done(self) -> bool:
        """Whether the answer is complete."""
        return self._mode == DONE

    @property
    def tags(self) -> list[int]:
        """Vocabulary positions of the complete tags, in the order written."""
        return self._tally.tags.copy()

    @property
    def remaining(self) -> int | None:
        """Tokens left of `max_tokens`; None if there is no such limit."""
        left = self._budget - self.num_tokens
        return None if left > UNLIMITED // 2 else left

    def forget_prefix(self) -> None:
        """Count tokens from here on; what was written so far was no part of the answer's budget."""
        self._budget -= self.num_tokens
        self.num_tokens = 0
        if self._ended is not None:
            self._ended.forget_prefix()

    @property
    def evidence(self) -> Evidence | None:
        """What leads the answer, None where nothing does."""
        return self._evidence

    def weigh(self, evidence: Evidence) -> None:
        """Let `evidence` lead the answer from here on."""
        self._evidence = evidence
        if self._ended is not None:
            self._ended.weigh(evidence)

    def fork(self) -> State:
        """Return a state that goes its own way from here."""
        twin = State.__new__(State)
        twin._become(self)
        twin._tally = self._tally.copy()
        twin._ended = None if self._ended is None else self._ended.fork()
        return twin

    def _become(self, other: State) -> None:
        for name in State.__slots__:
            setattr(self, name, getattr(other, name))


@dataclass(frozen=True)
class Automaton:
    """The transitions over one spelling: its four words and the tries of first and later tags."""

    open: list[int]
    empty: list[int]
    separator: list[int]
    close: list[int]
    first: TokenTrie
    later: TokenTrie

    def check(self) -> None:
        """Return if every token sequence can be read in one way only.

        Raises:
            ConstraintError: what follows a tag could as well continue it.
        """
        follows = {self.close[0]}
        follows |= {self.separator[0]} if self.separator else set(self.later.root_tokens.tolist())
        for trie in (self.first, self.later):
            clash = follows & set(trie.after_ends().tolist())
            if clash:
                raise ConstraintError(
                    f"token {min(clash)} both continues a tag and follows one; the tokenizer cannot tell where a "
                    "tag ends, choose another model"
                )
        for going, ending, trie in (
            (self.open, self.empty, self.first),
            (self.separator, self.close, self.later),
        ):
            shared = _num_shared(going, ending)
            if shared == len(ending) or (shared == len(going) and trie.child_by(0, ending[shared]) >= 0):
                raise ConstraintError(
                    f"the tokens {ending} end an answer and also begin a tag; expected distinct tokens for both"
                )

    def start(self, rules: Rules, max_tokens: int | None) -> State:
        """Return the state before an answer's first token.

        Raises:
            ConstraintError: no legal answer fits into `max_tokens`.
        """
        budget = UNLIMITED if max_tokens is None else max_tokens
        tally = rules.begin()
        # The first tag follows `open` instead of a separator; `choose` counts a separator before every tag.
        choice, may_end = rules.choose(tally, budget - len(self.open) + len(self.separator))
        may_end = may_end and budget >= len(self.empty)
        if not choice and not may_end:
            raise ConstraintError(
                f"max_tokens: got {max_tokens}, but no legal answer is so short; raise it or widen the limits"
            )
        state = State(rules, tally, budget, choice)
        self._fork(state, choice, may_end, self.open, self.empty)
        return state

    def allowed(self, state: State) -> Ints:
        """Return the tokens that may come next, ascending; none for a finished answer. Do not write to it."""
        mode = state._mode
        if mode == NODE:
            tokens = self._children(state)
            if state._ended is not None:
                tokens = np.union1d(tokens, self.allowed(state._ended))
            return tokens
        if mode == WORD:
            return np.array([state._word[state._at]], np.int32)
        if mode == ROOT:
            return state._choice.ids
        if mode == FORK:
            end = state._done_word[0]
            if state._next_word:
                go = state._next_word[0]
                return np.array([go, end] if go < end else [end, go], np.int32)
            ids = state._choice.ids
            at = int(ids.searchsorted(end))
            return np.concatenate((ids[:at], np.array([end], np.int32), ids[at:]))
        return _NOTHING

    def bias(self, state: State) -> Floats | None:
        """Return the logarithm of each allowed token's share of the evidence, in the order of `allowed`.

        None where there is no evidence, or nothing to choose.
        """
        if state._evidence is None or state._mode not in (NODE, ROOT, FORK):
            return None
        return self._log_shares(state, state._evidence)

    def _log_shares(self, state: State, evidence: Evidence) -> Floats:
        """Return the logarithms of shares; they sum to one."""
        mode = state._mode
        if mode == NODE:
            return self._shares_in_node(state, evidence)
        if mode == WORD:
            return np.zeros(1)
        shares = evidence.below_roots(state._choice)
        if mode == FORK:
            end = state._done_word[0]
            if state._next_word:
                go = np.logaddexp.reduce(shares)
                shares = np.array([go, evidence.stop] if state._next_word[0] < end else [evidence.stop, go])
            else:
                shares = np.insert(shares, int(state._choice.ids.searchsorted(end)), evidence.stop)
        normal: Floats = shares - np.logaddexp.reduce(shares)
        return normal

    def _shares_in_node(self, state: State, evidence: Evidence) -> Floats:
        trie, node, ranks = state._trie, state._node, state._ranks
        bounds = ranks.searchsorted(trie.lo[trie.child[node] : trie.child[node + 1]])
        # A child without an available tag begins where the next one does, or behind the last rank.
        starts = np.unique(bounds[bounds < len(ranks)])
        shares, all_below = evidence.below(trie, ranks, starts)
        shares -= all_below
        if state._ended is None:
            return shares
        tag = float(evidence.scores[int(trie.order[ranks[0]])]) - all_below
        ended = self._log_shares(state._ended, evidence) + tag
        tokens = np.concatenate((self._children(state), self.allowed(state._ended)))
        joined: Floats = np.concatenate((shares, ended))[tokens.argsort()]
        return joined

    def advance(self, state: State, token: int) -> None:
        """Write `token`.

        Raises:
            ConstraintError: the token is not allowed; the state is as before.
        """
        mode = state._mode
        if mode == WORD:
            if token != state._word[state._at]:
                raise self._refused(state, token)
            state._at += 1
            state.num_tokens += 1
            if state._at == len(state._word):
                self._arrive(state, state._after)
        elif mode == NODE:
            self._descend(state, token)
        elif mode == FORK and token == state._done_word[0]:
            state.num_tokens += 1
            self._follow(state, state._done_word[1:], DONE)
        elif mode == FORK and state._next_word:
            if token != state._next_word[0]:
                raise self._refused(state, token)
            state.num_tokens += 1
            self._follow(state, state._next_word[1:], ROOT)
        elif mode in (ROOT, FORK):
            ranks = state._choice.below(token)
            if not ranks.size:
                raise self._refused(state, token)
            state.num_tokens += 1
            state._trie = state._choice.trie
            self._enter(state, state._trie.child_by(0, token), 1, ranks)
        else:
            raise self._refused(state, token)

    def forced(self, state: State) -> list[int]:
        """Return the tokens from here on that have no alternative, maybe none."""
        forced: list[int] = []
        ahead: State | None = None
        while True:
            current = ahead or state
            if current._mode == WORD:
                run = list(current._word[current._at :])
            else:
                tokens = self.allowed(current)
                if len(tokens) != 1:
                    return forced
                run = tokens.tolist()
            ahead = ahead or state.fork()
            for token in run:
                self.advance(ahead, token)
            forced += run

    def _children(self, state: State) -> Ints:
        trie, node, ranks = state._trie, state._node, state._ranks
        start, end = trie.child[node], trie.child[node + 1]
        tokens = trie.token[start:end]
        if len(ranks) == trie.hi[node] - trie.lo[node]:
            return tokens
        bounds = ranks.searchsorted(trie.lo[start:end])
        is_left = np.empty(len(bounds), bool)
        is_left[-1] = bounds[-1] < len(ranks)
        np.less(bounds[:-1], bounds[1:], out=is_left[:-1])
        left: Ints = tokens[is_left]
        return left

    def _descend(self, state: State, token: int) -> None:
        trie = state._trie
        node = trie.child_by(state._node, token)
        if node >= 0:
            low, high = state._ranks.searchsorted((trie.lo[node], trie.hi[node]))
            if low < high:
                state._ended = None
                state.num_tokens += 1
                self._enter(state, node, state._depth + 1, state._ranks[low:high])
                return
        ended = state._ended
        if ended is None:
            raise self._refused(state, token)
        self.advance(ended, token)
        state._become(ended)

    def _enter(self, state: State, node: int, depth: int, ranks: Ints) -> None:
        trie, rank = state._trie, int(ranks[0])
        if len(ranks) == 1:
            state._position = int(trie.order[rank])
            self._follow(state, trie.spelled(rank)[depth:], NODE)
            return
        state._mode, state._node, state._depth, state._ranks = NODE, node, depth, ranks
        if trie.lengths[rank] == depth:
            ended = state.fork()
            self._complete(ended, int(trie.order[rank]))
            state._ended = ended

    def _follow(self, state: State, word: Sequence[int], after: int) -> None:
        """Go along `word`, then to the mode `after`; NODE stands for the end of the tag `_position`."""
        if word:
            state._mode, state._word, state._at, state._after = WORD, word, 0, after
        else:
            self._arrive(state, after)

    def _arrive(self, state: State, mode: int) -> None:
        if mode == NODE:
            self._complete(state, state._position)
        else:
            state._mode = mode

    def _complete(self, state: State, position: int) -> None:
        state._ranks = _NOTHING
        rules = state._rules
        rules.add(state._tally, position)
        choice, may_end = rules.choose(state._tally, state._budget - state.num_tokens)
        self._fork(state, choice, may_end, self.separator, self.close)

    def _fork(
        self, state: State, choice: Choice, may_end: bool, next_word: list[int], done_word: list[int]
    ) -> None:
        state._choice = choice
        if not may_end:
            self._follow(state, next_word, ROOT)
        elif not choice:
            self._follow(state, done_word, DONE)
        else:
            shared = _num_shared(next_word, done_word)
            state._next_word, state._done_word = next_word[shared:], done_word[shared:]
            self._follow(state, next_word[:shared], FORK)

    def _refused(self, state: State, token: int) -> ConstraintError:
        allowed = self.allowed(state).tolist()
        shown = ", ".join(map(str, allowed[:8])) + (", …" if len(allowed) > 8 else "")
        return ConstraintError(
            f"token {token} is not allowed after {state.num_tokens} tokens of the answer; "
            f"expected {f'one of {shown}' if allowed else 'none, the answer is complete'}"
        )


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    number = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        number += 1
    return number
