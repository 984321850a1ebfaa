"""Versions of what makes a score, readable without numpy or Java: a record made with others is to be scored again."""

from __future__ import annotations

from collections.abc import Mapping

NUMPY = "bench-1"  # raised by hand if a number of the numpy metrics ever changes
METEOR = "meteor-1.5"
PTB = "ptb-3.4.1"

NAMES = {
    **{f"bleu{n}": (f"BLEU-{n}", NUMPY) for n in range(1, 5)},
    "meteor": ("METEOR", METEOR),
    "rouge_l": ("ROUGE-L", NUMPY),
    "cider": ("CIDEr-D", NUMPY),
}
"""Metric -> (name in signatures, implementation)."""


def outdated(signatures: Mapping[str, str]) -> list[str]:
    """Metrics whose signature names another implementation or tokenizer than this version's."""
    found = []
    for metric, signature in signatures.items():
        fields = dict(field.partition(":")[::2] for field in signature.split("|")[1:])
        now = {"impl": NAMES[metric][1] if metric in NAMES else None, "tok": PTB}
        if any(fields.get(name, version) != version for name, version in now.items()):
            found.append(metric)
    return found
