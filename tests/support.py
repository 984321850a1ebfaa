"""Small synthetic clips, a run without a harness, a toy captioner, and gradient checks, for tests of what learns."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.data.batches import CorpusClips, StreamSource
from bench.method import BOS, EOS, PAD, SPECIAL, Batch, Clips, Reference, Search, StreamInfo, Vocabulary, WordLoss
from bench.nn.decoding import Captioner, Memory, State
from bench.training import plain_loss

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

TRAIN: dict[str, Any] = {
    "epochs": 4,
    "captions": 4,
    "captions_per_clip": 2,
    "accumulate": None,
    "learning_rate": 0.05,
    "optimizer": "adam",
    "clip": 5.0,
    "clip_by": "norm",
    "patience": None,
    "weight_decay": 0.0,
    "scheduled_sampling": 0.0,
    "data_fraction": 1.0,
}
"""Training settings of a tiny run; same keys as those of a real one."""


def vocabulary_of(words: int) -> Vocabulary:
    """`words` words called w4, w5, .. after their ids."""
    return Vocabulary((*SPECIAL, *(f"w{number}" for number in range(4, 4 + words))))


def make_clips(
    lengths: Sequence[int] = (4, 2, 3),
    captions: Sequence[Sequence[int]] = ((3, 1), (2, 4), (0, 3)),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    words: int = 7,
    seed: int = 0,
    garbage: float = 0.0,
    spend: Callable[[int], None] | None = None,
    dtype: type[np.floating] = np.float32,
) -> CorpusClips:
    """Clips c0, c1, ..: clip i has `lengths[i]` real time steps and a caption of each of `captions[i]` words.

    `garbage` fills the padded time steps. Streams with two or more axes are timed. Where there are `pixels`, the `frames` are
    what a `TinyEncoder` makes of them.
    """
    random = np.random.default_rng(seed)
    shapes = {"frames": (4, 5)} if shapes is None else shapes
    vocabulary = vocabulary_of(words)
    ids = [f"c{number}" for number in range(len(lengths))]
    references = {}
    for clip, sizes in zip(ids, captions, strict=True):
        made = []
        for number, size in enumerate(sizes):
            numbers = tuple(int(word) for word in random.integers(4, 4 + words, size))
            tokens = tuple(vocabulary.words[word] for word in numbers)
            made.append(Reference(f"{clip}#{number}", clip, " ".join(tokens), tokens, numbers))
        references[clip] = tuple(made)
    sources = {}
    seen = _seen(len(ids), shapes, seed) if "pixels" in shapes else {}
    for name, shape in shapes.items():
        values = random.normal(size=(len(ids), *shape)).astype(dtype)
        if name in seen:
            values = seen[name].astype(np.uint8 if name == "pixels" else dtype)
        if len(shape) > 1:
            for row, length in enumerate(lengths):
                values[row, length:] = min(garbage, 255) if name == "pixels" else garbage
        else:
            values = 1 / (1 + np.exp(-values))
        info = StreamInfo(name, shape, len(shape) > 1, "f" * 64, "tiny" if name == "pixels" else "")
        sources[name] = stream_source(info, ids, values, lengths)
    return CorpusClips(ids, references, sources, vocabulary, seed, spend)


def _seen(clips: int, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Pixels of so many clips, and the frames that an encoder makes of them."""
    pixels = np.random.default_rng(seed + 1).integers(0, 256, (clips, *shapes["pixels"]), dtype=np.uint8)
    with torch.no_grad():
        frames = TinyEncoder(shapes["frames"][-1])(torch.from_numpy(pixels).flatten(0, 1))
    return {"pixels": pixels, "frames": frames.numpy().reshape(clips, *shapes["frames"])}


