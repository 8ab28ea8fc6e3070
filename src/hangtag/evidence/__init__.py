"""What is known of a product's tags beside the language model: scores from cheap sources, and their weights.

Importing this package loads no heavy library.
"""
