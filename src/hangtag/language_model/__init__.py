"""Tagging with a language model, whatever the engine: its prompt, its tokens, its confidence, its run."""
