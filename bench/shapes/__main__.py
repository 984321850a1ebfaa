"""`python -m bench.shapes shape1100.mkv`: the clip of the embedded corpus that a file is named after, as a video without loss."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import BenchError
from bench.shapes import render_clip

RATE = 10  # frames a second: a clip of twenty lasts two


def film(path: Path) -> None:
    """Render the clip `path.stem` into `path`, in FFV1: its frames are the very pixels. Raises BenchError."""
    try:
        import av  # of the extra `extract`
    except ImportError as error:
        raise BenchError(
            f'videos are written by PyAV, which is not installed ({error}): pip install "captionbench[extract]"'
        ) from None
    if path.suffix != ".mkv":
        raise BenchError(f"{path} must end in .mkv, the container of video without loss")
    frames = render_clip(path.stem)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name files after clips, such as: python -m bench.shapes shape1100.mkv")
    try:
        for name in sys.argv[1:]:
            film(Path(name))
    except (BenchError, OSError) as error:
        sys.exit(f"bench.shapes: {error}")
