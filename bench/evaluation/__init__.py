"""Metrics: exact, vectorised, and with clients of the two Java programs that cannot outlive or hang a run.

`metrics` is their table, and the file of each provides a `COUNTING`; `scorer` scores a split as the papers do. `cider`, `bleu`,
`rouge` and `ngrams` need numpy alone, so a machine without Java can train with rewards and select epochs. The metrics agree
with pycocoevalcap 1.2, bugs included.
"""