class TinyEncoder(nn.Module):
    """uint8 frames [N, 3, H, W] -> [N, width]: two convolutions with batch normalisation; the same weights every time."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            self.first, self.norm = nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)
            self.second, self.out = nn.Conv2d(4, 6, 2), nn.Linear(6, width)
            with torch.no_grad():
                for part in (self.norm.weight, self.norm.bias, self.norm.running_mean):
                    part.uniform_(-1, 1)
        self.eval()

    def forward(self, frames_NCYX: Tensor) -> Tensor:
        x = frames_NCYX.to(self.first.weight.dtype) / 127.5 - 1
        return self.out(torch.tanh(self.second(torch.tanh(self.norm(self.first(x))))).mean(dim=(2, 3)))


def spoken(captions: dict[str, list[str]], seed: int = 0, shape: tuple[int, int] = (4, 6)) -> CorpusClips:
    """Clips with given sentences, each with frames of its own; words in capitals are not in the vocabulary."""
    words = dict.fromkeys(word for texts in captions.values() for text in texts for word in text.split())
    vocabulary = Vocabulary((*SPECIAL, *(word for word in words if not word.isupper())))
    clips = make_clips([shape[0]] * len(captions), [()] * len(captions), {"frames": shape}, seed=seed)
    names = dict(zip(clips.ids, captions, strict=True))
    references = {
        clip: tuple(
            Reference(f"{clip}#{number}", clip, text, tuple(text.split()), tuple(vocabulary.encode(text.split())))
            for number, text in enumerate(captions[name])
        )
        for clip, name in names.items()
    }
    return CorpusClips(clips.ids, references, clips._sources, vocabulary)


def stream_source(info: StreamInfo, ids: Sequence[str], values: np.ndarray, lengths: Sequence[int]) -> StreamSource:
    """A stream held in memory."""
    place = {clip: row for row, clip in enumerate(ids)}

    def read(clips: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [place[clip] for clip in clips]
        return values[rows], np.array([lengths[row] for row in rows])

    return StreamSource(info, read)


def one_batch(clips: Clips, dtype: torch.dtype = torch.float32) -> Batch:
    """All captions of `clips` in one batch."""
    (batch,) = clips.epoch(0, 10_000, 10_000)
    batch.streams = {name: value.to(dtype) for name, value in batch.streams.items()}
    return batch


def captions_of(batch: Batch) -> Iterator[tuple[int, int, list[int]]]:
    """For every caption of a batch: its row, the row of its clip, its words without BOS and EOS."""
    for row, (clip, length) in enumerate(zip(batch.clip_of_B.tolist(), batch.lengths_B.tolist(), strict=True)):
        yield row, clip, batch.words_BW[row, 1:length].tolist()


def real_steps(batch: Batch, stream: str, clip: int) -> list[np.ndarray]:
    """The real time steps of one clip, float64."""
    values, mask = batch.streams[stream][clip], batch.masks[stream][clip]
    return list(values[mask].double().numpy())


class DiedError(Exception):
    """A machine that dies in the middle of a run."""


class FakeRun:
    """`bench.method.Run` in memory. `score(method)` stands in for the validation clips.

    `die_at` counts the calls that reach the run, from 0; the run dies at that one. The saved state goes through a file, as in a
    real run, so that what cannot be written or what is changed afterwards shows.
    """

    def __init__(
        self,
        budget: int,
        shares: Mapping[str, float],
        train: Mapping[str, Any] | None = None,
        score: Callable[[Any], float] = lambda method: 0.0,
        die_at: int | None = None,
        saved: bytes | None = None,
        loss: WordLoss = plain_loss,
        encoder: Callable[[str, str], nn.Module] = lambda name, weights: TinyEncoder(),
    ) -> None:
        self.device = torch.device("cpu")
        self.seed = 0
        self.train = {**TRAIN, **(train or {})}
        self.shares = shares
        self.search = Search(max_words=6)
        self.budget = budget
        self.loss = loss
        self.encoder = encoder
        self.score, self.die_at, self.saved = score, die_at, saved
        self.calls = 0
        self.reports: list[tuple[str, int, dict[str, float]]] = []
        self.ticks: list[tuple[str, int]] = []
        self.chosen: list[tuple[str, int, float]] = []
        self.endings: dict[str, str] = {}

    def _live(self) -> None:
        self.calls += 1
        if self.die_at is not None and self.calls > self.die_at:
            raise DiedError

    def tick(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        self._live()
        self.ticks.append((phase, epoch))

    def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        self._live()
        self.reports.append((phase, epoch, dict(values)))

    def validate(self, method: Any) -> float:
        self._live()
        return self.score(method)

    def selected(self, phase: str, epoch: int, score: float) -> None:
        self._live()
        self.chosen.append((phase, epoch, score))

    def ended(self, phase: str, how: str) -> None:
        self._live()
        self.endings[phase] = how

    def save_state(self, state: Mapping[str, Any]) -> None:
        self._live()
        file = io.BytesIO()
        torch.save(dict(state), file)
        self.saved = file.getvalue()
        self._live()

    def shared(self, phases: Any, module: Any) -> None:
        return None

    def load_state(self) -> dict[str, Any] | None:
        return None if self.saved is None else torch.load(io.BytesIO(self.saved), weights_only=True)

    def epochs(self, phase: str) -> int:
        return sum(name == phase for name, _, _ in self.reports)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode() + state[name].detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


class Toy(nn.Module):
    """A captioner of a few numbers: h = tanh(A h + E[w] + F v), logits = U h, attention over the frames.

    `next_log_p` says the same by float64 loops over a prefix, for the oracles of search.
    """

    def __init__(self, words: int, frame_width: int, width: int, ending: float = 0.0, spread: float = 1.5) -> None:
        super().__init__()
        self.carry = nn.Parameter(torch.randn(width, width) * spread)
        self.word = nn.Parameter(torch.randn(words, width) * spread)
        self.video = nn.Parameter(torch.randn(width, frame_width) * spread)
        self.out = nn.Parameter(torch.randn(words, width) * spread)
        self.ending = ending
        self.steps = 0

    def encode(self, batch: Batch) -> Memory:
        values = batch.streams["frames"]
        return {"clip": values.mean(1) @ self.video.T, "frames": values}

    def start(self, memory: Memory) -> State:
        return (torch.zeros_like(memory["clip"]),)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        self.steps += 1
        weights = torch.softmax(memory["frames"].sum(-1) + state[0].sum(-1, keepdim=True), -1)
        hidden = torch.tanh(state[0] @ self.carry.T + self.word[words_B] + memory["clip"])
        return hidden, (hidden,), weights

    def logits(self, features_NR: Tensor) -> Tensor:
        scores = features_NR @ self.out.T
        return scores + self.ending * torch.eye(scores.shape[-1])[EOS]

    def next_log_p(self, frames: np.ndarray) -> Callable[[tuple[int, ...]], list[float]]:
        carry, word, video, out = (
            value.detach().double().numpy() for value in (self.carry, self.word, self.video, self.out)
        )
        clip = video @ frames.astype(np.float64).mean(0)

        def log_p(prefix: tuple[int, ...]) -> list[float]:
            hidden = np.zeros(len(carry))
            for number in (BOS, *prefix):
                hidden = np.tanh(carry @ hidden + word[number] + clip)
            x = out @ hidden
            x[EOS] += self.ending
            return (x - x.max() - np.log(np.exp(x - x.max()).sum())).tolist()

        return log_p


class Recorder(nn.Module):
    """A captioner that remembers the words it was fed."""

    def __init__(self, captioner: Captioner) -> None:
        super().__init__()
        self.captioner = captioner
        self.fed: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("encode", "start", "logits"):
            return getattr(self.captioner, name)
        return super().__getattr__(name)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        self.fed.append(words_B.clone())
        return self.captioner.step(words_B, state, memory)


def shake(module: nn.Module, seed: int = 1, scale: float = 0.6) -> None:
    """Give every parameter random values large enough that no term of an equation is hidden by rounding; PAD stays zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64) * scale)
        for part in module.modules():
            if isinstance(part, nn.Embedding):
                part.weight[PAD] = 0.0


