"""Beam search against exhaustive search, against a beam in plain lists, and against teacher forcing."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import search as oracle
from oracles.arithmetic import EOS
from support import Recorder, Toy, make_clips, one_batch, shake, vocabulary_of
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.method import BOS, PAD, UNK, Batch, Caption, Search, Vocabulary
from bench.nn.beam import beam_search, length_divisor
from bench.nn.captioners import S2VT, MeanPool, SoftAttention
from bench.nn.decoding import teacher_forcing, word_losses
from bench.nn.transformer import Transformer

RULES = ["none", "mean", "gnmt"]
SEARCH = Search(beam=3, max_words=9)
WORDS = 4
IDS = range(4, 4 + WORDS)
CAPTIONERS = {
    "mean_pool": lambda words: MeanPool(words, 5, 6, 4, 0.0, False, 2),
    "soft_attention": lambda words: SoftAttention(words, 5, 6, 4, 0.0, False, 3),
    "s2vt": lambda words: S2VT(words, 5, 6, 4, 0.0, False),
    "transformer": lambda words: Transformer(words, 5, 6, 0.0, False, layers=2, heads=2, expansion=2),
}


def world(clips: int = 4, seed: int = 0) -> CorpusClips:
    lengths = [4, 2, 3, 1, 4, 2][:clips]
    return make_clips(lengths, [()] * clips, words=WORDS, seed=seed)


def batch_of(clips: CorpusClips, size: int = 100) -> list[Batch]:
    return list(clips.in_order(size))


def toy(seed: int, ending: float = 0.0) -> Toy:
    torch.manual_seed(seed)
    return Toy(4 + WORDS, 5, 5, ending)


def spoken(hypothesis: oracle.Hypothesis, vocabulary: Vocabulary) -> str:
    return " ".join(vocabulary.decode(hypothesis[0]))


def all_of(caption: Caption) -> list[tuple[str, float]]:
    return [(caption.text, caption.log_probability), *caption.alternatives]


def rank_of(text: str, score: float, rule: str) -> float:
    return oracle.rank((tuple(range(len(text.split()) + 1)), score), rule)


def assert_same(found: list[tuple[str, float]], expected: list[oracle.Hypothesis], vocabulary: Vocabulary) -> None:
    assert [text for text, _ in found] == [spoken(one, vocabulary) for one in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ending", [-4.0, 0.0, 4.0], ids=["long", "even", "short"])
def test_beam_wider_than_all_captions_is_exhaustive_search(rule: str, ending: float) -> None:
    captioner, clips = toy(1, ending), world()
    (batch,) = batch_of(clips)
    found = beam_search(captioner, batch, clips.vocabulary, Search(beam=90, max_words=3, length_rule=rule))
    for row, caption in enumerate(found):
        expected = oracle.exhaustive(captioner.next_log_p(batch.streams["frames"][row].numpy()), IDS, 3, rule)
        assert len(expected) == 1 + 4 + 16 + 64
        assert caption.text == spoken(expected[0], clips.vocabulary)
        own = dict(all_of(caption))
        assert own == pytest.approx({spoken(one, clips.vocabulary): one[1] for one in expected}, abs=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wide", [1, 2, 3, 5])
def test_narrow_beam_is_the_beam_of_the_book(wide: int, rule: str) -> None:
    """Also hypotheses that pruning lost stay lost: the same beams, in the same order, with the same scores."""
    clips = world()
    (batch,) = batch_of(clips)
    for seed, ending in enumerate((-3.0, 0.0, 1.0, 3.0)):
        captioner = toy(seed, ending)
        found = beam_search(captioner, batch, clips.vocabulary, Search(beam=wide, max_words=6, length_rule=rule))
        for row, caption in enumerate(found):
            log_p = captioner.next_log_p(batch.streams["frames"][row].numpy())
            assert_same(all_of(caption), oracle.beam(log_p, IDS, 6, wide, rule), clips.vocabulary)


def test_pruning_does_lose_hypotheses_here() -> None:
    """Keeps the test above honest: on these models a narrow beam and exhaustive search do differ."""
    clips = world()
    (batch,) = batch_of(clips)
    differ = 0
    for seed in range(6):
        log_p = toy(seed, -1.0).next_log_p(batch.streams["frames"][0].numpy())
        best = oracle.exhaustive(log_p, IDS, 4, "mean")[0]
        differ += oracle.beam(log_p, IDS, 4, 1, "mean")[0][0] != best[0]
    assert differ


def test_beam_of_one_is_greedy() -> None:
    clips = world()
    (batch,) = batch_of(clips)
    for seed in range(5):
        captioner = toy(seed)
        for row, caption in enumerate(beam_search(captioner, batch, clips.vocabulary, Search(beam=1, max_words=8))):
            log_p = captioner.next_log_p(batch.streams["frames"][row].numpy())
            assert_same([(caption.text, caption.log_probability)], [oracle.greedy(log_p, IDS, 8)], clips.vocabulary)
            assert caption.alternatives == ()


@pytest.mark.parametrize("rule", RULES)
def test_after_the_last_word_only_the_end_can_follow(rule: str) -> None:
    """A model that never wants to end is cut at max_words, and pays for the end that it did not want."""
    captioner, clips = toy(2, ending=-40.0), world()
    (batch,) = batch_of(clips)
    for row, caption in enumerate(beam_search(captioner, batch, clips.vocabulary, Search(3, 5, rule))):
        assert len(caption.words) == 5
        ids = tuple(clips.vocabulary.encode(caption.words))
        log_p = captioner.next_log_p(batch.streams["frames"][row].numpy())
        score = sum(log_p(ids[:place])[word] for place, word in enumerate((*ids, EOS)))
        assert score < -30
        assert caption.log_probability == pytest.approx(score, rel=1e-5)


def test_a_model_that_ends_at_once_writes_nothing_and_stops() -> None:
    captioner, clips = toy(2, ending=60.0), world()
    (batch,) = batch_of(clips)
    found = beam_search(captioner, batch, clips.vocabulary, Search(beam=1, max_words=30))
    assert [caption.words for caption in found] == [()] * 4
    assert captioner.steps == 1


def test_search_ends_when_every_beam_has_ended() -> None:
    """Two beams: the empty caption at the first step, one word and its end at the second; no third step."""
    captioner, clips = toy(2, ending=60.0), world()
    (batch,) = batch_of(clips)
    found = beam_search(captioner, batch, clips.vocabulary, Search(beam=2, max_words=30))
    assert captioner.steps == 2
    assert all(len(caption.alternatives) == 1 and len(caption.alternatives[0][0].split()) == 1 for caption in found)


class Scripted(nn.Module):
    """Log-probabilities after each prefix, from a table; everything else is nearly impossible."""

    def __init__(self, table: dict[tuple[int, ...], dict[int, float]]) -> None:
        super().__init__()
        self.table = table

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        return {"clip": torch.zeros(len(batch.clip_ids), 1)}

    def start(self, memory: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (torch.zeros(len(memory["clip"]), 1),)

    def step(self, words_B: Tensor, state: tuple[Tensor, ...], memory: dict[str, Tensor]) -> Any:
        """The state is the prefix, written in base 100."""
        prefix = torch.where(words_B == BOS, 0.0, state[0][:, 0] * 100 + words_B).unsqueeze(1)
        return prefix, (prefix,), None

    def logits(self, features_NR: Tensor) -> Tensor:
        rows = []
        for number in features_NR[:, 0].long().tolist():
            given = self.table.get(_digits(number), {EOS: 1.0})
            rows.append([math.log(given.get(word, 1e-30)) for word in range(8)])
        return torch.tensor(rows)


def _digits(number: int) -> tuple[int, ...]:
    found: tuple[int, ...] = ()
    while number:
        number, digit = divmod(number, 100)
        found = (digit, *found)
    return found


def test_a_finished_beam_keeps_its_place_and_is_not_extended() -> None:
    """Word 4 ends early at 0.3; 5 6 7 creeps past it only if a finished beam lost its place or went on paying."""
    table = {
        (): {4: 0.5, 5: 0.4, 6: 0.1},
        (4,): {EOS: 0.6, 6: 0.4},
        (5,): {6: 0.9, EOS: 0.1},
        (5, 6): {7: 0.9, EOS: 0.1},
        (5, 6, 7): {EOS: 0.9, 4: 0.1},
    }
    clips = world(1)
    (batch,) = batch_of(clips)
    (caption,) = beam_search(Scripted(table), batch, clips.vocabulary, Search(beam=2, max_words=10))
    assert all_of(caption) == [
        ("w4", pytest.approx(math.log(0.5 * 0.6), rel=1e-5)),
        ("w5 w6 w7", pytest.approx(math.log(0.4 * 0.9**3), rel=1e-5)),
    ]
    (longer,) = beam_search(Scripted(table), batch, clips.vocabulary, Search(2, 10, "mean"))
    assert longer.text == "w5 w6 w7"


@pytest.mark.parametrize("rule", RULES)
def test_alternatives_are_sorted_distinct_and_at_most_the_beam(rule: str) -> None:
    captioner, clips = toy(3), world()
    (batch,) = batch_of(clips)
    for caption in beam_search(captioner, batch, clips.vocabulary, Search(5, 8, rule)):
        texts = [text for text, _ in all_of(caption)]
        assert len(set(texts)) == len(texts) == 5
        ranks = [rank_of(text, score, rule) for text, score in all_of(caption)]
        assert ranks == sorted(ranks, reverse=True)


def test_only_hypotheses_that_still_search_are_computed() -> None:
    """Four words, at most two of them: one beginning, four first words and sixteen second ones, whatever the beam."""
    recorder, clips = Recorder(toy(3)), world()
    (batch,) = batch_of(clips)
    beam_search(recorder, batch, clips.vocabulary, Search(beam=40, max_words=2))
    assert [len(fed) for fed in recorder.fed] == [4 * 1, 4 * 4, 4 * 16]


def test_dead_beams_are_no_alternatives() -> None:
    """One word at most: with four words there are five captions, whatever the beam."""
    captioner, clips = toy(3), world()
    (batch,) = batch_of(clips)
    for caption in beam_search(captioner, batch, clips.vocabulary, Search(beam=40, max_words=1)):
        assert len(all_of(caption)) == 5
        assert all(math.isfinite(score) for _, score in all_of(caption))


def test_no_caption_holds_a_special_word() -> None:
    """Not even where the model finds them likely; their share of the probability is not handed to the others."""
    captioner, clips = toy(3), world()
    (batch,) = batch_of(clips)

    class Confused(Toy):
        def logits(self, features_NR: Tensor) -> Tensor:
            scores = super().logits(features_NR).clone()
            scores[:, [PAD, BOS, UNK]] = 20.0
            return scores

    confused = Confused(4 + WORDS, 5, 5)
    confused.load_state_dict(captioner.state_dict())
    for caption in beam_search(confused, batch, clips.vocabulary, Search(beam=5, max_words=4)):
        for text, score in all_of(caption):
            assert not set(text.split()) & {"<pad>", "<bos>", "<unk>", "<eos>"}
            assert score < -10


# -- with the captioners themselves -------------------------------------------------------------------------------------


@functools.cache
def captioner_of(name: str) -> Any:
    """Random, with an end just likely enough that captions have several lengths."""
    clips = world(6)
    (batch,) = batch_of(clips)
    for seed in range(30):
        captioner = CAPTIONERS[name](4 + WORDS).eval()
        shake(captioner, seed, scale=1.5)
        for _ in range(12):
            captions = beam_search(captioner, batch, clips.vocabulary, SEARCH)
            if len({len(caption.words) for caption in captions} - {0}) > 2:
                return captioner
            with torch.no_grad():
                captioner.output.bias[EOS] -= 0.5
    raise AssertionError("no random captioner of this kind ends its captions at different words")


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_clip_decoded_alone_is_the_clip_in_a_batch(name: str) -> None:
    """Clips end at different words, so that the batch shrinks while it is decoded."""
    clips, captioner = world(6), captioner_of(name)
    (whole,) = batch_of(clips)
    together = beam_search(captioner, whole, clips.vocabulary, SEARCH)
    for size in (1, 4):
        apart = [
            caption
            for batch in batch_of(clips, size)
            for caption in beam_search(captioner, batch, clips.vocabulary, SEARCH)
        ]
        assert [caption.clip for caption in apart] == list(clips.ids)
        for one, other in zip(together, apart, strict=True):
            assert [text for text, _ in all_of(one)] == [text for text, _ in all_of(other)]
            assert [s for _, s in all_of(one)] == pytest.approx([s for _, s in all_of(other)], abs=1e-4)
            if one.traces:
                torch.testing.assert_close(
                    torch.tensor(one.traces["attention"]), torch.tensor(other.traces["attention"])
                )


@pytest.mark.parametrize("name", CAPTIONERS)
def test_log_probability_and_attention_are_those_of_teacher_forcing(name: str) -> None:
    """What search says of a caption is what training would say of it."""
    clips, captioner = world(6), captioner_of(name)
    (batch,) = batch_of(clips)
    for row, caption in enumerate(beam_search(captioner, batch, clips.vocabulary, SEARCH)):
        words = clips.vocabulary.encode(caption.words)
        forced_batch = replace(
            batch,
            clip_of_B=torch.tensor([row]),
            words_BW=torch.tensor([[BOS, *words, EOS]]),
            lengths_B=torch.tensor([len(words) + 1]),
        )
        forced = teacher_forcing(captioner, forced_batch)
        assert caption.log_probability == pytest.approx(-word_losses(captioner, forced).sum().item(), abs=1e-4)
        if forced.attention_BWT is None:
            assert not caption.traces
        else:
            trace = torch.tensor(caption.traces["attention"])
            assert trace.shape == (len(words), 4)
            torch.testing.assert_close(trace, forced.attention_BWT[0, :-1], rtol=1e-4, atol=1e-5)


def test_padded_frames_change_no_caption() -> None:
    clips = make_clips([4, 2, 1], [()] * 3, words=WORDS, garbage=1e3)
    (batch,) = batch_of(clips)
    captioner = captioner_of("soft_attention")
    found = beam_search(captioner, batch, clips.vocabulary, Search(beam=3, max_words=6))
    quiet = beam_search(
        captioner, batch_of(make_clips([4, 2, 1], [()] * 3, words=WORDS))[0], clips.vocabulary, Search(3, 6)
    )
    assert found == quiet
    for caption, length in zip(found, [4, 2, 1], strict=True):
        assert all(weight == 0 for row in caption.traces["attention"] for weight in row[length:])


def test_search_leaves_the_batch_and_the_generators_alone() -> None:
    clips, captioner = world(), captioner_of("soft_attention")
    batch = one_batch(make_clips(words=WORDS))
    before, state = batch.words_BW.clone(), torch.get_rng_state()
    beam_search(captioner, batch, clips.vocabulary, Search())
    assert torch.equal(batch.words_BW, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_length_divisor_by_hand() -> None:
    length = torch.tensor([1.0, 7.0])
    assert length_divisor(length, "none").tolist() == [1.0, 1.0]
    assert length_divisor(length, "mean").tolist() == [1.0, 7.0]
    assert length_divisor(length, "gnmt").tolist() == pytest.approx([1.0, 2.0**0.6])
    with pytest.raises(ValueError, match="none, mean, gnmt"):
        length_divisor(length, "best")


def test_vocabulary_of_the_world_is_the_one_the_oracle_assumes() -> None:
    assert vocabulary_of(WORDS).words[4:] == tuple(f"w{number}" for number in IDS)
