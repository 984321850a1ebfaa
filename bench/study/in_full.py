"""One study in full, as the page of effects has it: by which rules it decides, what each pair came to, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import fmean, stdev
from typing import Any

from bench.declare.registry import dataset
from bench.declare.settings import CONVERGED, Train, given, whole
from bench.errors import listing, many
from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.sequential import Decision, decide_once
from bench.evaluation.statistics import seeds_for
from bench.figures.drawing import VALIDATION, epochs
from bench.figures.effects import Course, courses
from bench.home import Home
from bench.pages.document import (
    NOTHING,
    Bullets,
    Cell,
    Code,
    Column,
    Field,
    Folded,
    Heading,
    Image,
    Line,
    Link,
    Paragraph,
    Part,
    Table,
    p_value,
)
from bench.pages.files import pictures_of
from bench.plan.labels import card_of
from bench.records.curves import CURVES, Row, read_curves
from bench.records.further import read_further
from bench.records.schema import Record
from bench.records.store import cell_folder
from bench.reports.costs import record_links
from bench.reports.sections import EFFECTS as PAGE
from bench.study import answers
from bench.study.declaration import Study
from bench.study.findings import SHORT, Found, record_clips, shown_interval, standing

REWARDS = "train.rewards"
DRAWN = "drawn"  # the further metric of which rewards are the gradient


def in_full(study: Study, pairs: Sequence[Found], home: Home) -> list[Part]:
    """One study in full."""
    given_up = f"It was given up: {study.given_up}" if study.given_up else ""
    return [
        Heading(2, headed(study)),
        Paragraph((*_terms(study, pairs, home), *_cost(study, pairs, home))),
        *(Paragraph(text) for text in (given_up, study.remarks) if text),
        Bullets(tuple(f"{one.name}: {_question(one)}" for one in pairs)),
        _decisions(study, pairs),
        *_undecided(study, pairs),
        *_begun_apart(pairs, home),
        *_same_weights(pairs),
        *(part for one in pairs for part in _rewarded(one, home)),
        Folded("The other metrics, and the records", (_more(study, pairs, home),)),
    ]


def headed(study: Study) -> str:
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
        f"Corpus {study.corpus} ({_clips(study, pairs)}), {rule}; margin {study.margin:g}; {study.precision}; {declared}. "
        f"{_endings(study)}",
        "Made by ",
        Code(f"bench study {study.name}"),
        ". Scores of the corpus: ",
        Link(study.corpus, study.corpus, page=True),
        ".",
    )


def _endings(study: Study) -> str:
    """When a phase of a study ends, in passes over the captions."""
    train = {**Train().model_dump(), **CONVERGED, **given(study.train)}
    if train["budget"] != "converged":
        return ""
    passes = train["patience"] / train["validations"]
    return (
        f"A phase ends after {train['patience']} validations without a higher score, which are {passes:.2g} "
        f"{'pass' if passes == 1 else 'passes'}, or at its cap of {many(train['epochs'], 'pass', 'passes')}. "
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
        rows.append(
            (one.name, standing(study, one.pair, one.answer), _gain(decision), p, *spread, claimed, scored, capped)
        )
    return Table(f"Study {study.name}", columns, tuple(rows))


def _question(one: Found) -> str:
    """What a pair asks; where its declaration put it wrongly, also how; and why it turned out to ask nothing."""
    asked = f"{one.pair.reworded} (declared as: {one.pair.question})" if one.pair.reworded else one.pair.question
    return f"{asked} Withdrawn: {one.pair.withdrawn}" if one.pair.withdrawn else asked


def _undecided(study: Study, pairs: Sequence[Found]) -> list[Part]:
    """How much more of the same would decide what is undecided: as much as brings half of the interval down to half of the
    margin, which leaves out zero or the margin; by two digits."""
    wanted = []
    for one in pairs:
        decision = one.answer.decision
        if decision is None or decision.outcome != "undecided" or one.pair.withdrawn:
            continue
        if study.folds:
            size, kind = (
                record_clips(one.answer.counted[0][0]) * ((decision.high - decision.low) / study.margin) ** 2,
                "clips",
            )
        else:
            deviation = stdev(one.answer.differences[RANKED_BY])
            size = max(
                seeds_for(deviation, study.margin / 2), decision.seeds + 1
            )  # a look's bound is wider than a plain one
            kind = "seeds"
        wanted.append(f"{one.name} some {float(f'{size:.2g}'):,.0f} {kind}")
    if not wanted or study.given_up:  # whose rule was at fault
        return []
    return [
        Paragraph(
            f"What would decide what is undecided, by an interval of ± {study.margin / 2:g}, which leaves out zero or the "
            f"margin, where differences spread as they do here: {', '.join(wanted)}."
        )
    ]


def _begun_apart(pairs: Sequence[Found], home: Home) -> list[Part]:
    """Pairs whose sides begin with one phase and did not train it alike."""
    told = []
    for one in pairs:
        both = [
            (losses, pair)
            for pair in _by_seed(one)
            if len(losses := [row["value"] for record in pair if (row := _begun(one, record, home)) is not None]) == 2
        ]
        apart = [(losses, pair) for losses, pair in both if losses[0] != losses[1]]
        if not apart:
            continue
        most = max(abs(losses[0] - losses[1]) for losses, _ in apart)
        names = [[record.provenance.cpu or "" if record.provenance else "" for record in pair] for _, pair in apart]
        on = next((f", on {idea} and {control}" for idea, control in names if idea != control), "")
        told.append(f"{one.name} in {_of(one, apart, both)} (by up to {most:.2g}{on})")
    if not told:
        return []
    return [
        Paragraph(
            "Idea and control begin with the same phase and did not train it alike, as its first loss shows: "
            f"{'; '.join(told)}. Processors round otherwise, also two of one name, by little; more comes of a setting that adds "
            "parts to the module, after which batches and dropout are drawn otherwise. The interval holds what that differs, and "
            "is the wider for it."
        )
    ]


def _begun(one: Found, record: Record, home: Home) -> Row | None:
    """The first loss in the curves of a cell, if it is of a phase in which nothing acts yet that its pair differs in."""
    rows = read_curves(cell_folder(home.results, record))
    first = next((row for row in rows if row["name"] == "loss"), None)
    card = card_of(record.method)
    if first is None or card is None:
        return None
    later = {f"settings.{name}" for name, own in card.settings.items() if own.acts not in (None, first["phase"])}
    return first if {*one.pair.differs} <= later | {REWARDS} else None


def _same_weights(pairs: Sequence[Found]) -> list[Part]:
    """Pairs whose two sides ended with the same weights in some seeds: the idea had changed nothing yet."""
    told = []
    for one in pairs:
        both = [pair for pair in _by_seed(one) if all(record.weights_sha256 for record in pair)]
        if same := [pair for pair in both if pair[0].weights_sha256 == pair[1].weights_sha256]:
            told.append(f"{one.name} in {_of(one, same, both)}")
    if not told:
        return []
    return [
        Paragraph(
            f"Idea and control ended with the same weights: {'; '.join(told)}. Up to the epoch with the highest score on "
            "validation the idea had changed nothing there."
        )
    ]


def _by_seed(one: Found) -> list[tuple[Record, Record]]:
    """The trained cells of a pair, idea and control of one seed beside each other."""
    idea, control = (
        {record.seed: record for record in side if "cells" not in record.config}
        for side in (one.answer.idea, one.answer.control)
    )
    return [(idea[seed], control[seed]) for seed in sorted(idea.keys() & control.keys())]


def _of(one: Found, some: Sequence[Any], both: Sequence[Any]) -> str:
    """`2 of 8 seeds`."""
    return f"{len(some)} of {len(both)} {'folds' if one.study.folds else 'seeds'}"


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
        "phase before, the highest of many and so too high: what goes on without rewards shows by how much. Rewards are those of "
        f"training clips.{_rising(one, idea, home)}"
    )
    picture = courses(idea, control, f"{SHORT}-D (tokens)")
    parts: list[Part] = [Paragraph(words), Image(picture, f"{pictures_of(PAGE)}/{one.study.name}-{one.name}.svg")]
    return [*parts, Paragraph(drawn)] if (drawn := _drawn(one, home)) else parts


def _rising(one: Found, idea: Sequence[Course], home: Home) -> str:
    """Whether the reward of drawn captions still rose as the declared passes ended."""
    passes = many(reward_passes(one, home) or 0, "pass", "passes")
    steps = [course.drawn[-1] - course.drawn[-2] for course in idea if len(course.drawn) > 1]
    if not steps:
        return ""
    if fmean(steps) > 0:
        return (
            f" The reward still rises at the end of the {passes} declared: the outcome holds for so many and no more."
        )
    return f" The reward no longer rises at the end of the {passes} declared."


def reward_passes(one: Found, home: Home) -> int | None:
    """How many passes the idea's phase with rewards had; None for an idea without such a phase."""
    for record in one.answer.idea:
        folder = cell_folder(home.results, record)
        if "cells" in record.config or not (folder / CURVES).is_file():
            continue
        rows = epochs(folder)
        if rows and "reward" in rows[-1].values and _trained(record)["budget"] == "converged":
            return int(_trained(record)["reward_epochs"])
        return None
    return None


