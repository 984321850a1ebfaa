"""Captions of a corpus: read from published files, checked, split, turned into tokens and batches."""
