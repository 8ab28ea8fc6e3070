"""Tagging whole catalogues: what is read, remembered and written, so that a run survives anything.

rows        catalogue files, row by row, from any row on
keys        what a tagging was made from: the hash that decides whether it must be made again
answers     taggings as Arrow columns
parts       files of an edition, written so that they are whole or absent
ledger      SQLite: which parts are done, and taggings of the part in flight
key_index   on disk: where the tagging of a key stands
edition     the run itself: one pass over a catalogue
"""
