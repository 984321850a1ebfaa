"""An SVG taken apart, for tests of figures."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
from PIL import Image

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


class Drawn:
    """Its texts, its groups by id, its images."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)
        self.texts = ["".join(text.itertext()).strip() for text in self.root.iter(f"{SVG}text")]
        self.groups = {group.get("id", ""): group for group in self.root.iter(f"{SVG}g")}

    def marks(self, group: str) -> int:
        """Markers of a curve: one for each point."""
        return sum(1 for _ in self.groups[group].iter(f"{SVG}use"))

    def ids(self, start: str) -> list[str]:
        return sorted(name for name in self.groups if name.startswith(start))

    def styles(self, group: str) -> str:
        return " ".join(
            part.get("style", "") for part in self.groups[group].iter() if part.tag in (f"{SVG}path", f"{SVG}use")
        )

    def images(self) -> list[np.ndarray]:
        found = []
        for image in self.root.iter(f"{SVG}image"):
            content = base64.b64decode(image.get(LINK, "").partition("base64,")[2])
            found.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
        return found


def border_colours(drawn: Drawn) -> dict[str, str]:
    found = {name: re.search(r"stroke: (#\w+)", drawn.styles(name)) for name in drawn.ids("border")}
    return {name: match.group(1) for name, match in found.items() if match}
