"""Yan et al., "GL-RG: Global-Local Representation Granularity for Video Captioning", eq. 4-11.

What is called official is what the authors' published code does.

Where the digest leaves the join of F with the embedding open, the method's card decides: one linear layer per range, ReLU,
one linear layer to the width of a word; and, with normalise=true, each vector of probabilities standardised by itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from oracles.arithmetic import BOS, EOS, Parameters, Vector, affine, lstm
from oracles.search import Hypothesis, NextLogP


def level(scores: Vector) -> Vector:
    """A vector of probabilities, less its mean, over its deviation (variance + 1e-5 under the root)."""
    mean = sum(float(x) for x in scores) / len(scores)
    variance = sum((float(x) - mean) ** 2 for x in scores) / len(scores)
    return np.array([(float(x) - mean) / math.sqrt(variance + 1e-5) for x in scores])


def fuse(p: Parameters, scores: Mapping[str, Vector], order: Sequence[str]) -> Vector:
    """F of eq. 4, [phi_W(W) ; phi_A(A) ; phi_C(C)], then the map to the width of a word."""
    parts = [affine(p[f"phi_{name}"], scores[name], p[f"b_{name}"]) for name in order]
    joined = [max(float(value), 0.0) for part in parts for value in part]
    return affine(p["W_join"], np.array(joined), p["b_join"])


def official_fuse(p: Parameters, scores: Mapping[str, Vector], order: Sequence[str]) -> Vector:
    """F of the authors' code: one linear layer over all probabilities, ReLU."""
    joined = [float(value) for name in order for value in scores[name]]
    return np.array([max(float(value), 0.0) for value in affine(p["W_pool"], np.array(joined), p["b_pool"])])


def decode(p: Parameters, fused: Vector, words: Sequence[int], feed: str = "first") -> list[Vector]:
    """Logits x_1 .. x_{n+1}: eq. 5-7 with the truth fed back (xi = 1).

    With `feed` = every, F stands beside every word from BOS on, as the authors' code has it.
    """
    width = len(p["b_i"])
    h, c = np.zeros(width), np.zeros(width)
    logits = []
    for step, previous in enumerate([BOS, *words]):
        word = p["E"][previous]
        if feed == "every":
            inputs = [word, fused]
        else:
            inputs = [fused if step == 0 else word]  # eq. 6: i = 1 is F itself
        h, c = lstm(p, inputs, h, c)  # eq. 5
        logits.append(affine(p["W_o"], h, p.get("b_out")))  # eq. 7: no bias; the authors' code has one
    return logits


def discrepant(losses: Sequence[float], weights: Sequence[float]) -> float:
    """L_DXE of G captions of one video, eq. 8, from -log p of each and m(S) of each."""
    total = 0.0
    for loss, weight in zip(losses, weights, strict=True):
        total += weight * loss
    return total / len(losses)


def consensus(captions: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, float]:
    """m(S) of eq. 8 with CIDEr-D: each caption, (id, text as published), against all others of its clip, raw and by id.

    For the i-th caption of a clip the document frequencies are those of all clips without their i-th captions.
    """
    found = {}
    for clip, own in captions.items():
        for place, (name, text) in enumerate(own):
            left = {
                other: [text.split() for number, (_, text) in enumerate(texts) if number != place]
                for other, texts in captions.items()
            }
            found[name] = cider_d(text.split(), left[clip], list(left.values()))
    return found


def cider_d(
    words: Sequence[str], references: Sequence[Sequence[str]], clips: Sequence[Sequence[Sequence[str]]]
) -> float:
    """CIDEr-D of one caption, 0 to 10: clipped tf-idf cosine, a Gaussian of sigma 6 on the difference in bigrams."""

    def counts(sentence: Sequence[str], n: int) -> dict[tuple[str, ...], int]:
        seen: dict[tuple[str, ...], int] = {}
        for start in range(len(sentence) - n + 1):
            gram = tuple(sentence[start : start + n])
            seen[gram] = seen.get(gram, 0) + 1
        return seen

    def vector(sentence: Sequence[str], n: int) -> dict[tuple[str, ...], float]:
        values = {}
        for gram, count in counts(sentence, n).items():
            clips_with = sum(any(gram in counts(one, n) for one in texts) for texts in clips)
            values[gram] = count * (math.log(len(clips)) - math.log(max(1, clips_with)))
        return values

    total = 0.0
    for n in range(1, 5):
        for reference in references:
            mine, theirs = vector(words, n), vector(reference, n)
            product = sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in mine.items())
            norms = math.sqrt(sum(v * v for v in mine.values())) * math.sqrt(sum(v * v for v in theirs.values()))
            difference = max(len(words) - 1, 0) - max(len(reference) - 1, 0)
            if norms > 0:
                total += product / norms * math.exp(-(difference**2) / 72) / len(references)
    return total / 4 * 10


