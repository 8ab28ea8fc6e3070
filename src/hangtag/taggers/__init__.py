"""Taggers: one file for each foreign library. Importing this package loads none of them."""
