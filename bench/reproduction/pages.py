"""The pages of all targets that were asked for and of the study of ideas, from declarations, records and the list of both."""

from __future__ import annotations

from pathlib import Path

from bench.declare.registry import find_methods
from bench.home import Home
from bench.pages.document import Code, Column, Document, Field, Link, Paragraph, Table
from bench.pages.files import write_pages
from bench.reproduction import answers as asked
from bench.reproduction import ideas
from bench.reproduction.declaration import Reproduction, find_reproductions
from bench.reproduction.targets import FOLDER, document, page_of


def write(home: Home, check: bool = False) -> list[Path]:
    """Bring the pages up to date; returns the files that changed, or would with `check`.

    Raises BenchError: a damaged file of what was asked for, a page that lost its markers.
    """
    names = asked.targets(home)
    if not names:
        return []
    known = find_reproductions(find_methods())
    made = [known[name] for name in names if name in known]
    documents = {page_of(one): document(one, home) for one in made}
    if study := ideas.document(home):
        documents[ideas.PAGE] = study
    documents[f"{FOLDER}/README"] = _index(made, home, study is not None)
    return write_pages(documents, home.leaderboards, check)


def _index(made: list[Reproduction], home: Home, study: bool) -> Document:
    """The list of the pages."""
    rows: list[tuple[Field, ...]] = []
    if study:
        rows.append(((Link(ideas.NAME, ideas.NAME, page=True),), "each paper's idea against its own control", "ideas"))
    for one in made:
        made_on = ", ".join(
            f"{section.dataset or 'the data of the paper'} ({'in small' if section.small else f'{section.protocol} protocol'})"
            for section in asked.read(home, one.full).sections.values()
        )
        rows.append(((Link(one.full, one.full, page=True),), one.target.title, made_on))
    words = (
        "One page for each table and figure that was made again here; ",
        Code("bench reproduce list"),
        " shows what else there is.",
    )
    columns = (Column("target"), Column("what"), Column("made on"))
    return Document("Reproductions", (Paragraph(words), Table("Targets", columns, tuple(rows))))
