"""Whether LR+ moves the key frame to a planted event: on `shapes`, where the reward keeps the paper's promise, and on a
planted corpus, where the reward is measured.

Why not on `shapes` with its measured reward: there R stays near zero whatever the key frame, for both directions of the
encoder read the clip to its ends and the decoder attends to all frames. See the README of vre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from support import stream_source
from torch import nn

from bench.data.batches import CorpusClips
from bench.features.shapes import features_of
from bench.method import SPECIAL, Batch, Reference, StreamInfo, Vocabulary
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.shapes import truth
from bench.shapes.options import Options
from methods.vre.encoder import Encoder
from methods.vre.model import REFOCUSED, VRE, Decoder

BETA, RATE, WIDTH = 0.03, 0.01, 16


def clips_of(frames: Mapping[str, np.ndarray], words: Mapping[str, str]) -> CorpusClips:
    """Clips with a caption of one word each."""
    vocabulary = Vocabulary((*SPECIAL, *sorted(set(words.values()))))
    references = {
        clip: (Reference(f"{clip}#0", clip, word, (word,), tuple(vocabulary.encode([word]))),)
        for clip, word in words.items()
    }
    values = np.stack([frames[clip] for clip in words]).astype(np.float32)
    info = StreamInfo("frames", values.shape[1:], True, "f" * 64)
    source = stream_source(info, list(words), values, [values.shape[1]] * len(words))
    return CorpusClips(list(words), references, {"frames": source}, vocabulary)


def model_of(clips: CorpusClips, seed: int, kind: Any = VRE) -> Any:
    torch.manual_seed(seed)
    width = clips.streams["frames"].shape[-1]
    encoder = Encoder(width, 0, WIDTH, WIDTH, passes=2)
    model = kind({}, encoder, Decoder(len(clips.vocabulary), width, 0, 0, WIDTH, WIDTH, WIDTH, 0.0, encoded=True))
    model.open(clips)
    return model


def hits(model: VRE, clips: CorpusClips, events: Mapping[str, Sequence[int]]) -> float:
    """The share of the clips of `events` whose key frame, as the refocusing module has it, lies in their event."""
    stage = model.stage.clone()
    model.stage.fill_(REFOCUSED)
    with torch.no_grad():
        (batch,) = clips.in_order(1_000)
        keys = dict(zip(batch.clip_ids, model.watch(batch).key.tolist(), strict=True))
    model.stage.copy_(stage)
    return float(np.mean([keys[clip] in event for clip, event in events.items()]))


def joint_epochs(model: VRE, clips: CorpusClips, learning: list[nn.Parameter], form: str, epochs: int) -> None:
    optimizer = torch.optim.Adam(learning, lr=RATE)
    for epoch in range(epochs):
        for batch in clips.epoch(epoch, 50, 1):
            optimizer.zero_grad()
            model.joint_losses(batch, 0.0, BETA, form, "same")["loss"].backward()
            nn.utils.clip_grad_norm_(learning, 5.0)
            optimizer.step()


# -- on shapes, with a reward that keeps the paper's promise ---------------------------------------------------------------


# Clips that begin or end with unrelated frames: in the first the middle frame, where step 1 starts, is one of them.
OFF_MIDDLE = (1, 7, 37, 46, 51, 59, 78, 83, 104, 109, 112, 114, 116, 123, 126, 128, 189, 199, 209, 213)
OTHERS = (2, 4, 10, 22, 25, 26, 30, 47, 53, 61, 62, 66, 72, 73, 81, 86, 87, 93, 98, 99)


@pytest.fixture(scope="module")
def noisy_shapes() -> tuple[CorpusClips, dict[str, range]]:
    """The clips and their events."""
    events = {clip: truth(clip).scene.event for clip in (f"shape{number:04d}" for number in (*OFF_MIDDLE, *OTHERS))}
    assert [10 in event for event in events.values()] == [False] * len(OFF_MIDDLE) + [True] * len(OTHERS)
    frames = {clip: features_of(clip, Options())["frames"] for clip in events}
    return clips_of(frames, dict.fromkeys(events, "it")), events


class Promise(VRE):
    """Pays what section 3.4 promises: told from a key frame inside the event, captions get better from epoch to epoch, told
    from any other they get worse."""

    events: Mapping[str, range]

    def _both(self, batch: Batch, *rest: Any) -> Any:
        keys = self.watch(batch).key.tolist()
        inside = [key in self.events[clip] for clip, key in zip(batch.clip_ids, keys, strict=True)]
        gain_C = torch.tensor([0.1 if one else -0.1 for one in inside])
        before_B = self.rewards.find(batch.caption_ids).nan_to_num(0.0)
        return (before_B + gain_C[batch.clip_of_B], torch.zeros_like(before_B)), (None, None)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_shapes_the_key_frame_moves_into_the_event(
    noisy_shapes: tuple[CorpusClips, dict[str, range]], seed: int
) -> None:
    """The middle frame lies there in half of the clips, a frame by luck in about as many."""
    clips, events = noisy_shapes
    model = model_of(clips, seed, Promise)
    model.events = events
    assert hits(model, clips, events) < 0.7
    joint_epochs(model, clips, list(model.encoder.parameters()), "corrected", 20)
    assert hits(model, clips, events) > 0.9


# -- on a planted corpus, with the reward that is measured -------------------------------------------------------------------

CLIPS, FRAMES, NOISE = 300, 6, 8
CODES = ("left", "right")


def planted_corpus(seed: int) -> tuple[CorpusClips, dict[str, list[int]]]:
    """Every frame shows one of two codes and noise; one frame, the event, also a mark, and its code is the caption.

    Both codes are in every clip equally often, so that their mean tells nothing. The event is the middle frame in every
    second clip, where step 1 learns to read it; the other clips' events are returned.
    """
    random = np.random.default_rng(seed)
    frames, words, events = {}, {}, {}
    for number in range(CLIPS):
        clip = f"clip{number}"
        codes = random.permutation(np.repeat(np.arange(2), FRAMES // 2))
        off_middle = [frame for frame in range(FRAMES) if frame != FRAMES // 2]
        event = FRAMES // 2 if number % 2 else int(random.choice(off_middle))
        shown = np.concatenate([2 * np.eye(2)[codes], np.zeros((FRAMES, 1)), random.normal(size=(FRAMES, NOISE))], 1)
        shown[event, 2] = 2.0
        frames[clip], words[clip] = shown, CODES[codes[event]]
        if event != FRAMES // 2:
            events[clip] = [event]
    return clips_of(frames, words), events


def fit_for_key_frames(model: VRE) -> list[nn.Parameter]:
    """Make the key frame all that the decoder knows of a clip, which the paper hopes for; returns what is left to learn.

    The GRUs remember the frame that they start from: unit 0 is on after one frame and shuts the update gate. The decoder
    looks at all frames alike. Left to itself either learns to find the mark, and step 2 has nothing to add.
    """
    scan, decoder = model.encoder.scan, model.decoder
    with torch.no_grad():
        for gru in (scan.leftward, scan.rightward):
            for value in (gru.weight_hh_l0, gru.bias_hh_l0, gru.bias_ih_l0, gru.weight_ih_l0[: 2 * WIDTH]):
                value.zero_()
            gru.bias_ih_l0[WIDTH : 2 * WIDTH] = -6.0  # the new frame replaces the state ..
            gru.weight_hh_l0[WIDTH : 2 * WIDTH, 0] = 14.0  # .. unless unit 0 is on
            gru.weight_ih_l0[2 * WIDTH] = 0.0
            gru.bias_ih_l0[2 * WIDTH] = 6.0
        decoder.temporal.score.weight.zero_()
        model.encoder.refocus.key.weight[:, :3] = 0.0  # the refocusing module knows neither codes nor mark yet
    fixed = (model.finder, scan.leftward, scan.rightward, decoder.temporal)
    for part in fixed:
        part.requires_grad_(False)
    return [value for value in model.parameters() if value.requires_grad]


def found_event(seed: int, form: str) -> tuple[float, float]:
    """Share of key frames at events off the middle, before and after joint training on L1, L2 and LR+."""
    clips, events = planted_corpus(seed)
    model = model_of(clips, seed)
    learning = fit_for_key_frames(model)
    optimizer = torch.optim.Adam(learning, lr=RATE)
    for epoch in range(8):
        for batch in clips.epoch(1_000 + epoch, 50, 1):
            optimizer.zero_grad()
            cross_entropy(word_losses(model, teacher_forcing(model, batch))).backward()
            optimizer.step()
    before = hits(model, clips, events)
    joint_epochs(model, clips, learning, form, 30)
    return before, hits(model, clips, events)


def test_where_the_reward_depends_on_the_key_frame_it_moves_to_the_event() -> None:
    """No middle frame is right here, and one in five of the others by luck.

    The printed sign holds on to frames whose reward falls, so it ends below luck (eight seeds: 0.10 on average, the corrected
    one 0.62; at the start 0.17).
    """
    before, corrected = np.transpose([found_event(seed, "corrected") for seed in range(3)])
    printed = np.array([found_event(seed, "printed")[1] for seed in range(3)])
    assert before.mean() < 0.22
    assert corrected.mean() > 0.4
    assert printed.mean() < 0.16
    assert (corrected > printed + 0.1).all()
