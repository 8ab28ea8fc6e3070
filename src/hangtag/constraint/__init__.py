"""Set-correct decoding: answers that are always a legal set of the vocabulary's tags."""

from hangtag.constraint.answer import Scored
from hangtag.constraint.automaton import State
from hangtag.constraint.compiled import TagConstraint
from hangtag.constraint.evidence import Evidence
from hangtag.constraint.limits import Limits
from hangtag.constraint.schema import ParsedAnswer, answer_schema, parse_answer
from hangtag.constraint.spelling import PieceTokenizer, Spelling

__all__ = [
    "Evidence",
    "Limits",
    "ParsedAnswer",
    "PieceTokenizer",
    "Scored",
    "Spelling",
    "State",
    "TagConstraint",
    "answer_schema",
    "parse_answer",
]
