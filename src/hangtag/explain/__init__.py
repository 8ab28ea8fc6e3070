"""Why a tag: the spans of a product's text that speak for it, and what each adds.

Importing this package loads no heavy library.
"""
