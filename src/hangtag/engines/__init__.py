"""Engines that run a language model, and the constraint in each. Importing this package loads none."""
