"""Tagging whole catalogues: what is read, remembered and written, so that a run survives anything.

files        the files that a catalogue consists of; rows: what they hold, from any row on
chunks       rows with their keys, read ahead in a thread
keys         the hash that decides whether a tagging must be made again; context: what goes into it
answers      taggings as Arrow columns
parts        the files of an edition; durable: how they are written whole or not at all
ledger       SQLite: which parts are done, and taggings of the part in flight
key_index    on disk: where the tagging of a key stands
writer       whole parts to files and ledger, in a thread
output       the output folder: its lock, its editions, what of it is lost
edition      the run itself: one pass over a catalogue
finish       which edition a command goes on with, and what closes it; statistics: what it looks like
rejoin       an edition beside its input, for join (the catalogue with tags) and review (accept or ask people)
batch_files  requests in the OpenAI batch format
"""
