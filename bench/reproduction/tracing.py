"""What figures show beyond the records: frames, captions of a corpus, attention, hidden states, probabilities.

`TRACES[figure](drawing, home)` leaves `drawing.data/<figure>.json` (and `.npz` with frames) for `bench.figures`.
What a cell cannot tell (its checkpoint or its features are not on this machine) is left as a sentence, not raised.
A trace that speaks of the same cells and was asked with the same arguments is left as it is.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.cell.pixels import Pixels
from bench.cell.replay import Trained, declared, held_for_backward, last_states, load
from bench.data.corpus import corpus_of, load_corpus
from bench.data.source import Corpus
from bench.data.text import tokenize_all
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import dataset, method_entry
from bench.figures.drawing import Drawing, Finished
from bench.home import Home
from bench.method import Caption
from bench.records.clip_scores import SCORES, read_scores
from bench.records.figure_data import Shown, Trace, asked, read_trace, spread, write_trace
from bench.records.store import PREDICTIONS, read_predictions

DIMENSIONS = 2  # of a page

Found = tuple[Mapping[str, Any], list[Shown]]
"""Facts and clips of a figure."""

ByClip = dict[str, dict[str, Mapping[str, Any]]]
"""What cells made of clips, by clip and cell."""

Places = Callable[[str, int], Sequence[int]]
"""Which frames of a clip are shown, from its id and the number of its frames."""


class _Scene:
    """What one figure is traced from: the first seed of every cell, and the sentences of those that cannot tell."""

    def __init__(self, drawing: Drawing, home: Home) -> None:
        self.drawing, self.home = drawing, home
        self.cells: dict[str, Finished] = {}
        for cell in drawing.cells:
            self.cells.setdefault(cell.name, cell)
        self.lacking: dict[str, str] = {}

    def asked(self, name: str, otherwise: Any) -> Any:
        return self.drawing.arguments.get(name, otherwise)

    def trained(self, name: str) -> Trained | None:
        """A cell with its weights; None, and a sentence in `lacking`, where it cannot be had."""
        try:
            return load(self.cells[name].folder, self.home)
        except BenchError as error:
            self.lacking[name] = _without_paths(error, self.home)
            return None

    def last(self) -> tuple[str, Trained] | None:
        """The last cell: in a paper's own order the proposed one."""
        for name in list(self.cells)[-1:]:
            trained = self.trained(name)
            if trained is not None:
                return name, trained
        return None

    @cached_property
    def _config(self) -> Mapping[str, Any] | None:
        """The declaration of the first cell; that in its checkpoint also knows where a data set of one's own lies."""
        cell = next(iter(self.cells.values()), None)
        if cell is None:
            return None
        return declared(cell.folder) or {"dataset_path": None, **cell.record.config}

    @cached_property
    def definition(self) -> DatasetDefinition:
        """The data set of this section."""
        return dataset((self._config and self._config["dataset_path"]) or self.drawing.dataset)

    @cached_property
    def corpus(self) -> Corpus:
        """Clips and captions of this section."""
        if self._config is None:
            return load_corpus(self.definition, self.home, subset=self.drawing.subset)
        return corpus_of(self._config, self.home)


def _without_paths(error: BenchError, home: Home) -> str:
    return str(error).replace(f"{home.root}/", "")


def _trace(figure: str, find: Callable[[_Scene], Found]) -> Callable[[Drawing, Home], None]:
    def write(drawing: Drawing, home: Home) -> None:
        """Leave the trace of this figure beside the page, unless it is there."""
        scene = _Scene(drawing, home)
        keys = {name: cell.record.key for name, cell in scene.cells.items()}
        arguments = asked(drawing.arguments, drawing.dataset, drawing.split, drawing.subset)
        before = read_trace(drawing.data, figure)
        if before and not before.lacking and (before.cells, before.arguments) == (keys, arguments):
            return
        try:
            facts, clips = find(scene)
        except BenchError as error:
            scene.lacking[drawing.dataset] = _without_paths(error, home)
            facts, clips = {}, []
        write_trace(drawing.data, Trace(figure, keys, arguments, scene.lacking, facts, tuple(clips)))

    return write