@contextmanager
def moved(value: Tensor, step: Tensor) -> Iterator[None]:
    """The parameter `value` displaced by `step`."""
    with torch.no_grad():
        before = value.clone()
        value += step
    try:
        yield
    finally:
        with torch.no_grad():
            value.copy_(before)


def assert_gradient_of(module: nn.Module, loss: Callable[[], Tensor], oracle: Callable[[], float]) -> None:
    """Autograd's gradient of `loss` is the slope of `oracle`, parameter by parameter, along a random direction each.

    `oracle` must read the parameters of `module` when called.
    """
    module.zero_grad(set_to_none=True)
    loss().backward()
    generator = torch.Generator().manual_seed(2)
    slopes = []
    for name, value in module.named_parameters():
        along = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        step = 1e-6
        with moved(value, step * along):
            plus = oracle()
        with moved(value, -step * along):
            minus = oracle()
        slope = (plus - minus) / (2 * step)
        own = 0.0 if value.grad is None else float((value.grad * along).sum())
        assert abs(own - slope) <= 1e-6 * max(1.0, abs(slope)), f"{name}: autograd {own}, oracle {slope}"
        slopes.append(abs(slope))
    assert max(slopes) > 1e-3, "every slope is nearly zero: the check would pass for any gradient"


def gradcheck_module(module: nn.Module, compute: Callable[..., Tensor], *inputs: Tensor, fast: bool = True) -> bool:
    """`torch.autograd.gradcheck` of `compute(*inputs)` in all parameters of `module` and in `inputs`, float64."""
    names = [name for name, _ in module.named_parameters()]
    shell = _Shell(module, compute)

    def function(*values: Tensor) -> Tensor:
        parameters = {f"module.{name}": value for name, value in zip(names, values, strict=False)}
        return functional_call(shell, parameters, values[len(names) :])

    values = [value.detach().clone().requires_grad_() for value in (*module.parameters(), *inputs)]
    return torch.autograd.gradcheck(function, values, fast_mode=fast)


class _Shell(nn.Module):
    def __init__(self, module: nn.Module, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.compute = module, compute

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.compute(*inputs)
