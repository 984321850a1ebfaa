"""What a cell trains and decodes on: corpus, vocabulary and streams, put together from its declaration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.cell.provenance import placed
from bench.data.batches import CorpusClips, StreamSource
from bench.data.corpus import corpus_of
from bench.data.source import Corpus
from bench.data.text import build_vocabulary, tokenize_all
from bench.declare.registry import dataset, method_digest, method_entry
from bench.declare.settings import most_captions
from bench.errors import ChangedError
from bench.features.cache import Cache
from bench.features.node_copy import local_copy
from bench.features.sidecar import cache_path
from bench.home import Home
from bench.method import Reference, StreamInfo, Vocabulary
from bench.plan.cells import ENGINE
from bench.plan.sharing import room_for_features
from bench.plan.streams import captions_digest

MEMORY_LIMIT = 4 * 2**30  # bytes of one stream of one split; beyond it clips are read one by one
PIXEL_LIMIT = 2**28  # of pixels: a step spends far longer in the encoder than in reading its clips
CPU = torch.device("cpu")


@dataclass
class Inputs:
    """Training and validation clips with their references; clips to decode without theirs.

    `on_gpu` says that the features of the training and validation clips lie on the GPU.
    """

    train: CorpusClips
    val: CorpusClips
    target: CorpusClips
    val_references: dict[str, list[tuple[str, ...]]]
    vocabulary: Vocabulary
    on_gpu: bool = False


def check_planned(config: Mapping[str, Any], home: Home) -> None:
    """Raise ChangedError where captions, split lists or code are others than those that the cell's key names: a cell may wait for
    hours between its plan and its start. Its streams are compared as they are opened."""
    definition = dataset(config.get("dataset_path") or config["dataset"])
    loss = config.get("loss")
    planned = {
        f"the captions or the split lists of data set {definition.name}": (
            config["captions_digest"],
            captions_digest(definition, config.get("splits") or "default", home),
        ),
        f"the code of {config['method']}": (config["method_digest"], _code(config["method"])),
        **({f"the code of {loss['provider']}": (loss["provider_digest"], _code(loss["provider"]))} if loss else {}),
        "the engine": (str(config["engine"]), str(ENGINE)),
    }
    for what, (then, present) in planned.items():
        if then != present:
            raise _changed(what, then, present)


def _code(method: str) -> str:
    folder = method_entry(method).folder
    assert folder is not None
    return method_digest(folder)


def _changed(what: str, then: str, present: str) -> ChangedError:
    return ChangedError(
        f"{what} changed since this cell was planned ({present[:12]} instead of {then[:12]}); run the same command again"
    )


def budget_of(config: Mapping[str, Any], home: Home) -> int:
    """Training captions that a cell may read: those of its training clips, once for every epoch."""
    corpus = corpus_of(config, home)
    clips = _fraction(corpus.splits["train"], config["train"]["data_fraction"])
    return most_captions(config["train"], config["phases"], sum(len(corpus.captions[clip]) for clip in clips))


def gather(
    config: Mapping[str, Any],
    home: Home,
    spend: Callable[[int], None],
    wait: Callable[[float], None] | None = None,
    device: torch.device = CPU,
) -> Inputs:
    """Load what `fit` and `decode` need. References of the test split do not outlive this function.

    `spend` gets the number of training captions that are read, `wait` the seconds in which a batch was waited for. `device` is
    that of the training: on a GPU features stay there where they fit, and batches are made to be copied without a wait.
    """
    corpus = corpus_of(config, home)
    train_ids = _fraction(corpus.splits["train"], config["train"]["data_fraction"])
    text = config["text"]
    tokens = {
        split: _tokens(corpus, ids, text["tokenizer"])
        for split, ids in (("train", train_ids), ("val", corpus.splits["val"]))
    }
    vocabulary = build_vocabulary(
        [words for captions in tokens["train"].values() for words in captions], text["min_count"]
    )
    references = {
        clip: tuple(
            Reference(caption.id, clip, caption.text, words, tuple(vocabulary.encode(words, text["max_words"])))
            for caption, words in zip(corpus.captions[clip], tokens["train"][clip], strict=True)
        )
        for clip in train_ids
    }
    caches = {name: _cache(config, name, mark, home) for name, mark in config["streams"].items()}

    stay = _stay(caches.values(), len(train_ids) + len(corpus.splits["val"]), device)

    def clips(ids: Sequence[str], own: Mapping[str, tuple[Reference, ...]], stay: bool, **meters: Any) -> CorpusClips:
        sources = {name: _source(name, cache, ids, load=not stay) for name, cache in caches.items()}
        found = CorpusClips(ids, own, sources, vocabulary, seed=config["seed"], **meters)
        return found.on(device) if stay else found

    return Inputs(
        clips(train_ids, references, stay, spend=spend, wait=wait, pinned=device.type == "cuda"),
        clips(corpus.splits["val"], {}, stay),
        clips(corpus.splits[config["split"]], {}, False),
        tokens["val"],
        vocabulary,
        stay,
    )


def _stay(caches: Iterable[Cache], clips: int, device: torch.device) -> bool:
    """Whether the features of so many clips, in the type in which they are stored, may fill so much of the GPU."""
    if device.type != "cuda":
        return False
    free, whole = torch.cuda.mem_get_info(device)
    stored = sum(clips * math.prod(cache.shape) * cache.dtype.itemsize for cache in caches)
    return stored <= room_for_features(placed()[0] or 1.0, whole, free)


def _fraction(ids: Sequence[str], fraction: float) -> tuple[str, ...]:
    """A random part of the training clips, the same for every method and seed; ids keep their order."""
    if fraction >= 1:
        return tuple(ids)
    count = max(1, round(len(ids) * fraction))
    chosen = np.sort(np.random.default_rng(0).permutation(len(ids))[:count])
    return tuple(ids[place] for place in chosen)


def _tokens(corpus: Corpus, ids: Sequence[str], tokenizer: str) -> dict[str, list[tuple[str, ...]]]:
    """Tokens of every caption of `ids`, by clip, in one call: the PTB tokenizer is a Java program."""
    flat = tokenize_all([caption.text for clip in ids for caption in corpus.captions[clip]], tokenizer)
    words = iter(flat)
    return {clip: [next(words) for _ in corpus.captions[clip]] for clip in ids}


def _cache(config: Mapping[str, Any], name: str, mark: str, home: Home) -> Cache:
    cache = Cache(cache_path(home, config["dataset"], name))
    if cache.fingerprint != mark:
        raise _changed(f"stream {name} of data set {config['dataset']} ({cache.path})", mark, cache.fingerprint)
    if home.node_cache is None:
        return cache
    content = cache.content
    cache.close()
    return Cache(local_copy(cache.path, content, home.node_cache))


def _source(name: str, cache: Cache, ids: Sequence[str], load: bool = True) -> StreamSource:
    """A stream of these clips; with `load` taken into memory where it is not too large."""
    info = StreamInfo(name, cache.shape, cache.timed, cache.fingerprint, cache.encoder, cache.made_by)
    size = len(ids) * math.prod(cache.shape) * cache.dtype.itemsize
    if not load or size > (PIXEL_LIMIT if cache.dtype == np.uint8 else MEMORY_LIMIT):
        return StreamSource(info, cache.load, slow=True)
    values, lengths = cache.load(ids)
    row = {clip: place for place, clip in enumerate(ids)}

    def read(clips: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        places = [row[clip] for clip in clips]
        return values[places], lengths[places]

    return StreamSource(info, read)
