"""CLIPScore of videos (Hessel et al., EMNLP 2021, eq. 1), by an image and a text network of open_clip, which see no references.

`clipscore:NETWORK`, `clipscore:NETWORK:WEIGHTS`: open_clip's names, as those of the encoders `clip:..`; behind them may stand a
file of weights, or `random`, which scores nothing and shows that the way is clear. A clip's score is the mean over its frames.
"""

from __future__ import annotations

from typing import Any

import torch

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import AbsentError, many, named
from bench.evaluation.further import Captioned, Measured
from bench.features.backends import need_open_clip
from bench.features.encoders import built, find_file, scaled
from bench.features.specs import Spec, spec_of
from bench.features.video import UnreadableVideoError, read_frames

MODEL = "ViT-B-32-quickgelu"  # the network of the paper, as open_clip calls it; its weights are OpenAI's
PROMPT = "A photo depicts "  # before each caption, section 3 of the paper
SCALE = 2.5  # w of eq. 1
FRAMES = 8
TEXTS = 64  # captions that are read at once


def clipscore(given: Captioned) -> Measured:
    """w max(cos(frame, caption), 0), the mean over frames, then over clips, in percent. Raises BenchError."""
    videos = given.videos()
    if absent := [clip for clip in given.captions if clip not in videos]:
        raise AbsentError(
            f"clipscore looks at the videos, and {many(len(absent), 'clip')} of {len(given.captions):,} have none here "
            f"({named(absent)}): name their folder in the definition, streams: {{pixels: {{videos: FOLDER}}}}"
        )
    spec, network, made_of = _network(given.option or MODEL)
    clip_ = need_open_clip(spec.name)
    tokenizer = clip_.get_tokenizer(spec.network)
    clips, scores = list(given.captions), {}
    with torch.inference_mode():
        for start in range(0, len(clips), TEXTS):
            part = clips[start : start + TEXTS]
            texts_CD = network.encode_text(tokenizer([PROMPT + given.captions[one] for one in part]), normalize=True)
            for one, text_D in zip(part, texts_CD, strict=True):
                path, span = videos[one]
                try:
                    pixels = torch.from_numpy(read_frames(path, FRAMES, spec.preprocessing, span))
                except UnreadableVideoError as error:
                    raise BenchError(f"clipscore: the video {path} of clip {one} {error}") from None
                frames_TD = network.encode_image(scaled(pixels, spec.preprocessing, torch.float32), normalize=True)
                scores[one] = 100 * SCALE * float((frames_TD @ text_D).clamp(min=0).mean())
    signature = (
        f"CLIPScore|model:{spec.network}|weights:{made_of}{'|gelu:quick' if spec.arguments['quick_gelu'] else ''}"
        f"|open_clip:{clip_.__version__}|frames:{FRAMES}|n:{len(clips)}|scale:100"
    )
    return Measured(sum(scores.values()) / len(scores), signature, scores)


def _network(option: str) -> tuple[Spec, Any, str]:
    """The encoder, the whole network with its side of texts, and what says of which weights it is."""
    name, _, last = option.rpartition(":")
    weights = last if last == "random" or last.endswith(".safetensors") else "pretrained"
    spec = spec_of(f"clip:{option if weights == 'pretrained' else name}")
    network = built(spec, weights, gives="texts too").eval()
    if weights.endswith(".safetensors"):
        return spec, network, file_digest(find_file(weights, {}))[:19]
    return spec, network, str(spec.pretrained) if weights == "pretrained" else weights
