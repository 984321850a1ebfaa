"""`leaderboards/effects.md` and `results/effects.json`: what each idea gains here beside what its paper claims."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from bench.declare.registry import dataset, method_entry
from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.sequential import Decision, decide_once
from bench.figures.drawing import VALIDATION, epochs
from bench.figures.effects import Course, Effect, courses, effects
from bench.home import Home
from bench.pages.document import (
    NOTHING,
    Bullets,
    Cell,
    Code,
    Column,
    Document,
    Field,
    Folded,
    Heading,
    Image,
    Jump,
    Line,
    Link,
    Paragraph,
    Part,
    Span,
    Table,
    anchor,
    p_value,
)
from bench.pages.files import bring_up_to_date, pictures_of, write_pages
from bench.records.curves import CURVES
from bench.records.further import read_further
from bench.records.schema import Record
from bench.records.store import cell_folder
from bench.reports.costs import record_links
from bench.reports.sections import EFFECTS as PAGE
from bench.study import answers
from bench.study.declaration import Study
from bench.study.findings import SHORT, Found, facts, found, outcome, record_clips, shown_interval

FILE = "effects.json"
REWARDS = "train.rewards"
CLAIMS = {"above": "above the interval", "inside": "inside it", "below": "below it"}
DRAWN = "drawn"  # the further metric of which rewards are the gradient
WHAT = (
    "Each row is one idea of one paper, each column a corpus; a method before a gain is the one that has the idea. A number is "
    "the gain in CIDEr-D over the idea's own control: the same corpus, clips, widths, decoding and rule for the end of training, "
    "with the settings changed of which the idea consists. The paper's own gain, over the control that it prints and on its own "
    "data, stands beside it; only gains are compared, never scores of different data."
)
RULES: tuple[Line, ...] = (
    "Declared beforehand, by a commit before the first cell: pairs, the settings in which their sides differ (any other "
    "difference is refused), margin, seeds or folds, and the rule by which a pair ends. A study that was changed gets a new "
    "name, and so does one whose code, features or settings of the data set changed: its cells would be others.",
    "A paper's control is not always ours. Rewards are printed against the model before them, and stand here against going on "
    "with cross-entropy for as long; an idea that is trained in two stages stands against two stages without it. What a claim is "
    "the difference of stands under each study, and whether it lies in the interval.",
    "helps: the interval is above zero. hurts: below. gains less than m: zero is inside, and the interval ends below the margin "
    "m. undecided: none of these. The margin is what is worth having: 2 on rendered clips, 3 on real ones, where intervals are "
    "wider. A claim below the margin is not contradicted by gains less than m; see whether it lies in the interval.",
    "With seeds: looks after the declared numbers of them, at O'Brien and Fleming's levels turned into quantiles of Student's t. "
    "The interval is that of the look at which the pair ended, so it is wider than a plain one; stop and outcome use the same.",
    "With folds: ten cells report on every clip once; the unit is the fold, its paired difference, Student's t with one degree "
    "of freedom less than folds. Training sets of folds overlap, and no unbiased estimate of that variance exists: the interval "
    "is too narrow by an unknown part. Two intervals stand beside it and decide nothing: the one that Nadeau and Bengio (2003) "
    "propose for such sets, about half as wide again, and a bootstrap over films, which speaks of the choice of clips alone.",
    "p is that of no gain at all, corrected by Holm for all declared pairs of a study, run or not; of gains less than m it says "
    "nothing, and those are not corrected. The other metrics decide nothing: their intervals are plain ones of 95 %, with seeds "
    "as many as CIDEr was looked at, and not corrected. A gain at which a pair ended early is rather too large than too small.",
    "What it does not show: other corpora, other sizes, other schedules; a pair on rendered clips says nothing about real ones.",
)


def write(home: Home, check: bool = False) -> list[Path]:
    """Bring page and JSON up to date; returns the files that changed, or would with `check`. Nothing before a study has begun."""
    pairs = found(home)
    if not pairs:
        return []
    rows = [row for one in pairs for row in facts(one)]
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    changed = write_pages({PAGE: document(pairs, home)}, home.leaderboards, check)
    return [*changed, *bring_up_to_date({home.results / FILE: text}, check)]


def document(pairs: Sequence[Found], home: Home) -> Document:
    """The page: the table of ideas and corpora, a picture, the rules, and each study in full."""
    parts: list[Part] = [Paragraph(WHAT), *_summary(pairs), _matrix(pairs)]
    heads = _heads(pairs)
    drawn = [
        Effect(f"{_based(one)}, {heads[one.study.name]}", d.mean, d.low, d.high, one.claimed(RANKED_BY))
        for one in pairs
        if (d := one.answer.decision) and d.ended  # the interval of an early look dwarfs all others
    ]
    if drawn:
        picture = effects(drawn, SHORT)
        parts.append(Image(picture, f"{pictures_of(PAGE)}/gains.svg"))
    parts.append(Folded("How this was decided, and what it does not show", (Bullets(RULES),)))
    for study in {one.study.name: one.study for one in pairs}.values():
        parts += _study(study, [one for one in pairs if one.study.name == study.name], home)
    parts.append(Paragraph(("The same as data: ", Code(f"results/{FILE}"), ".")))
    return Document("Does each paper's idea help?", tuple(parts))


def _summary(pairs: Sequence[Found]) -> list[Part]:
    """How many comparisons have ended, and how; and where printed gains lie beside them."""
    ended = [one for one in pairs if one.answer.decision and one.answer.decision.ended]
    if not ended:
        return []
    how: Counter[str] = Counter(one.answer.decision.outcome for one in ended if one.answer.decision)
    words = {"helps": "help", "hurts": "hurt", "gains less": "gain less than the margin", "undecided": "are undecided"}
    told = ", ".join(f"{how[one]} {said}" for one, said in words.items() if how[one])
    where = Counter(one.holds for one in ended if one.holds)
    claims = ", ".join(f"{where[one]} {said}" for one, said in CLAIMS.items() if where[one])
    printed = f" Of {where.total()} with a printed gain, that gain lies: {claims}." if where else ""
    return [Paragraph(f"{len(ended)} comparisons have ended: {told}.{printed}")]


def _matrix(pairs: Sequence[Found]) -> Table:
    """A row per idea, a column per corpus; nothing that will not be run."""
    pairs = [one for one in pairs if one.answer.decision or not one.study.given_up]
    corpora = list(dict.fromkeys(one.study.corpus for one in pairs))
    columns = (Column("idea"), Column("claimed gain"), *map(Column, corpora))
    rows: list[tuple[Field, ...]] = []
    for idea in dict.fromkeys(map(_idea, pairs)):
        own = [one for one in pairs if _idea(one) == idea]
        several = any(map(_base, own))
        rows.append((idea, _claims(own, several), *(_on_corpus(own, name, several) or NOTHING for name in corpora)))
    return Table(f"Gain in {SHORT} over the control", columns, tuple(rows))


def _heads(pairs: Sequence[Found]) -> dict[str, str]:
    """What each study is called beside others: after its corpus, or by its own name where the corpus has several."""
    corpora = [one.corpus for one in {one.study.name: one.study for one in pairs}.values()]
    return {
        one.study.name: one.study.corpus if corpora.count(one.study.corpus) == 1 else one.study.name for one in pairs
    }


def _on_corpus(own: Sequence[Found], corpus: str, several: bool) -> tuple[Span, ...]:
    """What has come of an idea on a corpus, one study after the other; what all of it rests on is said once."""
    here = [one for one in own if one.study.corpus == corpus]
    counted = [_counted(one) for one in here if one.answer.decision]
    told: list[Span] = []
    for one in here:
        told += ["; "] if told else []
        told += _told(one, several)
        if one.answer.decision and (len(set(counted)) > 1 or len(counted) == 1):
            told.append(f", {_counted(one)}")
    if len(counted) > 1 and len(set(counted)) == 1:
        told.append(f"; each {counted[0]}")
    return tuple(told)


def _claims(own: Sequence[Found], several: bool) -> str:
    """What is claimed for an idea, with the columns that it is claimed for where they differ on one base."""
    columns: dict[tuple[str, str], set[str]] = {}
    for one in own:
        columns.setdefault((_base(one), _claim(one, several)), set()).add(one.study.corpus)
    alone = {base for base, _ in columns if len({frozenset(c) for (b, _), c in columns.items() if b == base}) == 1}
    return "; ".join(
        claim if base in alone else f"{', '.join(sorted(of))}: {claim}" for (base, claim), of in columns.items()
    )


def _base(one: Found) -> str:
    """The method that has the idea, where a pair is named after it: an idea has one row for all methods."""
    method, _, variant = one.pair.idea.run.partition(":")
    card = method_entry(method).card
    base = method if card is None else card.variants[variant or card.default].settings.get("base", method)
    return base if one.name.endswith(f"_{base}") else ""


def _idea(one: Found) -> str:
    """What the row of a pair is called."""
    return f"{one.pair.paper}: {one.name.removesuffix(_base(one)).replace('_', ' ').strip()}"


def _based(one: Found) -> str:
    """`recnet: reconstructor (transformer)`."""
    return f"{_idea(one)} ({base})" if (base := _base(one)) else _idea(one)


def _on_base(one: Found, said: str, several: bool) -> str:
    """With the method that has the idea, where it has a row for `several`."""
    return f"{_base(one) or one.pair.idea.run.partition(':')[0]}: {said}" if several else said


def _told(one: Found, several: bool) -> tuple[Span, ...]:
    """Gain, which leads to its study, and outcome. A gain or loss that was found says its p among the pairs of the study, and
    whether it outlasts the overlap of training sets."""
    decision = one.answer.decision
    said = outcome(one.study, decision)
    if decision is None:
        return (_on_base(one, said, several),)
    if decision.outcome in ("helps", "hurts") and one.p_holm is not None:
        overlap = one.answer.overlap
        lost = overlap is not None and overlap[0] <= 0 <= overlap[1]
        said += f" (Holm's p {p_value(one.p_holm)}{'; not where folds are taken to overlap' if lost else ''})"
    said += " (study given up)" if one.study.given_up else ""
    gain = Jump(shown_interval(decision), anchor(_headed(one.study)))
    return (*((before,) if (before := _on_base(one, "", several)) else ()), gain, f", {said}")


def _claim(one: Found, several: bool) -> str:
    gain = one.claimed(RANKED_BY)
    said = (
        f"{gain:+.1f} ({one.claimed_in})"
        if gain is not None
        else f"{NOTHING} ({one.pair.unclaimed or 'no CIDEr printed'})"
    )
    return _on_base(one, said, several)


def _counted(one: Found) -> str:
    """`12 seeds of 1,000 clips`."""
    assert one.answer.decision is not None
    clips = f"{record_clips(one.answer.counted[0][0]):,} clips"
    return f"{clips} in {one.study.folds} folds" if one.study.folds else f"{one.answer.decision.seeds} seeds of {clips}"


def _study(study: Study, pairs: Sequence[Found], home: Home) -> list[Part]:
    """One study in full."""
    given_up = f"It was given up: {study.given_up}" if study.given_up else ""
    return [
        Heading(2, _headed(study)),
        Paragraph((*_terms(study, pairs, home), *_cost(pairs))),
        *(Paragraph(text) for text in (given_up, study.remarks) if text),
        Bullets(tuple(f"{one.name}: {_question(one)}" for one in pairs)),
        _decisions(study, pairs),
        *(part for one in pairs for part in _rewarded(one, home)),
        Folded("The other metrics, and the records", (_more(study, pairs, home),)),
    ]


def _headed(study: Study) -> str:
    return f"Study {study.name}"


def _terms(study: Study, pairs: Sequence[Found], home: Home) -> Line:
    """On what and by which rule a study decides, where that is declared, and what makes it."""
    asked = answers.read(home, study.name)
    looks = ", ".join(map(str, study.seeds()))
    rule = (
        f"{looks} folds, looked at once"
        if study.folds
        else f"looks after {looks} seeds; ends undecided at ± {study.half_width:g}"
    )
    commit = f", commit {asked.commit[:12]}" if asked and asked.commit else ""
    declared = f"declaration {study.digest[:12]}{commit}"
    return (
        f"Corpus {study.corpus} ({_clips(study, pairs)}), {rule}; margin {study.margin:g}; {study.precision}; {declared}. ",
        "Made by ",
        Code(f"bench study {study.name}"),
        ". Scores of the corpus: ",
        Link(study.corpus, study.corpus, page=True),
        ".",
    )


def _clips(study: Study, pairs: Sequence[Found]) -> str:
    """What clips a study is on, and on how many of them a cell trains, as far as declaration and records tell."""
    definition = dataset(study.dataset)
    if definition.generated:
        size = definition.options.get("size")
        return f"rendered clips{f'; each cell trains on {size[0]:,}' if size else ''}"
    reported = next((record_clips(one.answer.counted[0][0]) for one in pairs if one.answer.decision), None)
    trained = f"; each cell trains on {answers.trained_on(study, reported):,} clips" if study.folds and reported else ""
    return f"splits {study.splits}{trained}"


def _decisions(study: Study, pairs: Sequence[Found]) -> Table:
    """A row for each pair: what came out."""
    over = (
        Column(
            "with overlap",
            True,
            "the interval by the variance of Nadeau and Bengio (2003), for training sets that overlap",
        ),
        Column(f"{SHORT} over films", True, "95 % of choices of films: the choice of clips alone"),
    )
    columns = (
        Column("pair"),
        Column("outcome"),
        Column(f"{SHORT} gain", True, "mean of paired differences and the interval that decided"),
        Column("p (Holm)", True, "over all declared pairs of this study"),
        *(over if study.folds else ()),
        Column("claimed", True, "the paper's gain, and where it lies beside the interval that decided"),
        Column("control", True, f"mean {SHORT} of the control"),
        Column("capped", True, "cells that ended at their cap"),
    )
    rows: list[tuple[Field, ...]] = []
    for one in pairs:
        decision, ran = one.answer.decision, one.answer.cells
        p: Field = NOTHING if one.p_holm is None else Cell(p_value(one.p_holm), one.p_holm)
        spread = map(_between, (one.answer.overlap, one.answer.films)) if study.folds else ()
        claim = one.claimed(RANKED_BY)
        claimed = NOTHING if claim is None else f"{claim:+.1f}{f', {one.holds}' if one.holds else ''}"
        control = [record.scores[record.split][RANKED_BY] for record in one.answer.counted[1]] if decision else []
        capped = f"{sum(record.capped for record in ran)} of {len(ran)}" if ran else NOTHING
        scored = f"{fmean(control):.1f}" if control else NOTHING
        rows.append((one.name, outcome(study, decision), _gain(decision), p, *spread, claimed, scored, capped))
    return Table(f"Study {study.name}", columns, tuple(rows))


def _question(one: Found) -> str:
    """What a pair asks; where its declaration put it wrongly, also how."""
    return f"{one.pair.reworded} (declared as: {one.pair.question})" if one.pair.reworded else one.pair.question


def _between(limits: tuple[float, float] | None) -> str:
    return f"{limits[0]:+.2f} .. {limits[1]:+.2f}" if limits else NOTHING


def _rewarded(one: Found, home: Home) -> list[Part]:
    """How the validation score goes on in a phase with rewards and in the same phase without, where a pair asks for that."""
    if REWARDS not in one.pair.differs or one.answer.decision is None:
        return []
    idea, control = (
        [course for record in side if (course := _course(record, home)) is not None]
        for side in (one.answer.idea, one.answer.control)
    )
    if not idea or not control:
        return []
    words = (
        f"The phase of {one.name} that has rewards, and the same phase without. Both go on from the best validation score of the "
        "phase before, the highest of many and so too high: what goes on without rewards shows by how much. Where the reward "
        "still rises at the end the declared passes were few, and the outcome holds for so many and no more."
    )
    picture = courses(idea, control, f"{SHORT}-D (tokens)")
    parts: list[Part] = [Paragraph(words), Image(picture, f"{pictures_of(PAGE)}/{one.study.name}-{one.name}.svg")]
    return [*parts, Paragraph(drawn)] if (drawn := _drawn(one, home)) else parts


def _drawn(one: Found, home: Home) -> Line:
    """What a caption is worth that is drawn from the model, with rewards and without, where `bench metrics` has counted it."""
    sides = [
        {
            record.seed: drawn
            for record in side
            if "cells" not in record.config and (drawn := read_further(cell_folder(home.results, record)).get(DRAWN))
        }
        for side in (one.answer.idea, one.answer.control)
    ]
    both = sorted(sides[0].keys() & sides[1].keys())
    seeds = [seed for seed in both if sides[0][seed]["signature"] == sides[1][seed]["signature"]]
    if len(seeds) < 2:
        return ()
    idea, control = ([side[seed]["value"] for seed in seeds] for side in sides)
    gain = decide_once([a - b for a, b in zip(idea, control, strict=True)], 0.0)
    cells = f"{'folds' if one.study.folds else 'seeds'} {', '.join(map(str, seeds))}"
    return (
        "A policy gradient raises the expected score of captions that are drawn word by word, not that of the caption that beam "
        f"search finds. On the test clips a drawn caption has {fmean(idea):.2f} with rewards and {fmean(control):.2f} without, a "
        f"gain of {shown_interval(gain)} by a plain t interval over {cells}, of which the trained weights were kept (",
        Code(f"bench metrics dataset={one.study.corpus} metrics={DRAWN}"),
        "). It decides nothing.",
    )


def _course(record: Record, home: Home) -> Course | None:
    """The last phase of a cell; None for a row of folds, and where there are no curves of two phases."""
    folder = cell_folder(home.results, record)
    if record.state != "done" or "cells" in record.config or not (folder / CURVES).is_file():
        return None
    rows = epochs(folder)
    before = [row for row in rows if row.phase != rows[-1].phase]
    last = [row for row in rows if row.phase == rows[-1].phase and VALIDATION in row.values]
    scores = [row.values[VALIDATION] for row in before if row.phase == before[-1].phase and VALIDATION in row.values]
    if not scores or not last:
        return None
    drawn, baseline = (
        tuple(100 * row.values[name] for row in last if name in row.values) for name in ("reward", "baseline")
    )
    return Course(
        tuple(row.captions - before[-1].captions for row in last),
        tuple(row.values[VALIDATION] - max(scores) for row in last),
        drawn,
        baseline,
    )


def _more(study: Study, pairs: Sequence[Found], home: Home) -> Table:
    """The metrics that decide nothing, both sides by name, and their records."""
    others = [metric for metric in SHOWN if metric != RANKED_BY]
    columns = (
        Column("pair"),
        *(Column(f"{SHOWN[metric]} gain", True) for metric in others),
        Column("idea"),
        Column("control"),
        Column("differs", help="the settings of which the idea consists"),
        Column("claimed is", help="what the paper's gain is the difference of"),
        Column("records, idea"),
        Column("records, control"),
    )
    rows: list[tuple[Field, ...]] = []
    for one in pairs:
        gains = [_gain(one.answer.of(metric)) for metric in others]
        links = [record_links(side, home, PAGE) for side in one.answer.counted]
        sides = one.pair.idea.label, one.pair.control.label, ", ".join(one.pair.differs)
        rows.append((one.name, *gains, *sides, one.claimed_over or one.pair.unclaimed, *links))
    return Table(f"More of study {study.name}", columns, tuple(rows))


def _cost(pairs: Sequence[Found]) -> Line:
    """What the cells of all pairs have read, and how much of it was read once for several."""
    ran = {record.key: record.ledger for one in pairs for record in one.answer.cells if record.ledger is not None}
    if not ran:
        return ()
    captions = sum(ledger.captions for ledger in ran.values())
    shared = sum(ledger.reused_captions or 0 for ledger in ran.values())
    hours = sum((ledger.fit_seconds or 0) - (ledger.reused_seconds or 0) for ledger in ran.values()) / 3600
    return (
        f" Its {len(ran)} cells were trained on {captions:,} captions, of which {shared / captions:.0%} were taken over from "
        f"phases that another cell had trained; training took {hours:.1f} hours of cells.",
    )


def _gain(decision: Decision | None) -> Cell:
    return Cell(shown_interval(decision), decision.mean if decision else None)
