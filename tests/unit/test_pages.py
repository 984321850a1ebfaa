"""Pages with clips behind them: what chance makes of a table, claims beside controls, twins, files that do not hold."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_factory import put, put_scored, record
from scipy import stats
from test_leaderboard import page, row_of, rows_of

from bench.evaluation.resampling import compare, enough, randomise, randomise_means
from bench.evaluation.sequential import levels
from bench.home import Home
from bench.records.clip_scores import SCORES, read_columns, read_scores
from bench.records.folds import is_fold, read_folds
from bench.records.schema import NOT_KEYED, Record, canonical
from bench.records.store import PREDICTIONS, BadRecord, all_records, cell_folder, prediction_ids, read_record
from bench.reports.leaderboard import write
from bench.reports.published import load_papers
from bench.reports.study import claims

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 60
ODD = "a | b <script>alert(1)</script> `c` [x](y) *z* _w_ \u202eevil 🎈 مرحبا & co\n# no heading"


def scores(quality: float, seed: int, clips: int = CLIPS) -> list[float]:
    """Clip scores in percent around `quality`; the clips are of the same difficulty for all."""
    hard = np.random.default_rng(7).gamma(2.0, 0.5, clips)
    noise = np.random.default_rng(seed).normal(0, 4.0, clips)
    return [*np.clip(quality * hard + noise, 0, 1000).tolist()]


def a_table(home: Home, **cfg: Any) -> dict[str, list[Record]]:
    """Two rows that cannot be told apart, one that is far below them, and one without clip files."""
    rows = {"recnet:local": 40.0, "recnet:no_reconstruction": 39.9, "salstm:xe": 25.0}
    found: dict[str, list[Record]] = {}
    for number, (name, quality) in enumerate(rows.items()):
        method, variant = name.split(":")
        found[name] = [
            put_scored(
                home.results,
                scores(quality, 10 * number + seed),
                method=method,
                variant=variant,
                seed=seed,
                **{"title": name.upper(), **cfg},
            )
            for seed in range(2)
        ]
    return found


def twin(home: Home, name: str = "toy") -> str:
    return (home.leaderboards / f"{name}.html").read_text(encoding="utf-8")


class TestChance:
    def test_interval_ties_and_mean_rank(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        write(home)
        best, control, low = (row_of(page(home), name) for name in ("recnet:local", "recnet:no", "salstm"))
        assert [row["tied"] for row in (best, control, low)] == ["1", "1", "2"]
        assert [row["#"] for row in (best, control, low)] == ["1", "2", "3"]
        for row in (best, control, low):
            lower, upper = (float(number) for number in row["95 % interval"].split(" .. "))
            assert lower < float(row["CIDEr"].split(" ")[0]) < upper
        # CIDEr decides; the other metrics are the same for all, so their ranks are shared: (2 + 2 + 2 + rank) / 4.
        assert [row["mean rank"] for row in (best, control, low)] == ["1.75", "2.00", "2.25"]
        assert "2 rows are in the first tie group" in page(home)

    def test_a_difference_is_that_of_bench_compare(self, tmp_path: Path) -> None:
        """Interval and p of the controls are those of the general way, which recomputes corpus metrics seed by seed."""
        home = Home(tmp_path)
        found = a_table(home)
        write(home)
        [row] = [row for row in rows_of(page(home), "idea", "control") if row["idea"] == "recnet:local"]
        systems = [
            [{"cider": read_scores(cell_folder(home.results, one) / SCORES)[1]["cider"] / 100} for one in found[name]]
            for name in ("recnet:local", "recnet:no_reconstruction")
        ]
        whole = compare(*systems, f"toy test {CLIPS}")["cider"]
        assert row["difference"] == f"{100 * whole.difference:+.2f}"
        assert row["95 % interval"] == f"{100 * whole.low:+.2f} .. {100 * whole.high:+.2f}"
        assert row["p (Holm)"] == f"{whole.p:.3f}"  # a family of one

    def test_rows_of_unequal_seeds_differ_by_those_that_both_have(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        more = put_scored(
            home.results, scores(80.0, 99), method="recnet", variant="no_reconstruction", seed=2, title="MORE"
        )
        write(home)
        [pair] = [row for row in rows_of(page(home), "idea", "control") if row["idea"] == "recnet:local"]
        gains = [row["over salstm:xe"] for row in rows_of(page(home), "over salstm:xe")]
        assert "- A difference between two rows is over the seeds that both have." in page(home)
        shutil.rmtree(cell_folder(home.results, more))
        write(home)
        [equal] = [row for row in rows_of(page(home), "idea", "control") if row["idea"] == "recnet:local"]
        over, span = "difference", "95 % interval"
        assert (pair[over], pair[span], pair["p (Holm)"]) == (equal[over], equal[span], equal["p (Holm)"])
        assert gains == [row["over salstm:xe"] for row in rows_of(page(home), "over salstm:xe")] and "base" in gains
        assert pair["CIDEr of the control"] != equal["CIDEr of the control"]
        assert "seeds that both have" not in page(home)

    def test_means_are_exchanged_as_systems_are(self) -> None:
        systems = np.array([scores(quality, seed, 30) for quality, seed in ((40, 1), (39, 2), (30, 3), (38, 4))]) / 100
        [first, second] = randomise_means(systems, "name", [[0, 1, 2], [3, 1]])
        general = randomise([[{"cider": one}] for one in systems], "name", enough(2))[..., 0]
        assert np.array_equal(first, general[:3, :3])
        assert np.array_equal(second, general[np.ix_([3, 1], [3, 1])])

    def test_two_means_are_told_apart_the_same_beside_a_table_that_takes_more_draws(self) -> None:
        """325 pairs need 13,000 draws, one pair 10,000."""
        systems = np.array([scores(quality, quality, 20) for quality in range(26)]) / 100
        assert enough(26) > enough(2)
        [alone] = randomise_means(systems, "name", [[3, 5]])
        _, beside = randomise_means(systems, "name", [range(26), [3, 5]])
        assert np.array_equal(alone, beside)

    def test_a_table_does_not_mind_what_stands_on_its_page(self, tmp_path: Path) -> None:
        alone, both = Home(tmp_path / "alone"), Home(tmp_path / "both")
        for home in (alone, both):
            a_table(home)
        a_table(both, train={"epochs": 99, "captions": 64, "data_fraction": 1.0})
        for home in (alone, both):
            write(home)
        first, second = (rows_of(page(home), "tied") for home in (alone, both))
        assert len(first) == 3 and second == [*first, *first]

    def test_without_clip_scores_there_are_ranks_and_no_intervals(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        put(home.results, record(), record(method="recnet", variant="local", made={"cider": 26.0}))
        write(home)
        row = row_of(page(home), "recnet:local")
        assert (row["#"], row["95 % interval"], row["tied"]) == ("1", "—", "—")
        assert "No intervals and ties: the clip scores of these cells are not beside their records." in page(home)
        assert "<svg" not in twin(home)

    def test_seeds_of_other_clips_are_not_mixed(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        put_scored(home.results, scores(30, 5, 20), method="mplstm", title="T")
        write(home)
        assert row_of(page(home), "mplstm")["95 % interval"] == "—"


class TestControls:
    def test_declared_pairs_are_rows_that_can_be_run(self) -> None:
        from bench.declare.registry import find_methods

        cards = find_methods()
        for pair in claims():
            for name in (pair.idea, pair.control):
                method, variant = name.split(":")
                card = cards[method].card
                assert card is not None and variant in card.variants
            assert all(
                setting in cards[pair.control.split(":")[0]].card.settings for setting, _ in pair.control_settings
            )  # type: ignore[union-attr]
        assert any(pair.control_settings for pair in claims()), "vre's control is a setting of the same variant"

    def test_a_control_by_its_setting(self, tmp_path: Path) -> None:
        [pair] = [pair for pair in claims() if pair.control_settings]
        method, variant = pair.idea.split(":")
        home = Home(tmp_path)
        for number, settings in enumerate(({"width": 512}, {"width": 512, **dict(pair.control_settings)})):
            put_scored(home.results, scores(30 + number, number), method=method, variant=variant, settings=settings)
        write(home)
        [row] = rows_of(page(home), "idea", "control")
        assert all(f"{name}={value}" in row["control"] for name, value in pair.control_settings)
        assert row["difference"].startswith("-")


class Tables(HTMLParser):
    """The tables of an HTML page as rows of cell texts, and all that is not text of the page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self._cell = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def unescaped(markdown: str) -> str:
    """A Markdown cell as it is read: links are their words."""
    words = re.sub(r"\[((?:\\.|[^\]\\])*)\]\([^)]*\)", r"\1", markdown)
    return html.unescape(re.sub(r"\\(.)", r"\1", words))