# -- clips and frames ----------------------------------------------------------------------------------------------------


def _chosen(scene: _Scene, count: int) -> tuple[list[str], list[str], str]:
    """Clips at even distances from the best to the worst of the last cell: their ids, their places in words, the rule."""
    name, cell = list(scene.cells.items())[-1]
    ids, by_metric = read_scores(cell.folder / SCORES)
    if "cider" not in by_metric:
        raise BenchError(f"{cell.folder / SCORES} has no CIDEr by which clips could be chosen")
    scores = dict(zip(ids, by_metric["cider"].tolist(), strict=True))
    order = sorted(scores, key=lambda clip: (-scores[clip], clip))
    places = spread(len(order), count)
    made = [f"CIDEr-D {scores[order[place]]:.0f}, rank {place + 1} of {len(order)}" for place in places]
    return (
        [order[place] for place in places],
        made,
        f"Clips stand at even distances from best to worst by CIDEr-D of {name}.",
    )


def _shown(
    scene: _Scene, clips: Sequence[str], made: ByClip, places: Places, lengths: Mapping[str, int] | None = None
) -> tuple[list[Shown], str]:
    """The clips with one reference, frames at `places` and what cells made of them; and why there are no pixels.

    `lengths` are the clips' frames as a method counts them; without it the places are those of the pictures themselves.
    """
    pixels = Pixels(scene.definition, scene.home, scene.asked("real_frames", False))
    captions = scene.corpus.captions
    shown = []
    for clip in clips:
        length = lengths[clip] if lengths else pixels.length(clip)
        frames = pixels.of(clip, wanted := places(clip, length), length)
        boxes = pixels.boxes(clip, wanted) if any("region_attention" in said for said in made[clip].values()) else ()
        here = (tuple(wanted), boxes) if len(frames) else ((), ())
        shown.append(Shown(clip, captions[clip][0].text, *here, made[clip], frames))
    return shown, pixels.why


def _lengths(trained: Trained, clips: Sequence[str]) -> dict[str, int]:
    """Real frames of each clip as the method reads them: of `frames`, else of `pixels`; 0 where it reads neither."""
    (batch,) = trained.inputs.target.only(clips).in_order(len(clips))
    mask_CT = batch.masks.get("frames", batch.masks.get("pixels"))
    return dict.fromkeys(clips, 0) if mask_CT is None else dict(zip(clips, mask_CT.sum(1).tolist(), strict=True))


# -- figures ---------------------------------------------------------------------------------------------------------------


def _qualitative(scene: _Scene) -> Found:
    if not scene.cells:
        return {}, []
    ids, chosen, rule = _chosen(scene, scene.asked("clips", 3))
    made: ByClip = {clip: {} for clip in ids}
    for name, cell in scene.cells.items():
        captions = read_predictions(cell.folder / PREDICTIONS, scene.corpus.splits[scene.drawing.split])
        for clip in ids:
            made[clip][name] = {"caption": captions[clip]}
    shown, why = _shown(scene, ids, made, lambda clip, length: spread(length, scene.asked("frames", 6)))
    return {"chosen": chosen, "rule": rule, "pixels": why}, shown


