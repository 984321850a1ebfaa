"""The contract of a method, and the types that cross it.

Dimension letters, here and in `bench.nn`: B captions, C clips, T frames, W words, D features, H hidden, V vocabulary, K beams.

This module imports no torch at run time, so that planning and reading cards stay cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """The words of the training captions. Position = id; the first four are `SPECIAL`."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:4] != SPECIAL:
            raise ValueError(f"a vocabulary starts with {SPECIAL}, this one with {self.words[:4]}")
        object.__setattr__(self, "_index", {word: number for number, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._index  # type: ignore[attr-defined]

    def encode(self, tokens: Sequence[str], max_words: int | None = None) -> list[int]:
        """Ids of `tokens`, cut at `max_words`, unknown words as UNK, without BOS and EOS."""
        index: dict[str, int] = self._index  # type: ignore[attr-defined]
        return [index.get(token, UNK) for token in tokens[:max_words]]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Words of `ids` up to the first EOS; PAD and BOS are left out."""
        words = []
        for number in ids:
            if number == EOS:
                break
            if number not in (PAD, BOS):
                words.append(self.words[number])
        return tuple(words)

    @property
    def digest(self) -> str:
        """SHA-256 of the word list: part of the record, checked when a checkpoint is loaded."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()


@dataclass(frozen=True)
class StreamInfo:
    """One feature stream as a method sees it before any value is read.

    `shape` is per clip with the time axis padded: (T, D) for frames, (D,) for a vector, (T, k, D) for regions,
    (T, 3, H, W) for pixels. `timed` says that axis 0 is time and comes with a mask. `encoder` names the encoder that made
    the features, or for which the pixels were prepared; empty where that is not known. `made_by` is all that the cache says of
    their making (name, weights, preprocessing, ..): by it a checkpoint knows how to make them of another video.
    """

    name: str
    shape: tuple[int, ...]
    timed: bool
    fingerprint: str
    encoder: str = ""
    made_by: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Reference:
    """One training caption: stable id, clip, text as published, training tokens, vocabulary ids without BOS and EOS."""

    id: str
    clip: str
    text: str
    tokens: tuple[str, ...]
    words: tuple[int, ...]


@dataclass
class Batch:
    """Clip-major batch: features once per clip, captions beside them, longest caption first.

    `streams[name]` is [C, *shape] float32, uint8 for pixels; `masks[name]` is [C, T] bool, True on real frames (timed only);
    `words_BW` holds BOS w1 .. wn EOS PAD ..; `lengths_B` counts the predicted words, n + 1 with EOS;
    `clip_of_B` gives each caption's row in the streams. For decoding the caption part is empty (B = 0). Where features
    stay on the GPU of a run a batch lies there from the start. `packed` are the bytes that hold all of it, where there are such.
    """

    clip_ids: tuple[str, ...]
    streams: dict[str, Tensor]
    masks: dict[str, Tensor]
    caption_ids: tuple[str, ...]
    clip_of_B: Tensor
    words_BW: Tensor
    lengths_B: Tensor
    packed: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; copies do not block when the memory is pinned, and are one of what is packed.

        Copies of masks and words remember what they were made from: `bench.nn.host.on_host`.
        """

        packed = self.packed
        there = None if packed is None else packed.to(device, non_blocking=True)

        def moved(value: Tensor) -> Tensor:
            if packed is None or there is None:
                return value.to(device, non_blocking=True)
            start = value.data_ptr() - packed.data_ptr()
            return there[start : start + value.nbytes].view(value.dtype).view(value.shape)

        def known(value: Tensor) -> Tensor:
            copy = moved(value)
            if copy is not value and value.device.type == "cpu":
                copy.on_host = value  # type: ignore[attr-defined]
            return copy

        return Batch(
            self.clip_ids,
            {name: moved(value) for name, value in self.streams.items()},
            {name: known(value) for name, value in self.masks.items()},
            self.caption_ids,
            known(self.clip_of_B),
            known(self.words_BW),
            known(self.lengths_B),
        )


class Clips(Protocol):
    """Clips of one split as `fit` and `decode` may see them. Test references are absent from every instance."""

    ids: tuple[str, ...]
    streams: Mapping[str, StreamInfo]
    vocabulary: Vocabulary

    @property
    def n_captions(self) -> int:
        """Captions in all; 0 where the split's captions are withheld."""

    def references(self, clip: str) -> tuple[Reference, ...]:
        """Captions of one clip, in file order."""

    def epoch(self, order: int, captions: int, captions_per_clip: int, start: int = 0) -> Iterator[Batch]:
        """One pass over all captions in the order drawn from seed `order`, at most `captions` to a batch.

        A clip's captions come in groups of `captions_per_clip` that share its features; two groups of a clip may meet in
        a batch. The first `start` batches are skipped without reading features.
        """

    def in_order(self, clips: int) -> Iterator[Batch]:
        """All clips in the order of `ids`, `clips` to a batch, without captions: for decoding."""

    def reading(self, streams: Sequence[str]) -> Clips:
        """The same clips, captions and orders with these streams only: what is not asked for is not read."""


@dataclass(frozen=True)
class Search:
    """How captions are decoded. `length_rule`: none (sum of log-probabilities), mean, or gnmt."""

    beam: int = 5
    max_words: int = 30
    length_rule: str = "none"
    clips: int = 64


@dataclass(frozen=True)
class Caption:
    """One decoded caption: words, log-probability (natural log, sum over words and EOS), the other beams, traces.

    `alternatives` holds (text, log-probability), best first, without the caption itself; `traces` may hold
    `attention` [W, T], `key_frame` and the like as nested lists.
    """

    clip: str
    words: tuple[str, ...]
    log_probability: float
    alternatives: tuple[tuple[str, float], ...] = ()
    traces: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return " ".join(self.words)


class WordLoss(Protocol):
    """What a batch of captions costs, from the losses of their words: cross-entropy, or a paper's idea in its place.

    A method whose card says `provides: {loss: NAME}` offers `build_loss(settings, clips) -> WordLoss` beside `build`. It is
    called once, with the settings that the card marks `of_loss`, on the training clips, and depends on nothing else: a run
    that resumes makes it again and saves nothing.
    """

    def __call__(self, losses_BW: Tensor, batch: Batch, targets_BW: Tensor) -> dict[str, Tensor]:
        """Named scalars, means over the captions: `loss` is minimised, the others, detached, are rows of the curves.

        `losses_BW` is -log p of every target word, zero on padding; `targets_BW` are their ids, EOS included, PAD behind.
        """


class SharedPhases(Protocol):
    """What cells with equal beginnings train once: the phases of a recipe, by their places in it."""

    def enter(self, phase: int) -> Mapping[str, Any] | None:
        """Told before a phase is trained: the state at its end, or at that of a later one, where another cell left it.

        None: train it. Waits while another cell does.
        """

    def leave(self, phase: int) -> None:
        """The state that was saved last is that at the end of the phase."""


class Run(Protocol):
    """What the harness lends to `fit`: device, seed, settings, budget, and the only ways to report, validate and save.

    `budget` counts captions read or sampled over all phases; the harness counts them where `Clips.epoch` hands them out.
    `loss` is what captions that are read cost: cross-entropy, or what `loss=NAME` asks for. Whoever trains by it says
    `takes: {loss: {}}` in its card.
    """

    device: torch.device
    seed: int
    train: Mapping[str, Any]
    shares: Mapping[str, float]
    search: Search
    budget: int
    loss: WordLoss

    def tick(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """A sign of life after each batch: the means of the epoch so far. Cheap; written at most once a second."""

    def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """One row of the training curves at the end of an epoch."""

    def validate(self, method: Method) -> float:
        """Decode the validation clips and return CIDEr-D on training tokens (x100), the same selection for all."""

    def selected(self, phase: str, epoch: int, score: float) -> None:
        """The weights of this epoch are the best so far; the record names it."""

    def ended(self, phase: str, how: str) -> None:
        """A phase of budget=converged ended: `converged`, or `capped` where its cap came first. Called under no other budget."""

    def encoder(self, name: str, weights: str = "pretrained") -> nn.Module:
        """The encoder called `name` with its preprocessing: uint8 frames [N, 3, H, W] -> vectors [N, D], in eval mode.

        `weights` is `pretrained`, the value of a setting of type `file`, `random` (tests), or `empty` where saved weights
        follow. Whoever trains the encoder makes it a part of its own module, and so of its checkpoints; otherwise it is
        never saved.
        """

    def shared(self, phases: Sequence[tuple[str, int]], module: nn.Module) -> SharedPhases | None:
        """The phases that other cells may have trained: `phases` are the names and captions of all, `module` all that learns,
        before the first. None where nothing is shared."""

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the resume state, atomically: tensors, numbers, strings, lists and dicts only."""

    def load_state(self) -> dict[str, Any] | None:
        """The last resume state, or None at a fresh start."""


class Method(Protocol):
    """A paper behind one contract. `build(settings, streams, vocabulary)` in `methods/<name>/__init__.py` makes one.

    A method that decodes with an encoder also has `prepare(lend)`: whoever loads a checkpoint into a method that was not
    fitted calls it before `load_state_dict`, with a function like `Run.encoder`.
    """

    def fit(self, train: Clips, run: Run) -> None:
        """Train on `train` within the budget of `run`; leave the best weights loaded."""

    def decode(self, clips: Clips, search: Search) -> list[Caption]:
        """Exactly one caption for each id of `clips`, in their order."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that decoding and resuming need beyond settings and vocabulary."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The reverse of `state_dict`; refuses other names and shapes with both shown."""