class TestTwins:
    def test_both_say_the_same(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        put(home.results, record("failed", method="mplstm"), record("unscored", method="s2vt"))
        write(home)
        for name in ("toy", "published"):
            markdown: list[list[str]] = []
            for line in page(home, name).split("\n"):
                if line.startswith("|") and not line.startswith(("|:", "|-")):
                    markdown.append([unescaped(cell.strip()) for cell in line.strip("|").split(" | ")])
            assert [[" ".join(cell.split()) for cell in row] for row in Tables(twin(home, name)).rows] == markdown

    def test_one_file_that_needs_nothing_else(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        write(home)
        source = twin(home)
        assert not re.search(r"(?:src|srcset)=|@import|url\((?!#)|<link|<iframe", source)
        assert "http" not in re.sub(r'xmlns(?::\w+)?="[^"]*"', "", source)
        parsed = Tables(source)
        assert parsed.tags.count("svg") == 2
        assert len(set(parsed.ids)) == len(parsed.ids)
        assert len(source) < 1_500_000

    def test_pictures_are_files_beside_the_markdown_twin(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        write(home)
        shown = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", page(home))
        assert [path for _, path in shown] == ["figures/toy/1-scores.svg", "figures/toy/1-cost.svg"]
        assert all((home.leaderboards / path).read_text().startswith("<?xml") for _, path in shown)
        assert "recnet:local" in shown[0][0] and "rank 1 (1 to 2)" in shown[0][0]
        assert "s of training" in shown[1][0] and "validation from 20.0 to 24.0 at best" in shown[1][0]

    def test_pictures_of_tables_that_are_gone_go(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        found = a_table(home)
        write(home)
        for one in found["salstm:xe"] + found["recnet:local"]:
            (cell_folder(home.results, one) / "record.json").unlink()
        gone = [home.leaderboards / "figures" / "toy" / f"1-{what}.svg" for what in ("cost", "scores")]
        assert set(gone) <= set(write(home, check=True)) and all(path.is_file() for path in gone)
        write(home)
        assert not any(path.exists() for path in gone)
        assert write(home, check=True) == []

    def test_check_sees_words_and_not_how_a_picture_is_drawn(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        a_table(home)
        write(home)
        path = home.leaderboards / "toy.html"
        whole = path.read_text()
        path.write_text(re.sub(r"stroke-width: [0-9.]+", "stroke-width: 9", whole))
        assert path.read_text() != whole and write(home, check=True) == []
        path.write_text(whole.replace("2 rows are in", "9 rows are in"))
        assert write(home, check=True) == [path]
        assert write(home) == [path] and path.read_text() == whole

    def test_captions_are_shown_and_cannot_break_either(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        for number, method in enumerate(("salstm", "s2vt")):
            put_scored(home.results, scores(30, number), [ODD] * CLIPS, method=method, title=ODD)
        write(home)
        shown = " ".join(ODD.replace("\u202e", "").split())
        for text in (page(home), twin(home)):
            assert "<script>alert" not in text and "\u202e" not in text and "\n# no heading" not in text
        said = [row["caption"] for row in rows_of(page(home), "clip", "caption")]
        assert len(said) == 6 and {unescaped(one) for one in said} == {shown}
        cells = [row for row in Tables(twin(home)).rows if row[0].startswith("clip") and row[0] != "clip"]
        assert len(cells) == 6 and {row[2] for row in cells} == {shown}
        assert "<bdi>" in twin(home)

    def test_pictures_leave_room_for_words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import bench.pages.files as files

        home = Home(tmp_path)
        a_table(home)
        monkeypatch.setattr(files, "HEAVIEST", 1_000)
        write(home)
        assert "<svg" not in twin(home)
        assert '<a href="figures/toy/1-scores.svg">Picture 1</a>' in twin(home)


class TestFilesThatDoNotHold:
    """A record whose files contradict it is refused by name, and the page is written without it."""

    def refused(self, home: Home) -> tuple[str, list[BadRecord]]:
        bad: list[BadRecord] = []
        write(home, bad=bad)
        text = page(home)
        assert str(home.root) not in text and str(home.root) not in twin(home)
        assert row_of(text, "recnet:no_reconstruction")["state"] == "done"
        return text.split("## Refused records")[1], bad

    @pytest.mark.parametrize(
        ("file", "change", "words"),
        [
            ("record.json", ('"cider": 3', '"cider": 4'), "its cider is 4"),
            ("record.json", ('"rouge_l": 52', '"rouge_l": 51'), "its rouge_l is 51"),
            (
                "record.json",
                ('"schema": 1,\n  "key"', '"schema": 2,\n  "key"'),
                "schema 2, this version reads schema 1",
            ),
            ("record.json", ('"width": 512', '"width": 513'), "so it is not the one that was run"),
            (PREDICTIONS, ('"clip": "clip7"', '"clip": "clip8"'), "1 missing (clip7), 1 given twice (clip8)"),
            (PREDICTIONS, ('"clip": "clip7"', '"clip": "other"'), "1 missing (clip7), 1 not in the split (other)"),
            (PREDICTIONS, ('{"clip": "clip7"', '["clip", "clip7"'), "line 8 is no prediction"),
            (SCORES, ("clip,rouge_l,cider", "clip,rouge_l,rouge_l"), "its first line is not clip and names of columns"),
            (SCORES, ("\nclip9,", "\nclip8,"), "a clip is there twice"),
        ],
    )
    def test_named(self, tmp_path: Path, file: str, change: tuple[str, str], words: str) -> None:
        home = Home(tmp_path)
        [first, _] = a_table(home)["recnet:local"]
        path = cell_folder(home.results, first) / file
        before = path.read_text()
        assert change[0] in before
        path.write_text(before.replace(*change, 1))
        text, bad = self.refused(home)
        assert [item.path for item in bad] == [path.with_name("record.json")]
        assert words in html.unescape(text.replace("\\", ""))
        assert f"`results/toy/recnet/{first.key}/record.json`" in text
        assert write(home, check=True) == []

    def test_captions_that_cannot_be_read_are_named_where_they_would_stand(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        [first, _] = a_table(home)["recnet:local"]
        path = cell_folder(home.results, first) / PREDICTIONS
        path.write_text(path.read_text().replace('"caption": "caption 1"', '"caption": "caption 1" and more', 1))
        write(home)
        assert f"No clips of table 1: results/toy/recnet/{first.key}/predictions.jsonl line 2 is no prediction" in page(
            home
        )

    def test_a_curve_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        [first, _] = a_table(home)["recnet:local"]
        (cell_folder(home.results, first) / "curves.csv").write_text("nonsense\n1\n")
        write(home)
        assert f"No learning curves of table 1: results/toy/recnet/{first.key}/curves.csv cannot be read" in page(home)
        assert "1-scores.svg" in page(home) and "1-cost.svg" not in page(home)


class TestFastReaders:
    """The readers that pages use give what the careful ones give."""

    @pytest.mark.parametrize(
        "text",
        [
            "clip,bleu4,rouge_l,cider\na,1.0,2.5,3.0\nb,4.0,5.0,6.25\n",
            "clip,rouge_l,cider,extra\na,2.5,3.0,9.0\nb,5.0,6.25,9.0\n",
            'clip,rouge_l,cider\n"a,b",2.5,3.0\n"c""d",5.0,6.25\n',
            "clip,bleu4\na,1.0\n",
        ],
    )
    def test_columns(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / SCORES
        path.write_text(text)
        ids, columns = read_columns(path, ("rouge_l", "cider"))
        all_ids, whole = read_scores(path)
        assert ids == all_ids
        assert {name: one.tolist() for name, one in columns.items()} == {
            name: whole[name].tolist() for name in ("rouge_l", "cider") if name in whole
        }

    @pytest.mark.parametrize("ids", [["a", "b"], ['q"uo"te', "é"], ["a\\b"], ['{"clip": "', "x"], [""]])
    def test_ids(self, tmp_path: Path, ids: Sequence[str]) -> None:
        path = tmp_path / PREDICTIONS
        lines = [
            {"clip": clip, "caption": ODD, "log_probability": None, "alternatives": [['{"clip": "z"', -1.0]]}
            for clip in ids
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert prediction_ids(path) == list(ids)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        assert prediction_ids(path) == list(ids)


def test_times_on_a_shared_gpu_stand_in_no_column(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for seed, share in ((0, 0.5), (1, 1.0)):
        spent = {"captions": 20000, "fit_seconds": 10.0 + 90 * seed, "parameters": 7}
        made = {"ledger": spent, "provenance": {"bench": "1", "device": "cuda:0", "gpu_share": share}}
        put(home.results, record(method="salstm", seed=seed, made=made))
    write(home)
    row = next(row for row in rows_of(page(home), "records"))
    assert (row["training, s"], row["parameters"], row["on"]) == ("100", "7", "GPU, 0.5 of one / GPU")


# Every number ---------------------------------------------------------------------------------------------------------


def numbers_in(one: Record) -> dict[str, float]:
    """The numbers of a record that pages show, by name."""
    return {**one.scores.get(one.split, {}), **(one.ledger.model_dump(exclude_none=True) if one.ledger else {})}


def shown_as(records: Sequence[Record], label: str) -> set[str]:
    """How a page may write what the records of a row hold: means, deviations, single values, seeds and their count."""
    done = [one for one in records if one.state == "done"]
    made = {str(len(done)), *(str(one.seed) for one in records), *NUMBER.findall(label)}
    for name in {name for one in done for name in numbers_in(one)}:
        values = [numbers_in(one)[name] for one in done if name in numbers_in(one)]
        for number in (np.mean(values), *values):
            made |= {f"{number:{form}}" for form in (".2f", ",.1f", ",.0f", ".0f")}
        made |= {f"{np.std(values, ddof=1):.2f}"} if len(values) > 1 else set()
    return made


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
SCORED = ("CIDEr", "B@4", "M", "R-L", "reproduced")
SPENT = ("captions", "epochs", "training, s", "decoding, s", "captions/s", "peak memory, MB", "parameters")
PAGES = sorted(
    path.stem for path in (ROOT / "leaderboards").glob("*.md") if path.stem not in ("README", "published", "effects")
)
PRINTED = {
    str(value)
    for paper in load_papers()
    for table in paper.tables
    for row in table.rows
    for value in row.metrics.values()
}


@pytest.mark.parametrize("name", PAGES)
def test_every_number_of_a_committed_page_is_in_a_record(name: str) -> None:
    """Scores, costs and printed results, number by number, against the records that the row links to and the printed tables.

    Intervals, ties, ranks and p values are drawn from clips: the tests above hold them against the general way.
    """
    by_key = {one.key: one for one in all_records(Home(ROOT).results, name)}
    linked: set[str] = set()
    for section in page(Home(ROOT), name).split("\n## ")[1:]:
        allowed: dict[str, set[str]] = {}
        by_seed: dict[str, dict[int, float]] = {}
        for row in rows_of(section, "records"):
            keys = re.findall(r"/([0-9a-f]{16})/record\.json", row["records"])
            assert keys
            linked |= {*keys, *(cell for key in keys for cell in by_key[key].config.get("cells", ()))}
            own = [by_key[key] for key in keys]
            allowed[row["variant"]] = shown_as(own, row["variant"])
            by_seed[row["variant"]] = {one.seed: one.scores[one.split]["cider"] for one in own if one.state == "done"}
        for row in rows_of(section, "variant"):
            for column in (*SCORED, *SPENT) if "caption" not in row else ():
                lost = set(NUMBER.findall(row.get(column, ""))) - allowed[row["variant"]]
                assert not lost, f"{row['variant']}, {column}: {lost} is in no record of the row"
            assert set(NUMBER.findall(row.get("published", ""))) <= PRINTED
        for row in rows_of(section, "idea", "control"):
            for column, side in (("CIDEr", "idea"), ("CIDEr of the control", "control")):
                assert set(NUMBER.findall(row[column])) <= allowed[row[side]]
            one, other = (by_seed[row[side]] for side in ("idea", "control"))
            gains = [one[seed] - other[seed] for seed in one.keys() & other.keys()]
            assert float(row["difference"]) == pytest.approx(np.mean(gains), abs=0.011)
    in_rows = {cell for one in by_key.values() for cell in one.config.get("cells", ())}
    waiting = {key for key, one in by_key.items() if is_fold(one) and key not in in_rows}  # for the other folds
    assert linked == set(by_key) - waiting, "every sound record stands on its page"


def test_every_gain_of_the_page_of_effects_is_the_mean_over_the_folds_or_seeds_of_its_records() -> None:
    shown_on = page(Home(ROOT), "effects")
    rows, more = rows_of(shown_on, "pair", "outcome"), rows_of(shown_on, "pair", "records, idea")
    assert [row["pair"] for row in rows] == [row["pair"] for row in more]
    decided = [row | rest for row, rest in zip(rows, more, strict=True) if row["CIDEr gain"] != "—"]
    assert len(decided) >= 15 and any("CIDEr over films" not in row for row in decided)
    for row in decided:
        by_fold = "CIDEr over films" in row
        sides = []
        for side in ("idea", "control"):
            linked = re.findall(r"results/(\w+/\w+/[0-9a-f]{16})/record", row[f"records, {side}"])
            folders = [Home(ROOT).results / key for key in linked]
            sides.append(of_folds(*folders) if by_fold else [score_of(folder) for folder in folders])
        gains = np.subtract(*sides)
        looks = (5, 8, 12, 16)
        level = 0.05 if by_fold else levels(looks)[looks.index(len(gains))]
        low, high = stats.ttest_1samp(gains, 0).confidence_interval(1 - level)
        shown = [float(number) for number in re.findall(r"[+-]\d+\.\d+", row["CIDEr gain"])]
        assert shown == pytest.approx([gains.mean(), low, high], abs=0.0051), row["pair"]


def of_folds(folder: Path) -> list[float]:
    """The mean CIDEr of each fold of a row."""
    ids, scores = read_scores(folder / SCORES)
    folds = read_folds(folder)
    fold_n = np.array([folds[clip][0] for clip in ids])
    return [scores["cider"][fold_n == fold].mean() for fold in range(10)]


def score_of(folder: Path) -> float:
    return read_record(folder / "record.json").scores["test"]["cider"]


def test_no_two_gains_of_the_picture_of_effects_have_one_name() -> None:
    (told,) = re.findall(r"!\[Gains in CIDEr over the controls, with intervals: (.*?)\.\]", page(Home(ROOT), "effects"))
    names = [re.sub(r" [+-]\d.*", "", one) for one in told.split("; ")]
    assert len(names) >= 15 and len(set(names)) == len(names)


def test_every_number_of_the_page_of_printed_results_is_printed_or_in_a_record() -> None:
    seeds: dict[str, dict[str, list[Record]]] = {}
    for one in all_records(Home(ROOT).results):
        settings = canonical({name: value for name, value in one.config.items() if name not in ("seed", *NOT_KEYED)})
        seeds.setdefault(f"{one.method}:{one.variant} on {one.dataset}", {}).setdefault(settings, []).append(one)
    rows = rows_of(page(Home(ROOT), "published"), "system", "here")
    assert len(rows) == 189
    for row in rows:
        assert {row.get(metric, "—") for metric in ("B@4", "M", "R-L", "CIDEr")} <= {*PRINTED, "—"}
        if row["here"] != "—":
            own = seeds[re.sub(r" \(.*?\) on", " on", unescaped(row["here"]).split(", ")[0])]
            means = set.union(*(shown_as(records, "") for records in own.values()))
            whole = unescaped(row["here"]).split(" on ")[-1] in ("msvd", "msrvtt", "activitynet")
            assert (NUMBER.findall(row["reproduced"])[0] in means) if whole else row["reproduced"] == "—", row


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "golden" / "schema1").glob("*.json")), ids=lambda path: path.stem
)
def test_records_of_schema_1_stand_on_pages(tmp_path: Path, path: Path) -> None:
    """Files as they were written once and are never written anew: whatever schema comes, these are read."""
    home = Home(tmp_path)
    raw = json.loads(path.read_text())
    place = home.results / raw["config"]["dataset"] / raw["config"]["method"] / raw["key"] / "record.json"
    place.parent.mkdir(parents=True)
    place.write_text(path.read_text())
    bad: list[BadRecord] = []
    write(home, bad=bad)
    assert bad == []
    shown = row_of(page(home, raw["config"]["dataset"]), f"{raw['config']['method']}:{raw['config']['variant']}")
    cider = raw["scores"].get("test", {}).get("cider")
    assert shown["CIDEr"] == (f"{cider:.2f} (1)" if cider is not None else "—")
    assert shown["state"] == {"failed": "FAILED seed 0", "unscored": "unscored seed 1"}.get(raw["state"], "done")


def test_a_picture_that_was_drawn_before_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.figures import board

    home = Home(tmp_path)
    found = a_table(home)
    write(home)
    before = twin(home)
    kept = sorted((home.work / "pictures").glob("*.json"))
    assert len(kept) == 2
    (home.leaderboards / "figures" / "toy" / "1-cost.svg").write_text("by hand")
    kept[0].write_text("{")  # damaged: it is drawn again
    assert write(home) == [home.leaderboards / "figures" / "toy" / "1-cost.svg"]
    assert twin(home) == before
    drawn: list[str] = []
    monkeypatch.setattr(board, "finish", lambda *told: drawn.append(told[1]))
    assert write(home, check=True) == [] and not drawn
    curve = cell_folder(home.results, found["salstm:xe"][0]) / "curves.csv"
    curve.write_text(curve.read_text().replace("val_cider_tokens,24", "val_cider_tokens,30"))
    with pytest.raises(AttributeError):  # what changed is drawn: the pencil is broken here
        write(home)
    assert drawn == ["CIDEr against cost"]


def test_bench_leaderboard_says_pages_and_counts_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.main import main

    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    a_table(Home(tmp_path))
    assert main(["leaderboard"]) == 0
    told = capsys.readouterr().out.splitlines()
    names = [line.removeprefix(f"{tmp_path}/leaderboards/") for line in told]
    assert names == [
        "toy.md written",
        "published.md written",
        "README.md written",
        "HTML twins and pictures written: 5",
    ]
    assert main(["leaderboard", "--check"]) == 0
    (tmp_path / "leaderboards" / "toy.html").unlink()
    assert main(["leaderboard", "--check"]) == 1
    assert "toy.html is not what the records say: bench leaderboard writes it" in capsys.readouterr().out
