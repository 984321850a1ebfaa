"""Captions of the parts of a video as files: JSON lines, and the subtitles SRT and WebVTT."""

from __future__ import annotations

import contextlib
import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.disk.whole import replacing
from bench.features.video import Span
from bench.method import Caption

Write = Callable[[Span, Caption], None]


def clock(seconds: float, mark: str = ".") -> str:
    """`01:02:03.500`, as subtitles tell the time; `mark` stands before the thousandths."""
    thousandths = round(1000 * seconds)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"


@contextlib.contextmanager
def subtitles(folder: Path | None, name: str, video: str) -> Iterator[Write]:
    """What writes the caption of each part into `name`.jsonl, .srt and .vtt, which stand in `folder` when all parts are written;
    without a folder it writes nothing. Nothing is held in memory. Raises OSError.
    """
    if folder is None:
        yield lambda span, caption: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        asides = [stack.enter_context(replacing(folder / f"{name}{ending}")) for ending in (".jsonl", ".srt", ".vtt")]
        with contextlib.ExitStack() as open_files:
            lines, srt, vtt = (open_files.enter_context(aside.open("w", encoding="utf-8")) for aside in asides)
            vtt.write("WEBVTT\n\n")
            count = 0

            def write(span: Span, caption: Caption) -> None:
                nonlocal count
                start, end = span
                told = {"video": video, "start": round(start, 3), "end": round(end, 3), "caption": caption.text}
                lines.write(json.dumps(told | {"log_probability": caption.log_probability}, ensure_ascii=False) + "\n")
                text = " ".join(caption.text.split())
                if not text:  # a subtitle without words would end the one before it for some players
                    return
                count += 1
                srt.write(f"{count}\n{clock(start, ',')} --> {clock(end, ',')}\n{text}\n\n")
                vtt.write(f"{clock(start)} --> {clock(end)}\n{html.escape(text, quote=False)}\n\n")

            yield write
