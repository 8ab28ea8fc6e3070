"""Taggers without a language model: what one has to beat."""