def official_mean(losses: Sequence[float], weights: Sequence[float], lengths: Sequence[int]) -> float:
    """XE (weights of one) and DXE of the authors' code, from -log p of each caption: over the words of the whole batch."""
    total = words = 0.0
    for loss, weight, length in zip(losses, weights, lengths, strict=True):
        total += weight * loss
        words += length
    return total / words


def truth(schedule: str, epochs: int) -> list[float]:
    """The chance of xi = 1 (eq. 6) in each epoch, by twentieths: from zero to one and back, or from one to three quarters."""
    twentieths, rising = (0, True) if schedule == "paper" else (20, False)
    floor = 0 if schedule == "paper" else 15
    chances = []
    for _ in range(epochs):
        chances.append(twentieths / 20)
        if rising and twentieths < 20:
            twentieths += 1
        else:
            rising = False
            twentieths = max(twentieths - 1, floor)
    return chances


Baseline = Callable[[Sequence[float]], Sequence[float]]
"""b of each drawn caption of a clip, from the rewards of all of them."""


def best_of(rewards: Sequence[float], count: int | None, highest: bool = True) -> list[float]:
    """b2: the mean of the `count` best rewards (all without it), the same for every caption of the clip."""
    left, taken = list(rewards), []
    while left and (count is None or len(taken) < count):
        one = max(left) if highest else min(left)
        left.remove(one)
        taken.append(one)
    return [sum(taken) / len(taken)] * len(rewards)


def mean_of_others(rewards: Sequence[float]) -> list[float]:
    """The leave-one-out mean."""
    return [(sum(rewards) - own) / (len(rewards) - 1) for own in rewards]


def expected_advantages(p: Sequence[float], rewards: Sequence[float], drawn: int, baseline: Baseline) -> list[float]:
    """For each caption S of a language, E[r(S) - b | S is the first of `drawn` captions of the clip], over all the others.

    The gradient of eq. 10 with this baseline is on average -sum_S p(S) E[r(S) - b | S] grad log p(S).
    """
    expected = []
    for own in range(len(p)):
        total = 0.0
        for others in itertools.product(range(len(p)), repeat=drawn - 1):
            chance = 1.0
            for other in others:
                chance *= p[other]
            seen = [rewards[own], *(rewards[other] for other in others)]
            total += chance * (rewards[own] - baseline(seen)[0])
        expected.append(total)
    return expected


def official_policy_loss(
    drawn: Sequence[Sequence[int]], log_p: Sequence[Sequence[float]], gain: Sequence[float]
) -> float:
    """-(r - b) log p as the authors' code averages it: over all drawn words whose predecessor is not an end mark."""
    total = words = 0.0
    for caption, values, advantage in zip(drawn, log_p, gain, strict=True):
        for place, value in enumerate(values):
            if place == 0 or caption[place - 1] != EOS:
                total -= advantage * value
                words += 1
    return total / words


def official_beam(next_log_p: NextLogP, words: Sequence[int], steps: int, wide: int) -> list[Hypothesis]:
    """What the authors' beam puts aside, by perplexity, best first: hypotheses with all that follows their end marks."""
    beams: list[Hypothesis] = [((), 0.0)]
    aside: list[tuple[float, Hypothesis]] = []
    for step in range(1, steps + 1):
        grown = []
        for prefix, score in beams:
            log_p = next_log_p(prefix)
            grown += [((*prefix, word), score + log_p[word]) for word in (EOS, *words)]
        beams = sorted(grown, key=lambda one: -one[1])[:wide]
        for hypothesis in beams:
            if hypothesis[0][-1] == EOS or step == steps:
                perplexity = math.exp(-hypothesis[1] / (step - 1)) if step > 1 else 10_000.0
                aside.append((perplexity, hypothesis))
    return [hypothesis for _, hypothesis in sorted(aside, key=lambda one: one[0])]


def word_network(p: Parameters, frames: Sequence[Vector]) -> Vector:
    """The long range from frames: two convolutions over three frames, mean and maximum over time, one dense layer."""

    def convolve(values: Sequence[Vector], weight: Vector, bias: Vector) -> list[Vector]:
        after = []
        for t in range(len(values)):
            x = bias.copy()
            for tap, place in enumerate((t - 1, t, t + 1)):
                if 0 <= place < len(values):
                    x = x + affine(weight[:, :, tap], values[place])
            after.append(np.maximum(x, 0.0))
        return after

    x = convolve(convolve(frames, p["first"], p["b_first"]), p["second"], p["b_second"])
    mean = [sum(float(v[k]) for v in x) / len(x) for k in range(len(x[0]))]
    peak = [max(float(v[k]) for v in x) for k in range(len(x[0]))]
    return affine(p["dense"], np.array(mean + peak), p["b_dense"])
