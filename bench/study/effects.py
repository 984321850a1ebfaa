"""`leaderboards/effects.md` and `results/effects.json`: what each idea gains here beside what its paper claims."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.declare.registry import method_entry
from bench.errors import many
from bench.evaluation.metrics import RANKED_BY
from bench.figures.effects import Effect, effects
from bench.home import Home
from bench.pages.document import (
    NOTHING,
    Bullets,
    Code,
    Column,
    Document,
    Field,
    Folded,
    Image,
    Jump,
    Line,
    Paragraph,
    Part,
    Span,
    Table,
    anchor,
    p_value,
)
from bench.pages.files import bring_up_to_date, pictures_of, write_pages
from bench.reports.sections import EFFECTS as PAGE
from bench.study.findings import SHORT, Found, facts, found, outcome, record_clips, shown_interval
from bench.study.in_full import headed, in_full, reward_passes

FILE = "effects.json"
ALPHA = 0.05
WHAT = (
    "Each row is one idea of one paper, each column a corpus; where a method stands before a gain, the idea was put on it. A "
    "number is the gain in CIDEr-D over the idea's own control: the same corpus, clips, widths, decoding and rule for the end of "
    "training, and nothing changed but the settings that make up the idea. The paper's own gain, over the control that it prints "
    "and on its own data, stands beside it; only gains are compared, never scores of different data."
)
RULES: tuple[Line, ...] = (
    "Declared beforehand, by a commit before the first cell of an idea: pairs, the settings in which their sides differ (any "
    "other difference is refused), margin, seeds or folds, and the rule by which a pair ends. Where cells are older than that, "
    "controls of a study before, it is said how many. A study that was changed gets a new name, and so does one whose code, "
    "features or settings of the data set changed: its cells would be others.",
    "A paper's control is not always ours. Rewards are printed against the model before them, and stand here against going on "
    "with cross-entropy for as long; an idea that is trained in two stages stands against two stages without it. What a claim is "
    "the difference of stands under each study, and whether it lies in the interval.",
    "helps: the interval is above zero. hurts: below. gains less than m: zero is inside, and the interval ends below the margin "
    "m. undecided: none of these. The margin is what is worth having; each study declares its own, a wider one on real "
    "clips. A claim below the margin is not contradicted by gains less than m; see whether it lies in the interval.",
    "With seeds: looks after the declared numbers of them, at O'Brien and Fleming's levels turned into quantiles of Student's t. "
    "The interval is that of the look at which the pair ended, so it is wider than a plain one; stop and outcome use the same.",
    "With folds: all cells together report on every clip once; the unit is the fold, its paired difference, Student's t with one "
    "degree of freedom less than folds. Training sets of folds overlap, and no unbiased estimate of that variance exists: the "
    "interval is too narrow by an unknown part. Two intervals stand beside it and decide nothing: the one that Nadeau and Bengio "
    "(2003) propose for such sets, with ten folds about half as wide again, and a bootstrap over films, which speaks of the "
    "choice of clips alone. Where the first of them would not say what a pair came to, the table above has: not with overlap.",
    "A phase ends once so many validations brought no higher score, which is a number of passes that studies chose differently "
    "and each of them says. Phases with rewards have declared passes, and what came of them is said of so many.",
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
    parts: list[Part] = [Paragraph(WHAT), *_summary(pairs), _matrix(pairs, home)]
    heads = _heads(pairs)
    drawn = [
        Effect(f"{_based(one)}, {heads[one.study.name]}", d.mean, d.low, d.high, one.claimed(RANKED_BY))
        for one in pairs
        if (d := one.answer.decision) and one.counts  # the interval of an early look dwarfs all others
    ]
    if drawn:
        picture = effects(drawn, SHORT)
        parts.append(Image(picture, f"{pictures_of(PAGE)}/gains.svg"))
    parts.append(Folded("How this was decided, and what it does not show", (Bullets(RULES),)))
    for study in {one.study.name: one.study for one in pairs}.values():
        parts += in_full(study, [one for one in pairs if one.study.name == study.name], home)
    parts.append(Paragraph(("The same as data: ", Code(f"results/{FILE}"), ".")))
    return Document("Does each paper's idea help?", tuple(parts))


def _summary(pairs: Sequence[Found]) -> list[Part]:
    """How many comparisons have ended, and how; what outlasts a correction; and where printed gains lie beside them."""
    ended = [one for one in pairs if one.counts]
    if not ended:
        return []
    how: Counter[str] = Counter(one.answer.decision.outcome for one in ended if one.answer.decision)
    several = {
        "helps": "help",
        "hurts": "hurt",
        "gains less": "gain less than the margin",
        "undecided": "are undecided",
    }
    alone = {
        "helps": "helps",
        "hurts": "hurts",
        "gains less": "gains less than the margin",
        "undecided": "is undecided",
    }
    told = ", ".join(f"{how[one]} {(alone if how[one] == 1 else several)[one]}" for one in several if how[one])
    given_up = sum(bool(one.study.given_up) for one in ended)
    some = f" ({given_up} in a study that was given up)" if given_up else ""
    have = "comparison has" if len(ended) == 1 else "comparisons have"
    return [Paragraph(f"{len(ended)} {have} ended{some}: {told}.{_outlasting(ended)}{_printed_gains(ended)}")]


def _outlasting(ended: Sequence[Found]) -> str:
    """How many outcomes stand by what is stricter than the interval that decided."""
    told_apart = [one for one in ended if one.answer.decision and one.answer.decision.outcome in ("helps", "hurts")]
    folded = [
        one
        for one in ended
        if one.answer.overlap and one.answer.decision and one.answer.decision.outcome != "undecided"
    ]
    told = ""
    if told_apart:
        kept = sum(one.p_holm is not None and one.p_holm <= ALPHA for one in told_apart)
        told += (
            f" Of the {len(told_apart)} that help or hurt by their own interval, {kept or 'none'} "
            f"{'have' if kept > 1 else 'has'} p up to {ALPHA:g} once it is corrected for all pairs of the study."
        )
    if folded:
        lost = sum(one.lost_with_overlap for one in folded)
        told += (
            f" Of the {len(folded)} decided on folds {lost or 'none'} would not be decided so by the wider interval for training "
            "sets that overlap."
        )
    return told


def _printed_gains(ended: Sequence[Found]) -> str:
    """Where each gain that a paper prints lies beside all intervals of the comparisons that ask for it."""
    places: dict[tuple[str | None, str | None], set[str]] = {}
    for one in ended:
        if one.holds:
            places.setdefault((one.claimed_in, one.claimed_over), set()).add(one.holds)
    if not places:
        return ""
    # A claim that is above one interval and below another lies in none.
    where = Counter(
        "inside" if "inside" in own else "between" if len(own) > 1 else next(iter(own)) for own in places.values()
    )
    words = {"above": "above every interval here", "inside": "inside one"}
    words |= {"between": "between two", "below": "below every interval"}
    told = ", ".join(
        f"{where[one]} {'lies' if where[one] == 1 else 'lie'} {said}" for one, said in words.items() if where[one]
    )
    return f" The declarations set {many(len(places), 'printed gain')} beside them: {told}."


def _matrix(pairs: Sequence[Found], home: Home) -> Table:
    """A row per idea, a column per corpus; nothing that will not be run or was withdrawn."""
    pairs = [one for one in pairs if not one.pair.withdrawn and (one.answer.decision or not one.study.given_up)]
    corpora = list(dict.fromkeys(one.study.corpus for one in pairs))
    columns = (Column("idea"), Column("claimed gain"), *map(Column, corpora))
    rows: list[tuple[Field, ...]] = []
    for idea in dict.fromkeys(map(_idea, pairs)):
        own = [one for one in pairs if _idea(one) == idea]
        several = any(map(_base, own))
        rows.append(
            (idea, _claims(own, several), *(_on_corpus(own, name, several, home) or NOTHING for name in corpora))
        )
    return Table(f"Gain in {SHORT} over the control", columns, tuple(rows))


def _heads(pairs: Sequence[Found]) -> dict[str, str]:
    """What each study is called beside others: after its corpus, or by its own name where the corpus has several."""
    corpora = [one.corpus for one in {one.study.name: one.study for one in pairs}.values()]
    return {
        one.study.name: one.study.corpus if corpora.count(one.study.corpus) == 1 else one.study.name for one in pairs
    }


def _on_corpus(own: Sequence[Found], corpus: str, several: bool, home: Home) -> tuple[Span, ...]:
    """What has come of an idea on a corpus, one study after the other; what all of it rests on is said once."""
    here = [one for one in own if one.study.corpus == corpus]
    counted = [_counted(one) for one in here if one.answer.decision]
    told: list[Span] = []
    for one in here:
        told += ["; "] if told else []
        told += _told(one, several, home)
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


def _told(one: Found, several: bool, home: Home) -> tuple[Span, ...]:
    """Gain, which leads to its study, and outcome, after how many passes of rewards. A gain or loss that was found says its p
    among the pairs of the study, and all say whether they outlast the overlap of training sets."""
    decision = one.answer.decision
    said = outcome(one.study, one.answer)
    if decision is None:
        return (_on_base(one, said, several),)
    if passes := reward_passes(one, home):
        said += f" after {many(passes, 'pass', 'passes')} of rewards"
    corrected = one.p_holm is not None and decision.outcome in ("helps", "hurts")
    notes = [f"Holm's p {p_value(one.p_holm)}"] if corrected and one.p_holm is not None else []
    notes += ["not with overlap"] if one.lost_with_overlap else []
    said += f" ({'; '.join(notes)})" if notes else ""
    said += " (study given up)" if one.study.given_up else ""
    gain = Jump(shown_interval(decision), anchor(headed(one.study)))
    return (*((before,) if (before := _on_base(one, "", several)) else ()), gain, f", {said}")


def _claim(one: Found, several: bool) -> str:
    gain = one.claimed(RANKED_BY)
    said = (
        f"{gain:+.1f} ({one.claimed_on})"
        if gain is not None
        else f"{NOTHING} ({one.pair.unclaimed or 'no CIDEr printed'})"
    )
    return _on_base(one, said, several)


def _counted(one: Found) -> str:
    """`12 seeds of 1,000 clips`."""
    assert one.answer.decision is not None
    clips = f"{record_clips(one.answer.counted[0][0]):,} clips"
    return f"{clips} in {one.study.folds} folds" if one.study.folds else f"{one.answer.decision.seeds} seeds of {clips}"