def _trained(record: Record) -> dict[str, Any]:
    return whole("train", record.config["train"])


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


def _cost(study: Study, pairs: Sequence[Found], home: Home) -> Line:
    """What the cells of all pairs have read, how much of it was read once for several, and how many are older than the study."""
    ran = {record.key: record.ledger for one in pairs for record in one.answer.cells if record.ledger is not None}
    if not ran:
        return ()
    captions = sum(ledger.captions for ledger in ran.values())
    shared = sum(ledger.reused_captions or 0 for ledger in ran.values())
    hours = sum((ledger.fit_seconds or 0) - (ledger.reused_seconds or 0) for ledger in ran.values()) / 3600
    return (
        f" Its {len(ran)} cells{_older(study, pairs, home)} were trained on {captions:,} captions, of which "
        f"{shared / captions:.0%} were taken over from phases that another cell had trained; training took {hours:.1f} hours of "
        "cells.",
    )


def _older(study: Study, pairs: Sequence[Found], home: Home) -> str:
    """How many cells of a study are older than its declaration, on which side."""
    asked = answers.read(home, study.name)
    if asked is None or asked.committed is None:
        return ""
    declared = datetime.fromisoformat(asked.committed)
    older = {"ideas": set[str](), "controls": set[str]()}
    for one in pairs:
        for side, its in zip(older, (one.answer.idea, one.answer.control), strict=True):
            began = {
                record.key: record.provenance.started
                for record in its
                if record.provenance and "cells" not in record.config
            }
            older[side] |= {key for key, at in began.items() if at and datetime.fromisoformat(at) < declared}
    told = listing([f"{len(keys)} {side}" for side, keys in older.items() if keys])
    return f" ({told} older than the declaration)" if told else ""


def _gain(decision: Decision | None) -> Cell:
    return Cell(shown_interval(decision), decision.mean if decision else None)
