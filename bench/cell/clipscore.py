"""CLIPScore of videos (Hessel et al., EMNLP 2021, eq. 1), by an image and a text network of open_clip, which see no references.

`clipscore:MODEL:WEIGHTS`: a model of open_clip, and one of its published sets of weights, a .safetensors file, or `random`, which
scores nothing and shows that the way is clear. A clip's score is the mean over its frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import first_line, many, named
from bench.evaluation.further import Captioned, Measured
from bench.features.backends import INSTALL, need_torchvision
from bench.features.specs import Preprocessing
from bench.features.video import UnreadableVideoError, read_frames

MODEL, WEIGHTS = "ViT-B-32-quickgelu", "openai"  # the network of the paper, as open_clip calls it
PROMPT = "A photo depicts "  # before each caption, section 3 of the paper
SCALE = 2.5  # w of eq. 1
FRAMES = 8
TEXTS = 64  # captions that are read at once


def clipscore(given: Captioned) -> Measured:
    """w max(cos(frame, caption), 0), the mean over frames, then over clips, in percent. Raises BenchError."""
    name, _, weights = given.option.partition(":")
    name, weights = name or MODEL, weights or WEIGHTS
    videos = given.videos()
    if absent := [clip for clip in given.captions if clip not in videos]:
        raise BenchError(
            f"clipscore looks at the videos, and {many(len(absent), 'clip')} of {len(given.captions):,} have none here "
            f"({named(absent)}): name their folder in the definition, streams: {{pixels: {{videos: FOLDER}}}}"
        )
    clip_, network, made_of = _network(name, weights)
    seen = clip_.get_model_preprocess_cfg(network)
    size, tokenizer = int(np.max(seen["size"])), clip_.get_tokenizer(name)
    look = Preprocessing(size, size, seen["interpolation"].upper(), 0.0, 1.0)
    mean, deviation = (torch.tensor(seen[one]).view(1, 3, 1, 1) for one in ("mean", "std"))
    clips, scores = list(given.captions), {}
    with torch.inference_mode():
        for start in range(0, len(clips), TEXTS):
            part = clips[start : start + TEXTS]
            texts_CD = network.encode_text(tokenizer([PROMPT + given.captions[one] for one in part]), normalize=True)
            for one, text_D in zip(part, texts_CD, strict=True):
                path, span = videos[one]
                try:
                    pixels = torch.from_numpy(read_frames(path, FRAMES, look, span)).float() / 255
                except UnreadableVideoError as error:
                    raise BenchError(f"clipscore: the video {path} of clip {one} {error}") from None
                frames_TD = network.encode_image((pixels - mean) / deviation, normalize=True)
                scores[one] = 100 * SCALE * float((frames_TD @ text_D).clamp(min=0).mean())
    signature = f"CLIPScore|model:{name}|weights:{made_of}|open_clip:{clip_.__version__}|frames:{FRAMES}|n:{len(clips)}|scale:100"
    return Measured(sum(scores.values()) / len(scores), signature, scores)


def _network(name: str, weights: str) -> tuple[Any, Any, str]:
    """open_clip, the network on the CPU, and what says of which weights it is."""
    need_torchvision("clipscore")  # which open_clip imports, and which may need mending first
    try:
        import open_clip
    except ImportError as error:
        raise BenchError(f"clipscore needs open_clip, which is not installed ({error}): {INSTALL}") from None
    if name not in open_clip.list_models():
        raise BenchError(
            f"clipscore: open_clip has no model {name!r}; python -c 'import open_clip; print(open_clip.list_models())'"
        )
    path = Path(weights)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise BenchError(f"clipscore: there is no file of weights {path}")
        from safetensors.torch import load_file

        network = open_clip.create_model(name)
        try:
            network.load_state_dict(load_file(path))
        except (RuntimeError, ValueError, OSError) as error:
            raise BenchError(f"clipscore: {path} does not hold the weights of {name}: {first_line(error)}") from None
        return open_clip, network.eval(), file_digest(path)[:19]
    if weights == "random":
        torch.manual_seed(0)
        return open_clip, open_clip.create_model(name).eval(), "random"
    known = open_clip.list_pretrained_tags_by_model(name)
    if weights not in known:
        raise BenchError(
            f"clipscore: {name} has the weights {', '.join(known) or 'none'}, not {weights!r}; or FILE.safetensors, random"
        )
    try:
        return open_clip, open_clip.create_model(name, pretrained=weights).eval(), weights
    except Exception as error:  # the hub's and the network's errors are many
        raise BenchError(
            f"clipscore: the weights {weights} of {name} could not be fetched ({first_line(error)}): give a file, such as "
            f"metrics=clipscore:{name}:FILE.safetensors"
        ) from None
