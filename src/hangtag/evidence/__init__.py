"""What is known of a product's tags beside the language model: scores from cheap sources, and how they are weighed.

Importing this package loads no heavy library.
"""
