"""Finished cells brought back to life: the method with its weights on its own clips, and what it does word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from bench import BenchError
from bench.cell import checkpoint
from bench.cell.checkpoint import CHECKPOINT
from bench.cell.inputs import Inputs, gather
from bench.disk.limits import own_json
from bench.errors import AbsentError
from bench.home import Home
from bench.method import BOS, EOS, PAD, Batch, Caption, Clips, Search
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.nn.sampling import sample


@dataclass(frozen=True)
class Trained:
    """A method with the weights of a finished cell, and the clips that it was trained and judged on."""

    config: dict[str, Any]
    method: Any
    inputs: Inputs
    search: Search

    def decode(self, clips: Clips) -> list[Caption]:
        """Captions as the cell's own search finds them."""
        captions: list[Caption] = self.method.decode(clips, self.search)
        return captions

    def draw(self, count: int) -> list[dict[str, str]]:
        """`count` captions of every decoded clip by clip id, drawn word by word without dropout, the same at every call."""
        captioner, words = self.captioner, self.inputs.vocabulary.words
        captioner.eval()
        sets: list[dict[str, str]] = [{} for _ in range(count)]
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            for batch in self.inputs.target.in_order(self.search.clips):
                clips = torch.arange(len(batch.clip_ids))
                for one in sets:
                    asked = replace(batch, caption_ids=batch.clip_ids, clip_of_B=clips)
                    drawn = sample(captioner, asked, self.search.max_words)
                    texts = (" ".join(words[word] for word in caption) for caption in drawn.captions(ended=False))
                    one.update(zip(drawn.clips(), texts, strict=True))
        return sets

    @property
    def captioner(self) -> Any:
        """What writes word by word. Raises BenchError for a method that is not built around a captioner."""
        if not hasattr(self.method, "captioner"):
            raise BenchError(f"method {self.config['method']} has no captioner whose words could be followed")
        return self.method.captioner


def declared(folder: Path) -> dict[str, Any] | None:
    """The declaration of a finished cell as its checkpoint holds it, with places; None without a valid checkpoint."""
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            found: dict[str, Any] = own_json(file.metadata()["config"])
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        return None  # `load` says what is wrong with the file
    return {**found, **checkpoint.places(folder)}


def load(folder: Path, home: Home) -> Trained:
    """The finished cell of `folder`. Raises BenchError: no checkpoint, other captions or features than it was trained on."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise AbsentError(
            f"{path} is not there, for checkpoints are not published: move {folder} away, and the "
            "command that made the cell trains it anew"
        )
    found = checkpoint.load(path)
    inputs = gather(found.config, home, lambda captions: None)
    if inputs.vocabulary.digest != found.vocabulary.digest:
        raise BenchError(
            f"{path} was trained with {len(found.vocabulary):,} words (digest {found.vocabulary.digest[:12]}), and the captions "
            f"of {found.config['dataset']} give {len(inputs.vocabulary):,} today (digest {inputs.vocabulary.digest[:12]})"
        )
    return Trained(found.config, found.method, inputs, found.search)


def last_states(captioner: Any, batch: Batch, captions: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Hidden states at the step that predicts EOS, [C, H]: one caption (word ids) is read for each clip of `batch`.

    Without dropout, as in decoding: the states then differ by the words that were read.
    """
    chosen = _with_captions(batch, captions)
    captioner.eval()
    with torch.inference_mode():
        hidden_BWH = teacher_forcing(captioner, chosen).hidden_BWH
        last_BH = hidden_BWH[torch.arange(len(captions)), chosen.lengths_B - 1]
        return last_BH[chosen.clip_of_B.argsort()].float().numpy()


def held_for_backward(method: Any, batch: Batch) -> int:
    """Bytes that a training step on `batch` holds between its forward and its backward pass, weights not counted.

    What autograd saves is the same on every machine, unlike the peak of a process.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in method.module.parameters()}
    held: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = cross_entropy(word_losses(method.captioner, teacher_forcing(method.captioner, batch)))
    assert loss.requires_grad, "nothing was held: no parameter learns"
    return sum(held.values())


def _with_captions(batch: Batch, captions: Sequence[Sequence[int]]) -> Batch:
    """`batch` with one caption for each of its clips, the longest first."""
    order = sorted(range(len(captions)), key=lambda row: -len(captions[row]))
    words = torch.full((len(captions), max(map(len, captions)) + 2), PAD)
    for place, row in enumerate(order):
        words[place, : len(captions[row]) + 2] = torch.tensor([BOS, *captions[row], EOS])
    lengths = torch.tensor([len(captions[row]) + 1 for row in order])
    ids = tuple(batch.clip_ids[row] for row in order)
    return Batch(batch.clip_ids, batch.streams, batch.masks, ids, torch.tensor(order), words, lengths)