def _key_frames(scene: _Scene) -> Found:
    last = scene.last()
    if last is None:
        return {}, []
    name, trained = last
    captions = trained.decode(trained.inputs.target)
    if not all("key_frame" in caption.traces for caption in captions):
        return {}, []
    lengths = _lengths(trained, trained.inputs.target.ids)
    keys = {caption.clip: int(caption.traces["key_frame"]) for caption in captions}
    defaults = {clip: lengths[clip] // 2 for clip in keys}
    farthest = sorted(keys, key=lambda clip: (-abs(keys[clip] - defaults[clip]), clip))[: scene.asked("clips", 3)]
    made: ByClip = {caption.clip: {name: _made(caption, lengths[caption.clip])} for caption in captions}

    def places(clip: str, length: int) -> list[int]:
        return sorted({*range(0, length, 2), keys[clip], defaults[clip]})

    shown, why = _shown(scene, farthest, made, places, lengths)
    return {"keys": list(keys.values()), "defaults": list(defaults.values()), "pixels": why}, shown


def _looks(scene: _Scene, names: Sequence[str], places: Places) -> Found:
    """Clips with what the cells `names` attend to, and their frames at `places`."""
    if not scene.cells:
        return {}, []
    ids, _, rule = _chosen(scene, scene.asked("clips", 2))
    made: ByClip = {clip: {} for clip in ids}
    lengths = dict.fromkeys(ids, 0)
    for name in names:
        trained = scene.trained(name)
        if trained is not None:
            lengths |= _lengths(trained, ids)
            for caption in trained.decode(trained.inputs.target.only(ids)):
                made[caption.clip][name] = _made(caption, lengths[caption.clip])
    shown, why = _shown(scene, [clip for clip in ids if made[clip]], made, places, lengths)
    return {"rule": rule, "pixels": why}, shown


def _spatial_masks(scene: _Scene) -> Found:
    return _looks(scene, list(scene.cells)[-1:], lambda clip, length: [length // 2])


def _frame_weights(scene: _Scene) -> Found:
    return _looks(scene, list(scene.cells)[-1:], lambda clip, length: [])


def _region_attention(scene: _Scene) -> Found:
    return _looks(scene, list(scene.cells), lambda clip, length: spread(length, scene.asked("frames", 6)))


def _made(caption: Caption, length: int) -> dict[str, Any]:
    """A caption with its traces, padded frames cut off."""
    traces = dict(caption.traces)
    for name, axis in (("attention", 1), ("region_attention", 0)):
        if name in traces:
            values = traces[name]
            traces[name] = [row[:length] for row in values] if axis else values[:length]
    return {"words": list(caption.words), **traces}


def _hidden_states(scene: _Scene) -> Found:
    """One training caption for each of `count` training clips, drawn by the seed, against the model's own caption."""
    points: dict[str, dict[str, Any]] = {}
    seed, wanted = scene.asked("seed", 0), scene.asked("count", 200)
    perplexity, count = float(scene.asked("perplexity", 30)), 0
    for name in scene.cells:
        trained = scene.trained(name)
        if trained is None:
            continue
        random = np.random.default_rng(seed)
        train = trained.inputs.train
        captioned = [clip for clip in train.ids if train.references(clip)]
        chosen = sorted(random.permutation(len(captioned))[:wanted])
        clips = train.only([captioned[place] for place in chosen])
        count = len(clips.ids)
        perplexity = min(perplexity, (count * 2 - 1) / 3)  # its upper limit in t-SNE
        truth = [train.references(clip)[random.integers(len(train.references(clip)))].words for clip in clips.ids]
        own = [train.vocabulary.encode(caption.words) for caption in trained.decode(clips)]
        (batch,) = clips.in_order(count)
        states = [last_states(trained.captioner, batch, captions) for captions in (truth, own)]
        flat = _tsne(np.concatenate(states), perplexity, seed)
        points[name] = {"training": flat[:count], "inference": flat[count:]}
    return ({"points": points, "count": count, "perplexity": perplexity, "seed": seed} if points else {}), []


def _step_memory(scene: _Scene) -> Found:
    """Memory of a training step of every cell, with all captions of a batch at once and in pieces of `piece` captions."""
    sizes, piece = scene.asked("sizes", [8, 16, 32, 64, 128]), scene.asked("piece", 8)
    cells: dict[str, dict[str, list[int]]] = {}
    for name in scene.cells:
        trained = scene.trained(name)
        if trained is None:
            continue
        # As in training: with dropout, and with everything learning, for a loaded method does not know which parts did.
        trained.method.module.requires_grad_(True).train()
        held = {size: _held(trained, size) for size in {*sizes, *(min(piece, size) for size in sizes)}}
        cells[name] = {
            "whole": [held[size] for size in sizes],
            "pieces": [held[min(piece, size)] for size in sizes],
        }
    return {"sizes": sizes, "piece": piece, "cells": cells}, []


def _held(trained: Trained, size: int) -> int:
    """Bytes held for the backward pass over the first `size` training captions."""
    per_clip = min(size, trained.config["train"]["captions_per_clip"])
    return held_for_backward(trained.method, next(iter(trained.inputs.train.epoch(0, size, per_clip))))


def _tsne(states: NDArray[np.float32], perplexity: float, seed: int) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE

    how = TSNE(DIMENSIONS, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
    return how.fit_transform(states)


def _word_frequency(scene: _Scene) -> Found:
    corpus, definition = scene.corpus, scene.definition
    ids = corpus.splits["train"]
    tokenizer = (definition.text and definition.text.tokenizer) or "strip"
    flat = iter(tokenize_all([caption.text for clip in ids for caption in corpus.captions[clip]], tokenizer))
    tokens: Counter[str] = Counter()
    clips: Counter[str] = Counter()
    for clip in ids:
        captions = [next(flat) for _ in corpus.captions[clip]]
        tokens.update(word for words in captions for word in words)
        clips.update({word for words in captions for word in words})
    common = sorted(clips.items(), key=lambda pair: (-pair[1], -tokens[pair[0]], pair[0]))[: scene.asked("words", 15)]
    return {"tokens": sorted(tokens.values(), reverse=True), "common": common, "clips": len(ids)}, []


def _top_words(scene: _Scene) -> Found:
    last = scene.last()
    if last is None:
        return {}, []
    name, trained = last
    ids, _, rule = _chosen(scene, scene.asked("clips", 2))
    (batch,) = trained.inputs.target.only(ids).in_order(len(ids))
    if not hasattr(trained.captioner, "ranges"):
        return {}, []
    scores = {kind: values.detach().numpy() for kind, values in trained.captioner.ranges(batch).items()}
    labels = _range_labels(trained, scores)
    made: ByClip = {}
    for row, clip in enumerate(ids):
        best = {}
        for kind, values in scores.items():
            named = values[row, : len(labels[kind])]
            order = np.argsort(-named, kind="stable")[: scene.asked("top", 8)].tolist()
            best[kind] = [[labels[kind][place], float(named[place])] for place in order]
        made[clip] = {name: {"scores": best}}
    shown, why = _shown(scene, ids, made, lambda clip, length: spread(length, scene.asked("frames", 6)))
    return {"rule": rule, "pixels": why}, shown


def _range_labels(trained: Trained, scores: Mapping[str, NDArray[Any]]) -> dict[str, list[str]]:
    """Names of the entries. A stream's are numbers: its file does not say what they stand for; the words that the method
    learned itself are those of its training captions."""
    labels = {kind: [f"{kind[:-1]} {place}" for place in range(values.shape[1])] for kind, values in scores.items()}
    if "words" in scores and "words" not in trained.inputs.target.streams:
        train = trained.inputs.train
        words = importlib.import_module(f"{method_entry(trained.config['method']).module}.words")
        learned = words.frequent_words(train, scores["words"].shape[1])
        labels["words"] = [train.vocabulary.words[word] for word in learned]
    return labels


TRACES: dict[str, Callable[[Drawing, Home], None]] = {
    name: _trace(name, find)
    for name, find in {
        "qualitative": _qualitative,
        "key_frames": _key_frames,
        "spatial_masks": _spatial_masks,
        "region_attention": _region_attention,
        "frame_weights": _frame_weights,
        "hidden_states": _hidden_states,
        "step_memory": _step_memory,
        "word_frequency": _word_frequency,
        "top_words": _top_words,
    }.items()
}
