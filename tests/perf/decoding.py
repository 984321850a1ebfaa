"""Beam search over many clips at once against one hypothesis at a time.

The captioner has first learned ten captions of seven words in the mean by heart, so that clips leave the batch as early as in
earnest.
"""

from __future__ import annotations

from statistics import fmean

import torch
from torch import nn

from bench.method import BOS, EOS, Batch, Search
from bench.nn.beam import NEVER, beam_search
from bench.nn.captioners import SoftAttention
from bench.nn.decoding import Memory, State, cross_entropy, teacher_forcing, word_losses
from tests.perf.generated import MSVD, WORDS, teachable, vocabulary
from tests.perf.rows import Row
from tests.perf.timing import operations, product_rate, seconds
from tests.perf.training import soft_attention

LESSONS = 80  # steps after which the captions are known
PLAIN_CLIPS = 10  # the slow way is timed on these


@torch.inference_mode()
def plain_beam(captioner: SoftAttention, one: Batch, search: Search) -> list[tuple[int, ...]]:
    """Words of the best caption of every clip: every hypothesis by itself, every word a call, scores in lists."""
    memory_C = captioner.encode(one)
    best = []
    for clip in range(len(one.clip_ids)):
        memory: Memory = {name: value[clip : clip + 1] for name, value in memory_C.items()}
        beams: list[tuple[tuple[int, ...], float, State]] = [((), 0.0, captioner.start(memory))]
        for word in range(search.max_words + 1):
            grown: list[tuple[tuple[int, ...], float, State]] = []
            for words, score, state in beams:
                if words and words[-1] == EOS:
                    grown.append((words, score, state))
                    continue
                last = torch.tensor([words[-1] if words else BOS])
                features, after, _ = captioner.step(last, state, memory)
                log_p = torch.log_softmax(captioner.logits(features), -1)[0]
                log_p[list(NEVER)] = float("-inf")
                if word == search.max_words:
                    grown.append(((*words, EOS), score + log_p[EOS].item(), after))
                    continue
                values, ids = log_p.topk(search.beam)
                pairs = zip(values.tolist(), ids.tolist(), strict=True)
                grown += [((*words, one_word), score + value, after) for value, one_word in pairs]
            beams = sorted(grown, key=lambda hypothesis: -hypothesis[1])[: search.beam]
            if all(words[-1] == EOS for words, _, _ in beams):
                break
        best.append(beams[0][0][:-1])
    return best


def taught(
    words: int = WORDS, width: int = 512, frames: int = 1536, steps: int = 28, lessons: int = LESSONS
) -> SoftAttention:
    """A captioner that knows the captions of `teachable` clips of [steps, frames] features."""
    torch.manual_seed(0)
    made = soft_attention(width, words, frames)
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    for lesson in range(lessons):
        one = teachable({"frames": (steps, frames)}, 40, words, seed=lesson)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(word_losses(made, teacher_forcing(made, one))).backward()
        nn.utils.clip_grad_norm_(made.parameters(), 5.0)
        optimizer.step()
    return made.eval()


def rows(threads: int, clips: int = 670) -> list[Row]:
    """Beam search over all clips: the ratio, and the share of the product rate."""
    captioner, search = taught(steps=MSVD["frames"][0]), Search(beam=5)
    every = [teachable(MSVD, 64, seed=1000 + number) for number in range(-(-clips // 64))]
    few = teachable(MSVD, PLAIN_CLIPS, seed=999)
    words = vocabulary(WORDS - 4)
    found: list[int] = []  # words of each caption

    def batched() -> None:
        found[:] = [len(caption.words) for one in every for caption in beam_search(captioner, one, words, search)]

    taken = seconds({"plain": lambda: plain_beam(captioner, few, search), "batched": batched}, repeats=3)
    slow, fast = taken["plain"] / PLAIN_CLIPS, taken["batched"] / (64 * len(every))
    share = 100 * operations(batched) / taken["batched"] / product_rate()
    what = f"beam 5 over {64 * len(every)} clips"
    behind = {"plain ms a clip": slow * 1e3, "batched ms a clip": fast * 1e3, "words a caption": fmean(found)}
    return [
        Row(what, "one hypothesis at a time", slow / fast, 20, details=behind),
        Row(what, "the product rate", share, 40, "%"),
    ]
