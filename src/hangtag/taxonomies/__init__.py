"""Taxonomies in their own formats, imported as vocabularies, exported and checked."""
