"""Versions of what makes a score, readable without numpy or Java: a record made with others is to be scored again."""

from __future__ import annotations

from collections.abc import Mapping

NUMPY = "bench-1"  # raised by hand if a number of the numpy metrics ever changes
METEOR = "meteor-1.5"
PTB = "ptb-3.4.1"
DENSEVID = "densevid_eval-2018"
PREFIX = "densevid_"  # of a metric's name where events were scored by densevid's rules

NAMES = {
    **{f"bleu{n}": (f"BLEU-{n}", NUMPY) for n in range(1, 5)},
    "meteor": ("METEOR", METEOR),
    "rouge_l": ("ROUGE-L", NUMPY),
    "cider": ("CIDEr-D", NUMPY),
}
"""Metric -> (name in signatures, implementation)."""


def outdated(signatures: Mapping[str, str]) -> list[str]:
    """Metrics whose signature names another implementation, tokenizer or rules than this version's."""
    found = []
    for metric, signature in signatures.items():
        fields = dict(field.partition(":")[::2] for field in signature.split("|")[1:])
        known = NAMES.get(metric.removeprefix(PREFIX))
        now = {"impl": known[1] if known else None, "tok": PTB, "rules": DENSEVID}
        if any(fields.get(name, version) != version for name, version in now.items()):
            found.append(metric)
    return found
