"""GL-RG's long range as a stream: probabilities of a data set's frequent words, by the network that a trained method holds.

No published network knows the words of a data set: it is learned from the frames of its training clips, as the first phase of
`glrg` does. Here its answers for every clip are put into the cache, where other methods and other variants read them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench import BenchError
from bench.cell.checkpoint import CHECKPOINT, load
from bench.data.corpus import all_clips
from bench.declare.dataset import DatasetDefinition
from bench.disk.digests import file_digest
from bench.features.cache import Cache, CacheWriter
from bench.features.importers import up_to_date
from bench.features.shapes import write_streams
from bench.features.sidecar import cache_path, read_sidecar
from bench.home import Home

WORDS = "words"


def extract_words(
    definition: DatasetDefinition, home: Home, checkpoint: Path, replace: bool = False, device: str = "auto"
) -> Path:
    """Fill the cache of `words` [K] from that of `frames` by the word network of the checkpoint; returns its path.

    `checkpoint` is a file or the folder of a cell. Raises BenchError where the method holds no such network, where the frames
    are others than it was trained on, and where the cache was made otherwise and is not to be replaced.
    """
    checkpoint = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    saved = load(checkpoint, device=device)
    network: Any = getattr(getattr(saved.method, "module", None), "word_network", None)
    if network is None:
        raise BenchError(
            f"{checkpoint} holds {saved.config['method']}, trained without a network of words: take one of glrg, trained "
            f"where the data set has no stream {WORDS}"
        )
    network.eval()
    path, target = (cache_path(home, definition.name, name) for name in ("frames", WORDS))
    if definition.generated:
        write_streams(
            home, definition.options, name=definition.name, streams=["frames"]
        )  # of every clip, not of a subset
    options = {"name": "words", "weights": file_digest(checkpoint), "frames": read_sidecar(path)["fingerprint"]}
    request = {"options": options, "files": [{"path": str(checkpoint.resolve())}]}
    clips, _ = all_clips(definition, home)
    if up_to_date(target, request, list(clips)):
        return target
    if target.is_file() and not replace:
        raise BenchError(f"{target} is there and was made otherwise: say replace=true to make it anew")
    with Cache(path) as frames:
        known = saved.streams["frames"]
        if frames.shape[1:] != known.shape[1:] or frames.encoder != known.encoder:
            raise BenchError(
                f"{path} holds frames of width {frames.shape[-1]} by {frames.encoder or 'an encoder that is not named'}, and "
                f"{checkpoint} was trained on width {known.shape[-1]} by {known.encoder or 'one that is not named'}"
            )
        attributes = {"encoder": options, "source": {"request": request, "told": True}}
        shape = (network.output.out_features,)
        with CacheWriter(target, WORDS, shape, False, "float16", list(clips), attributes, verb="extract") as writer:
            for clip in writer.missing:
                values, length = frames.read(clip)
                with torch.inference_mode():
                    frames_CTD = torch.from_numpy(values).float()[None].to(saved.device)
                    logits = network(frames_CTD, (torch.arange(len(values)) < length)[None].to(saved.device))
                writer.write(clip, torch.sigmoid(logits)[0].cpu().numpy())
    return target
