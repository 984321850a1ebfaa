"""`bench compare`, `bench show`, `bench export csv`: what they print, and what they refuse in one sentence."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meteor_jar import small_jar
from record_factory import config, content, put, record
from scipy import stats

from bench import BenchError
from bench.cell.external import evaluate
from bench.cell.scores import gather
from bench.cli.main import main
from bench.declare.registry import read_definition
from bench.evaluation import meteor
from bench.evaluation.metrics import METRICS, PARTS
from bench.evaluation.resampling import compare, holm
from bench.evaluation.scorer import digest
from bench.evaluation.statistics import corpus_scores
from bench.home import Home
from bench.plan.labels import label
from bench.records.clip_scores import EARLIER_STATISTICS, SCORES, STATISTICS, read_scores, read_statistics, write_scores
from bench.records.schema import Record, cell_key
from bench.records.store import Prediction, all_records, cell_folder, read_record, write_predictions, write_record
from bench.reports.blocks import Row
from bench.reports.compare import differences
from bench.reports.lookup import find_row

MADE_HERE = {
    "settings",
    "phases",
    "train",
    "search",
    "text",
    "method_digest",
    "engine",
}  # of which captions alone say nothing

CLIPS = 30
IDS = tuple(f"c{number:02}" for number in range(CLIPS))
REFERENCES = {clip: [f"a dog runs {clip}", f"the dog of {clip} runs", "a dog", "a dog", "it runs"] for clip in IDS}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    for name in ("BENCH_DATA", "BENCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return Home(tmp_path)


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command here; gives status, output, errors."""

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def statistics_of(random_: np.random.Generator, skill: float) -> dict[str, np.ndarray]:
    """Plausible statistics of `CLIPS` captions, as the scorer counts them."""
    length = random_.integers(5, 9, CLIPS)
    guessed = np.column_stack([length - order for order in range(4)])
    correct = np.column_stack([random_.binomial(guessed[:, order], skill) for order in range(4)])
    matched = correct[:, 0]
    numbers = np.zeros((CLIPS, 23))
    numbers[:, 0], numbers[:, 1], numbers[:, 4], numbers[:, 5] = length, 8, matched, matched
    numbers[:, 20], numbers[:, 21], numbers[:, 22] = np.minimum(matched, 3), matched, matched
    return {"bleu": np.column_stack([correct, guessed, length, np.full(CLIPS, 8)]).astype(float), "meteor": numbers}


def scored(
    home: Home,
    method: str = "salstm",
    variant: str = "xe",
    seed: int = 0,
    *,
    skill: float = 0.6,
    captions: Mapping[str, str] | None = None,
    counted: bool = True,
    refs: str = "abc",
    made: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A done cell with all the files beside its record, which agree with it."""
    cfg = config(method, variant, seed, **changes)
    random_ = np.random.default_rng([seed, *cell_key(cfg).encode()])
    statistics = statistics_of(random_, skill)
    clips = {metric: random_.random(CLIPS) * skill for metric in METRICS}
    values = [*corpus_scores("bleu", statistics["bleu"]), *corpus_scores("meteor", statistics["meteor"])]
    values += [clips["rouge_l"].mean(), clips["cider"].mean()]
    split = cfg["split"]
    scores = {metric: round(100 * float(value), 9) for metric, value in zip(METRICS, values, strict=True)}
    signed = {metric: f"{metric}|impl:bench-1|tok:ptb-3.4.1|split:{split}|refs:{refs}|n:{CLIPS}" for metric in METRICS}
    signed["meteor"] = signed["meteor"].replace("bench-1", "meteor-1.5")
    fields = {"scores": {split: scores}, "signatures": {split: signed}, **(made or {})}
    result = Record.model_validate(content(cfg, **fields))
    (path,) = put(home.results, result)
    by_clip = {metric: dict(zip(IDS, row.tolist(), strict=True)) for metric, row in clips.items()}
    write_scores(path.parent / SCORES, IDS, by_clip, statistics if counted else None)
    texts = {clip: f"{method} sees {clip}" for clip in IDS} | dict(captions or {})
    write_predictions(path.parent / "predictions.jsonl", [Prediction(clip, texts[clip]) for clip in IDS])
    return result


def folder(home: Home, record: Record) -> Path:
    return cell_folder(home.results, record)


def lose_statistics(folder: Path) -> list[list[str]]:
    """Leave the scores alone in a cell's file, as the first versions wrote it; returns the lines of what it also held."""
    with (folder / SCORES).open(newline="") as file:
        rows = list(csv.reader(file))
    counted = 1 + sum(map(len, STATISTICS.values()))
    (folder / SCORES).write_text("".join(",".join([row[0], *row[counted:]]) + "\n" for row in rows))
    return [row[:counted] for row in rows]


def earlier_form(folder: Path) -> None:
    """The files of a cell as earlier versions left them: statistics in a file of their own, the configuration twice, other
    beams' captions among the published ones."""
    rows = lose_statistics(folder)
    (folder / EARLIER_STATISTICS).write_text("".join(",".join(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text("method: salstm\n")
    path = folder / "predictions.jsonl"
    lines = [json.loads(line) | {"alternatives": [["a cat", -2.0]]} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


class TestCompare:
    def test_rows_with_their_seeds(self, home: Home, bench: Run) -> None:
        ours = [scored(home, "recnet", "local", seed, skill=0.7) for seed in (0, 1)]
        theirs = [scored(home, "salstm", "xe", seed) for seed in (0, 1)]
        status, out, err = bench("compare", "recnet:local", "salstm", "dataset=toy")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        keys = ", ".join(item.key[:8] for item in ours)
        assert lines[0] == f"A  recnet:local, recnet local, seeds 0, 1 (keys {keys})"
        assert lines[1].startswith("B  salstm:xe, salstm xe, seeds 0, 1 (keys ")
        assert lines[2] == "Data set toy, split test, 30 clips."
        systems = [[rows_of(home, item) for item in side] for side in (ours, theirs)]
        expected = compare(*systems, name="toy test 30")
        for metric, name in zip(
            METRICS, ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D"), strict=True
        ):
            found, mean = (
                expected[metric],
                [np.mean([item.scores["test"][metric] for item in side]) for side in (ours, theirs)],
            )
            (line,) = [line for line in lines if line.startswith(name)]
            assert re.match(rf"{name} +{mean[0]:.2f} ± [\d.]+ \(2\) +{mean[1]:.2f} ± [\d.]+ \(2\) ", line), line
            assert f"{mean[0] - mean[1]:+.2f}  {100 * found.low:+.2f} .. {100 * found.high:+.2f}" in re.sub(
                " {3,}", "  ", line
            )
            assert found.difference == pytest.approx((mean[0] - mean[1]) / 100, abs=1e-7)
            p, corrected = (float(word.replace("<", "")) for word in line.replace("< ", "<").split()[-2:])
            assert (p, corrected) == (
                pytest.approx(max(found.p, 0.001), abs=0.0006),
                pytest.approx(
                    max(holm([one.p for one in expected.values()])[list(METRICS).index(metric)], 0.001), abs=0.0006
                ),
            )

    def test_rows_of_unequal_seeds_are_compared_on_those_that_both_have(self, home: Home, bench: Run) -> None:
        for seed in (0, 1):
            scored(home, "recnet", "local", seed, skill=0.7)
            scored(home, "salstm", "xe", seed)
        _, equal, _ = bench("compare", "recnet:local", "salstm", "dataset=toy")
        extra = [scored(home, "salstm", "xe", seed) for seed in (2, 3)]
        status, unequal, _ = bench("compare", "recnet:local", "salstm", "dataset=toy")
        assert status == 0
        words = "Seeds 2, 3 of salstm:xe are left out: rows are compared on the seeds that both have."
        assert words in " ".join(unequal.split())
        assert unequal.split("\n\n")[:3] == equal.split("\n\n")[:3], "legend, scores and what they are"
        lone = bench("compare", extra[0].key, "recnet:local")[1]
        assert lone.startswith("A  salstm:xe, salstm xe, seed 2 ") and "seeds 0, 1 (keys " in lone

    def test_how_many_seeds_or_clips_one_cider_takes(self, home: Home, bench: Run) -> None:
        sides = [[scored(home, *row, seed) for seed in range(4)] for row in (("recnet", "local"), ("salstm", "xe"))]
        status, out, _ = bench("compare", "recnet:local", "salstm", "dataset=toy", "json=true")
        assert status == 0
        found = json.loads(out)
        one, other = ([record.scores["test"]["cider"] for record in side] for side in sides)
        spread = np.std(np.subtract(one, other), ddof=1)
        enough = [n for n in range(2, 10_000) if stats.t.ppf(0.975, n - 1) * spread / n**0.5 <= 1]
        low, high = next(row["interval"] for row in found["metrics"] if row["metric"] == "cider")
        clips = int(np.ceil(CLIPS * ((high - low) / 2) ** 2))
        assert found["needed"] == {"seeds": enough[0], "clips": clips} and enough[0] > 4
        shown = " ".join(bench("compare", "recnet:local", "salstm", "dataset=toy")[1].split())
        assert f"An interval of ± 1 CIDEr takes some {enough[0]:,} seeds or {clips:,} clips; a true difference" in shown

    def test_the_other_way_round_is_the_mirror_image(self, home: Home) -> None:
        one, other = scored(home, "recnet", "local"), scored(home)
        there, back = (
            compare([rows_of(home, a)], [rows_of(home, b)], "name", 200)["bleu4"]
            for a, b in ((one, other), (other, one))
        )
        assert (there.low, there.p) == (pytest.approx(-back.high), back.p)

    def test_a_record_with_itself(self, home: Home, bench: Run) -> None:
        key = scored(home).key
        status, out, _ = bench("compare", key[:6], key)
        assert status == 0
        assert len(re.findall(r"\+0\.00  \+0\.00 \.\. \+0\.00  1\.000     1\.000", out)) == 7
        assert "WHAT DIFFERS\nnothing in the configurations" in out
        assert "A is above B on 0, below on 0, equal on 30." in out
        assert "A WINS MOST" not in out

    def test_a_folder_names_a_record(self, home: Home, bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        item = scored(home)
        monkeypatch.chdir(home.root)
        for word in (folder(home, item), folder(home, item) / "record.json", f"results/toy/salstm/{item.key}"):
            assert bench("compare", word, item.key)[0] == 0
        monkeypatch.chdir(folder(home, item).parent)
        assert bench("show", item.key)[0] == 0

    def test_seeds_of_a_record(self, home: Home, bench: Run) -> None:
        """Two rows of one name: the key of one of their seeds stands for each."""
        low = [scored(home, seed=seed, settings={"width": 256}) for seed in (0, 1)]
        high = [scored(home, seed=seed, settings={"width": 512}) for seed in (0, 1)]
        status, _, err = bench("compare", "salstm:xe", low[0].key)
        assert status == 2
        assert re.search(
            r"salstm:xe names 2 rows: salstm:xe \(width=256\) of toy test, standard, frames, seeds 0, 1 ", err
        )
        status, out, _ = bench("compare", low[1].key, high[0].key, "--seeds")
        assert status == 0
        assert "A  salstm:xe (width=256), salstm xe, seeds 0, 1 " in out
        assert re.search(r"^settings  width +256 +512$", out, re.M)
        assert "seed 1 (key" in bench("compare", low[1].key, high[0].key)[1], "without --seeds the record alone"

    def test_what_differs(self, home: Home, bench: Run) -> None:
        ledger = {"captions": 15000, "budget": 20000, "epochs": 8, "parameters": 5}
        one = scored(home, "recnet", "local", settings={"width": 512, "lambda": 0.2}, made={"ledger": ledger})
        streams = {"frames": "e" * 64, "words": "f" * 64}
        two = scored(
            home, streams=streams, protocol="paper", search={"beam": 1}, text={"tokenizer": "ptb"}, method_digest="0"
        )
        first, second = (find_row(item.key, home) for item in (one, two))
        rows = differences(first, second)
        found = {(part, name): (a, b) for part, name, a, b in rows}
        assert found["protocol", "protocol"] == ("standard", "paper")
        assert found["streams", "streams.frames"] == ("f" * 12, "e" * 12)
        assert found["streams", "streams.words"] == ("-", "f" * 12)
        assert found["decoding", "search.beam"] == ("5", "1")
        assert found["text", "text.tokenizer"] == ("strip", "ptb")
        assert found["settings", "lambda"] == ("0.2", "-")
        assert found["budget", "captions used"] == ("15,000", "20,000")
        assert found["cost", "parameters"] == ("5", "-")
        assert not {name for _, name in found} & {
            "seed",
            "method",
            "variant",
            "title",
            "method_digest",
            "budget",
            "width",
        }
        parts = [part for part, *_ in rows]
        assert parts == sorted(parts, key=list(dict.fromkeys(parts)).index), "part by part"
        assert parts[0] == "protocol"

    def test_clips_won_and_lost_most(self, home: Home, bench: Run) -> None:
        ours, theirs = (
            [scored(home, *name, seed) for seed in (0, 1)] for name in (("recnet", "local"), ("salstm", "xe"))
        )
        few = bench("compare", "recnet:local", "salstm:xe")[1].partition("A WINS MOST")[2]
        assert len(re.findall(r"^c\d\d  A ", few, re.M)) == 10, "five won and five lost, unless asked for more"
        out = bench("compare", "recnet:local", "salstm:xe", "clips=20")[1]
        scores = [read_scores(folder(home, item) / SCORES)[1]["cider"] for item in (*ours, *theirs)]
        gains = dict(zip(IDS, (scores[0] + scores[1] - scores[2] - scores[3]) / 2, strict=True))
        won, lost = out.partition("A WINS MOST")[2].split("A LOSES MOST")
        for text, sign in ((won, 1), (lost, -1)):
            named = re.findall(r"^(c\d\d)  A ([\d.]+)  B ([\d.]+)  ([+-][\d.]+)$", text, re.M)
            expected = sorted((clip for clip in IDS if sign * gains[clip] > 0), key=lambda clip: -sign * gains[clip])[
                :20
            ]
            assert [clip for clip, *_ in named] == expected
            assert all(float(gain) == pytest.approx(gains[clip], abs=0.051) for clip, _, _, gain in named)
        assert (
            won.count("    A  recnet sees c") == won.count("    B  salstm sees c") == len(re.findall("^c", won, re.M))
        )

    def test_seeds_that_say_different_things(self, home: Home, bench: Run) -> None:
        for seed, text in enumerate(("a cat", "a dog", "a cat", "")):
            scored(home, "recnet", "local", seed)
            scored(home, seed=seed, captions=dict.fromkeys(IDS, text))
        out = bench("compare", "recnet:local", "salstm:xe")[1]
        assert "    B  a cat   [seed 0, 2]\n       a dog   [seed 1]\n       (empty)   [seed 3]\n" in out

    def test_captions_cannot_steer_the_terminal(self, home: Home, bench: Run) -> None:
        evil = "a\x1b[31mman\u202e evil\n\tA  forged \u2028line | <b>`x`\x07 \U0001f600"
        one = scored(home, "recnet", "local", captions=dict.fromkeys(IDS, evil))
        for out in (bench("compare", "recnet:local", scored(home).key)[1], bench("show", one.key)[1]):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", out)
            assert "a[31mman evil A forged line | <b>`x` \U0001f600" in out

    def test_a_default_that_is_left_out_is_told_and_nothing_is_made_up_of_captions_from_elsewhere(self) -> None:
        train = {"epochs": 10, "captions": 64, "data_fraction": 1.0}
        control, usual = (Row((record(train=one),)) for one in ({**train, "rewards": False}, train))
        assert differences(control, usual) == [("budget", "train.rewards", "false", "true")]
        known = {name: value for name, value in config("external", "mine").items() if name not in MADE_HERE}
        mine = Row((Record.model_validate(content(known, external={"source": "mine.jsonl"})),))
        assert not [row for row in differences(mine, control) if row[1].startswith("train.")]
        assert label(known) == "external:mine"

    def test_external_captions_say_so(self, home: Home, bench: Run) -> None:
        mine = scored(home, "external", "mine", made={"external": {"source": "mine.jsonl"}}, protocol="external")
        loss = {"name": "information", "provider": "hail", "settings": {}, "provider_digest": "0"}
        status, out, _ = bench("compare", "external:mine", scored(home, loss=loss).key)
        assert status == 0
        assert "information" not in out
        rows = csv.DictReader(io.StringIO(bench("export", "csv")[1]))
        assert sorted(row["config.loss"] for row in rows) == ["", "information"]
        assert f"A  external:mine, external mine, external: mine.jsonl, seed 0 (key {mine.key[:8]})" in out
        assert "WHAT DIFFERS (of A only the captions are known)" in out

    def test_metrics_that_cannot_be_drawn_have_no_interval(self, home: Home, bench: Run) -> None:
        one, other = scored(home, "recnet", "local", counted=False), scored(home)
        status, out, _ = bench("compare", one.key, other.key)
        assert status == 0
        assert re.search(r"^BLEU-4 .* -      -         -$", out, re.M)
        assert re.search(r"^CIDEr-D .*\.\..*\d$", out, re.M)
        assert "corrected for 2 metrics" in out
        told = " ".join(out.split())
        assert f"neither interval nor p: {folder(home, one) / SCORES} does not hold what they are made of, and" in told
        assert 'References are not shown: unknown data set "toy"' in told

    def test_a_single_clip_has_no_interval(self, home: Home, bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(globals(), "CLIPS", 1)
        monkeypatch.setitem(globals(), "IDS", IDS[:1])
        out = bench("compare", scored(home, "recnet", "local").key, scored(home).key)[1]
        assert len(re.findall(r" -  1\.000     1\.000$", out, re.M)) == 7


def rows_of(home: Home, item: Record) -> dict[str, np.ndarray]:
    """What compare draws of a cell, read from its files."""
    scores = read_scores(folder(home, item) / SCORES)[1]
    means = {part: scores[part] / 100 for part in PARTS if part in ("rouge_l", "cider")}
    return read_statistics(folder(home, item) / SCORES) | means


class TestRefusals:
    def refused(self, bench: Run, *words: object) -> str:
        status, out, err = bench("compare", *words)
        assert (status, out) == (2, "")
        assert err.startswith("bench: ") and err.count("\n") == 1
        return err

    def test_other_data_sets_splits_and_references(self, home: Home, bench: Run) -> None:
        one = scored(home)
        two, three = scored(home, dataset="toys"), scored(home, split="val")
        four = scored(home, "recnet", "local", refs="fed")
        assert "are of different data sets: toy and toys" in self.refused(bench, one.key, two.key)
        assert "salstm:xe seed 0 and salstm:xe seed 0 are of different splits: test and val" in self.refused(
            bench, one.key, three.key
        )
        said = self.refused(bench, one.key, four.key)
        assert "salstm:xe seed 0 and recnet:local seed 0 were not scored alike" in said
        assert "BLEU-1 cannot be compared: refs:abc and refs:fed\n" in said

    def test_failed_and_unscored_cells(self, home: Home, bench: Run) -> None:
        good = scored(home)
        failed, unscored = record("failed", seed=1), record("unscored", method="recnet")
        put(home.results, failed, unscored)
        said = self.refused(bench, failed.key, good.key)
        assert (
            f"salstm:xe seed 1 of toy (key {failed.key}) failed in fit and has no scores (RuntimeError: boom)" in said
        )
        assert said.endswith("with --retry-failed, runs it again\n")
        assert "has no scores yet: the bench run command that made it scores it\n" in self.refused(
            bench, good.key, unscored.key
        )
        assert "the other seeds alone would be another set" in self.refused(bench, "salstm:xe", good.key), (
            "a mean over the seeds that did not fail is no mean of the row"
        )

    def test_unsound_records(self, home: Home, bench: Run) -> None:
        good, other = scored(home), scored(home, seed=1)
        path = folder(home, other) / "record.json"
        fields = json.loads(path.read_text())
        fields["config"]["train"]["epochs"] = 3
        path.write_text(json.dumps(fields))
        for words in (
            (other.key[:9], good.key),
            ("salstm:xe", good.key),
            (good.key, good.key, "--seeds"),
            ("salstm", "x"),
        ):
            said = self.refused(bench, *words)
            assert f"{path} is not a valid record: its config has the key" in said, words
        assert bench("compare", good.key, good.key)[0] == 0

    def test_names(self, home: Home, bench: Run) -> None:
        item = scored(home)
        scored(home, "recnet", "local")
        assert (
            'no row or record is called "recnt:local"; rows: recnet:local; salstm:xe; did you mean "recnet:local"?'
            in (self.refused(bench, "recnt:local", item.key))
        )
        assert 'no row or record is called "salstm:rl" in toy; rows:' in self.refused(
            bench, "salstm:rl", item.key, "dataset=toy"
        )
        assert 'no row or record is called "abcd"' in self.refused(bench, "abcd", item.key)
        assert "there are no records of data set toyy under" in self.refused(bench, "salstm", item.key, "dataset=toyy")
        assert 'there are of: toy; did you mean "toy"?' in self.refused(bench, "salstm", item.key, "dataset=toyy")
        assert "there is no record results/x/record.json" in self.refused(bench, "results/x", item.key)
        assert "name two rows or records" in self.refused(bench, item.key)
        assert 'unknown flag "--seed"' in self.refused(bench, item.key, item.key, "--seed")

    def test_an_ambiguous_key(self, home: Home, bench: Run) -> None:
        item = scored(home)
        twin = home.results / "toy" / "recnet" / f"{item.key[:4]}000000000000"
        twin.mkdir(parents=True)
        (twin / "record.json").write_text("{}")
        said = self.refused(bench, item.key[:4], item.key)
        assert (
            f"several keys begin with {item.key[:4]}: results/toy/recnet/{twin.name}; results/toy/salstm/{item.key};"
            in said
        )
        assert said.endswith("give more of its digits\n")
        assert bench("show", item.key[:8])[0] == 0
        assert f"several keys begin with {item.key[0]}: " in self.refused(bench, item.key[0], item.key)

    def test_a_row_of_several_data_sets_or_protocols(self, home: Home, bench: Run) -> None:
        item = scored(home)
        scored(home, dataset="toys"), scored(home, protocol="paper"), scored(home, split="val")
        said = self.refused(bench, "salstm:xe", item.key)
        assert "salstm:xe names 4 rows" in said
        assert "; narrow it with dataset= or split= or protocol=, or give a key in brackets" in said
        said = self.refused(bench, "salstm:xe", item.key, "dataset=toy")
        assert "salstm:xe names 3 rows" in said
        assert "; narrow it with split= or protocol=, or give a key in brackets" in said
        said = bench("metrics", "salstm:xe", "dataset=toy", "metrics=distinct1")[2]
        assert "names 3 rows" in said and "narrow it" not in said, "it takes neither split= nor protocol="
        scored(home, "recnet", "local", subset=[4, 2, 2]), scored(home, "recnet", "local", subset=[4, 2, 3])
        assert "); give a key in brackets instead" in self.refused(bench, "recnet:local", item.key), "no option does it"
        assert bench("compare", "salstm:xe", item.key, "dataset=toy", "protocol=standard", "split=test")[0] == 0

    def test_a_name_means_the_row_of_the_main_table(self, home: Home, bench: Run) -> None:
        """Neither a try of a setting nor a training with a part of the clips makes it ambiguous."""
        item, usual = scored(home), config("recnet", "local", settings={"width": 512, "weight": 0.1})
        made = scored(home, "recnet", "local", settings=usual["settings"])
        scored(home, "recnet", "local", settings={"width": 512, "weight": 0.5}, changed=["weight"])
        scored(home, "recnet", "local", settings={"width": 512, "weight": 0.9}, changed=["weight"])
        scored(home, "recnet", "local", settings=usual["settings"], train={**usual["train"], "data_fraction": 0.5})
        scored(home, "recnet", "local", settings=usual["settings"], splits="paper")
        scored(home, "recnet", "local", settings=usual["settings"], subset=[4, 2, 2])
        scored(home, "recnet", "local", settings=usual["settings"], train={**usual["train"], "rewards": False})
        assert bench("compare", "recnet:local", item.key)[1].count(made.key[:8]) > 0
        other = scored(home, splits="paper")
        assert other.key[:8] in bench("compare", "recnet:local", "salstm", "splits=paper")[1]
        scored(home, dataset="toys")
        assert "salstm:xe names 2 rows: salstm:xe of toy test, " in self.refused(bench, "salstm:xe", made.key), (
            "no data set is preferred to another"
        )
        scored(home, splits="paper", train={**usual["train"], "epochs": 77})
        said = self.refused(bench, "salstm:xe", made.key, "splits=paper")
        assert (
            "salstm:xe of toy test, splits=paper, standard, frames, seed 0 (" in said
            and "); give a key in brackets" in said
        )

    def test_the_example_of_the_readme_is_understood(
        self, bench: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("BENCH_HOME", str(Path(__file__).resolve().parents[2]))
        monkeypatch.setenv("BENCH_DATA", str(tmp_path))
        status, out, _ = bench("compare", "recnet:local", "salstm", "dataset=msrvtt1000", "clips=3")
        assert status == 0 and out.startswith("A  recnet:local, ")

    def test_a_folder_elsewhere(self, home: Home, bench: Run, tmp_path: Path) -> None:
        item = scored(home)
        (home.results / "toy").rename(tmp_path / "moved")
        said = self.refused(bench, tmp_path / "moved" / "salstm" / item.key, "salstm")
        assert f"does not lie in {folder(home, item)}" in said

    @pytest.mark.parametrize(
        ("file", "change", "said"),
        [
            (SCORES, lambda text: None, "cannot be read: No such file"),
            (SCORES, lambda text: text.replace("c05,", "c04,"), "a clip is there twice"),
            (SCORES, lambda text: text + "c99,1\n", "line 32 has not 41 columns"),
            (SCORES, lambda text: re.sub(r"(c05,)[^,]+", r"\1nan", text), "a number is not finite"),
            (SCORES, lambda text: re.sub(r"(c05,)[^,]+", r"\1x", text), "could not convert"),
            (SCORES, lambda text: text.replace("clip,", "id,"), "its first line is not clip"),
            (SCORES, lambda text: "", "cannot be read"),
            (
                SCORES,
                lambda text: re.sub(r"[\d.]+$", "99.0", text, count=1, flags=re.M),
                "and the record beside it says",
            ),
            (SCORES, lambda text: text.replace("c05,", "c99,"), "predictions.jsonl does not caption the 30 clips"),
            (SCORES, lambda text: re.sub(r"(c05,)\d+", r"\g<1>900", text), f"{SCORES} gives BLEU-1"),
            (
                SCORES,
                lambda text: text.replace("correct1", "right1"),
                "the columns of bleu are not correct1, .. closest",
            ),
            (
                SCORES,
                lambda text: re.sub("|".join(rf"\b{name}\b" for name in STATISTICS["bleu"][1:]), r"x\g<0>", text),
                "the columns of bleu are not correct1, .. closest",
            ),
            ("predictions.jsonl", lambda text: text + text[:30], "line 31 is no prediction"),
            ("predictions.jsonl", lambda text: None, "cannot read the predictions"),
        ],
    )
    def test_damaged_files(
        self, home: Home, bench: Run, file: str, change: Callable[[str], str | None], said: str
    ) -> None:
        item, other = scored(home), scored(home, "recnet", "local")
        path = folder(home, item) / file
        text = change(path.read_text())
        path.unlink()
        if text is not None:
            path.write_text(text)
        assert said in self.refused(bench, other.key, item.key)


class TestEarlierForm:
    """Cells that an earlier version left: their files are read as they are, and none is rewritten."""

    def test_they_tell_the_same(self, home: Home, bench: Run) -> None:
        one, other = scored(home, "recnet", "local"), scored(home)

        def outputs() -> list[str]:
            found = [bench(*words) for words in (["compare", one.key, other.key], ["show", one.key], ["export", "csv"])]
            assert [(status, err) for status, _, err in found] == [(0, "")] * 3
            return [re.sub(r"(?m)^(predictions|clip_scores)\S* .*$", "", out) for _, out, _ in found]  # sizes of files

        now = outputs()
        assert bench("leaderboard")[0] == 0
        for item in (one, other):
            earlier_form(folder(home, item))
        files = {path: path.read_bytes() for path in sorted(home.results.rglob("*")) if path.is_file()}
        assert outputs() == now
        assert bench("leaderboard", "--check")[0] == 0
        assert {path: path.read_bytes() for path in sorted(home.results.rglob("*")) if path.is_file()} == files

    def test_statistics_of_other_clips(self, home: Home) -> None:
        item = scored(home)
        earlier_form(folder(home, item))
        path = folder(home, item) / EARLIER_STATISTICS
        path.write_text(path.read_text().replace("c05,", "c99,"))
        with pytest.raises(BenchError, match=r"clip_statistics\.csv is of other clips than clip_scores\.csv"):
            gather([item], home)

    def test_a_file_as_it_was_written_then(self, tmp_path: Path) -> None:
        """The first two lines of files that bench 0.1 wrote: the layout is spelled out here, whatever is written today."""
        (tmp_path / SCORES).write_text(
            "clip,bleu1,bleu2,bleu3,bleu4,meteor,rouge_l,cider\n"
            "shape2000,72.727273,38.138504,0.000000,0.000000,29.481133,50.427503,67.116962\n"
        )
        (tmp_path / EARLIER_STATISTICS).write_text(
            f"clip,correct1,correct2,correct3,correct4,guessed1,guessed2,guessed3,guessed4,length,closest,"
            f"{','.join(f'meteor{number}' for number in range(23))}\n"
            "shape2000,8,2,0,0,11,10,9,8,11,11,11,11,5,5,3,3,4,4,0,0,0,0,0,0,0,0,0,0,1,1,4,7,8\n"
        )
        ids, scores = read_scores(tmp_path / SCORES)
        assert (ids, float(scores["meteor"][0]), list(scores)) == (("shape2000",), 29.481133, list(METRICS))
        found = read_statistics(tmp_path / SCORES)
        assert found["bleu"].tolist() == [[8, 2, 0, 0, 11, 10, 9, 8, 11, 11]]
        assert found["meteor"].tolist() == [[11, 11, 5, 5, 3, 3, 4, 4, *[0] * 10, 1, 1, 4, 7, 8]]


class TestCounting:
    """Statistics and references from the captions of the data set."""

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        lines = [{"clip": clip, "caption": text} for clip, texts in REFERENCES.items() for text in texts]
        lines += [{"clip": f"d{part}", "caption": "a cat"} for part in range(2)]
        (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for part, ids in (("train", ["d0"]), ("val", ["d1"]), ("test", IDS)):
            (folder / f"{part}.txt").write_text("\n".join(ids))
        (folder / "toy.yaml").write_text(
            "name: toy\ncaptions: [{format: jsonl, files: {captions: captions.jsonl}}]\n"
            "splits: {train: train.txt, val: val.txt, test: test.txt}\n"
        )
        return folder / "toy.yaml"

    @pytest.fixture
    def jar(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """METEOR with the beginning of its paraphrases: the whole table takes ten seconds to read."""
        jar = small_jar(tmp_path_factory.mktemp("meteor") / "jar")
        monkeypatch.setattr(meteor, "find_jar", lambda *_: jar)
        yield

    def score(self, dataset: Path, home: Home, name: str, captions: Mapping[str, str]) -> Record:
        path = dataset.parent / f"{name}.json"
        path.write_text(json.dumps(captions))
        return evaluate(path, read_definition(dataset), "test", name, home)

    def test_what_scoring_left_and_what_is_counted_again_are_one(
        self, home: Home, bench: Run, dataset: Path, jar: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = self.score(dataset, home, "one", {clip: f"a dog runs {clip}" for clip in IDS})
        other = self.score(
            dataset, home, "other", {clip: REFERENCES[clip][number % 3] for number, clip in enumerate(IDS)}
        )
        statistics = read_statistics(folder(home, one) / SCORES)
        assert 100 * corpus_scores("bleu", statistics["bleu"])[3] == pytest.approx(
            one.scores["test"]["bleu4"], abs=1e-8
        )
        assert 100 * corpus_scores("meteor", statistics["meteor"])[0] == pytest.approx(
            one.scores["test"]["meteor"], abs=1e-8
        )
        words = ["compare", "external:one", "external:other", f"dataset={dataset}"]
        status, beside, _ = bench(*words)
        assert status == 0
        assert re.search(r"^METEOR .*\.\.", beside, re.M)
        assert "    R  a dog runs c" in beside and "       and 1 more" in beside, "of five references two are equal"

        for item in (one, other):
            lose_statistics(folder(home, item))
        before = sorted(path for path in home.results.rglob("*"))
        assert bench(*words) == (0, beside, "")
        assert sorted(path for path in home.results.rglob("*")) == before, "results stay as they are"
        monkeypatch.setenv("BENCH_JAVA", "/no/java")
        status, without, _ = bench(*words)
        assert status == 0
        assert "BLEU and METEOR have neither interval nor p: the Java runtime /no/java" in " ".join(without.split())
        assert "    R  a dog runs c" in without

    def test_captions_that_do_not_give_the_scores(self, home: Home, dataset: Path, jar: None) -> None:
        """A record whose captions were changed afterwards is not compared."""
        item = self.score(dataset, home, "one", {clip: f"a dog runs {clip}" for clip in IDS})
        lose_statistics(folder(home, item))
        path = folder(home, item) / "predictions.jsonl"
        path.write_text(path.read_text().replace("a dog runs c05", "a cat"))
        with pytest.raises(BenchError, match=r"predictions\.jsonl gives BLEU-1 .*, and the record beside it says"):
            gather([item], home, str(dataset))

    def test_other_captions_are_no_references(self, home: Home, dataset: Path) -> None:
        item = scored(home, counted=False, refs="0123abcd")
        found = gather([item], home, str(dataset))
        assert found.references == {}
        assert f"(refs:{digest(REFERENCES)[:12]}) are not those of the records (refs:0123abcd)" in found.notes[0]
        assert "without the references it cannot be made here" in found.notes[1]

    def test_scores_of_another_version_are_not_counted_again(self, home: Home, dataset: Path) -> None:
        item = scored(home, counted=False, refs=digest(REFERENCES)[:12])
        fields = item.model_dump(by_alias=True)
        fields["signatures"]["test"]["bleu4"] = fields["signatures"]["test"]["bleu4"].replace("bench-1", "bench-0")
        old = Record.model_validate(fields)
        write_record(folder(home, old), old)
        found = gather([old], home, str(dataset))
        assert found.references
        assert f"cell {old.key} was scored by another version; bench run scores it again" in found.notes[0]


def test_statistics_come_back_exactly(tmp_path: Path) -> None:
    random_ = np.random.default_rng(0)
    statistics = {"bleu": random_.random((3, 10)), "meteor": random_.integers(0, 99, (3, 23)).astype(float)}
    ids = ("a", 'b "quoted", with a comma', "c")
    write_scores(tmp_path / SCORES, ids, {"cider": dict.fromkeys(ids, 0.5)}, statistics)
    back = read_statistics(tmp_path / SCORES)
    found, scores = read_scores(tmp_path / SCORES)
    assert found == ids and {name: values.tolist() for name, values in scores.items()} == {"cider": [50.0] * 3}
    for part, rows in statistics.items():
        np.testing.assert_array_equal(back[part], rows)


class TestShow:
    def test_how_a_training_on_a_gpu_read_its_features(self, home: Home, bench: Run) -> None:
        for seed, stayed, words in ((0, True, "lay on the GPU"), (1, False, "were copied batch by batch")):
            spent = {"captions": 20000, "fit_seconds": 12.5, "wait_seconds": 1.25}
            made = {"ledger": spent, "provenance": {"bench": "1", "device": "cuda:0", "features_on_gpu": stayed}}
            item = scored(home, seed=seed, made=made)
            assert f"for its next batch in 10.0% of its time; features {words}\n" in bench("show", item.key)[1]

    def test_how_its_phases_ended(self, home: Home, bench: Run) -> None:
        item = scored(home, made={"endings": {"base": "converged", "reinforce": "capped"}})
        assert "\nPhases ended: base converged, reinforce capped\n" in bench("show", item.key)[1]
        (row,) = csv.DictReader(io.StringIO(bench("export", "csv", "dataset=toy")[1]))
        assert row["endings"] == "base converged, reinforce capped"

    def test_a_done_record(self, home: Home, bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(home.root)
        item = scored(home, settings={"width": 384, "embedding": 512}, text={"tokenizer": "strip", "min_count": 3})
        status, out, err = bench("show", item.key[:6])
        assert (status, err) == (0, "")
        assert out.startswith(
            f"salstm xe (salstm:xe), seed 0, key {item.key}\nData set toy, split test, standard protocol"
        )
        for metric, value in item.scores["test"].items():
            assert f"{value:.2f}  {item.signatures['test'][metric]}" in out
        assert re.search(r"^width +384 +512$", out, re.M)
        assert re.search(r"^text\.min_count +3 +1$", out, re.M)
        assert not re.search(r"^(embedding|search\.beam|train\.epochs) ", out, re.M), "the defaults are not told"
        assert re.search(r"^captions +20,000$", out, re.M)
        assert "Epoch 7 of phase base was chosen: val_cider_tokens 31.20" in out
        assert f"FILES in results/toy/salstm/{item.key}" in out
        assert "checkpoint.safetensors is not here" in out
        score = dict(zip(IDS, read_scores(folder(home, item) / SCORES)[1]["cider"], strict=True))
        best, worst = out.partition("BEST CLIPS")[2].split("WORST CLIPS")
        order = sorted(IDS, key=lambda clip: -score[clip])
        assert re.findall(r"^(c\d\d)  CIDEr-D", best, re.M) == order[:5]
        assert re.findall(r"^(c\d\d)  CIDEr-D", worst, re.M) == order[::-1][:5]
        (folder(home, item) / "checkpoint.safetensors").write_bytes(b"weights")
        out = bench("show", "salstm")[1]
        assert f'trained = bench.load("results/toy/salstm/{item.key}/checkpoint.safetensors")' in out

    def test_failed_and_unscored_records(self, home: Home, bench: Run) -> None:
        failed, unscored = record("failed"), record("unscored", seed=1)
        put(home.results, failed, unscored)
        status, out, _ = bench("show", failed.key)
        assert status == 0
        assert "State failed\nFAILED in fit: RuntimeError: boom; log: work/log.txt" in out
        assert "checkpoint" not in out
        status, out, _ = bench("show", unscored.key)
        assert status == 0
        assert "State unscored" in out and "SCORES" not in out

    def test_a_method_that_is_not_here(self, home: Home, bench: Run) -> None:
        out = bench("show", scored(home, "plugin").key)[1]
        assert "SETTINGS (the card of plugin is not here to tell the defaults)" in out
        assert re.search(r"^width +512$", out, re.M)
        out = bench("show", scored(home, "external", made={"external": {"source": "mine.jsonl"}}).key)[1]
        assert "External: captions from mine.jsonl, made outside the harness" in out
        assert "SETTINGS" not in out and "is not here, for checkpoints" not in out

    def test_what_is_refused(self, home: Home, bench: Run) -> None:
        items = [scored(home, seed=seed) for seed in (0, 1)]
        status, _, err = bench("show", "salstm")
        assert status == 2
        assert (
            f"salstm has 2 records; name one by its key: {items[0].key[:8]} (seed 0), {items[1].key[:8]} (seed 1)"
            in err
        )
        assert "name a record, such as bench show" in bench("show")[2]
        assert bench("show", "nothing")[0] == 2
        (folder(home, items[0]) / "record.json").write_text("[]")
        status, _, err = bench("show", items[0].key)
        assert (status, "is not a valid record: not a JSON object" in err) == (2, True)


class TestExport:
    def table(self, text: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(text)))

    def test_every_cell_with_every_score(self, home: Home, bench: Run) -> None:
        items = [scored(home, seed=1), scored(home, seed=0), scored(home, "recnet", "local", dataset="another")]
        put(home.results, record("failed", seed=7))
        status, out, err = bench("export", "csv")
        assert (status, err) == (0, "")
        rows = self.table(out)
        assert [row["key"] for row in rows] == [item.key for item in all_records(home.results)]
        by_key = {row["key"]: row for row in rows}
        for item in items:
            row = by_key[item.key]
            assert {metric: float(row[metric]) for metric in METRICS} == item.scores["test"]
            assert (row["method"], row["variant"], row["seed"]) == (item.method, item.variant, str(item.seed))
            assert (row["config.settings.width"], row["config.search.beam"], row["streams"]) == ("512", "5", "frames")
            assert row["captions"] == "20000"
            assert (row["config.train.rewards"], row["config.train.validations"]) == ("true", "1"), (
                "left out, told by value"
            )
        (failed,) = [row for row in rows if row["state"] == "failed"]
        assert failed["failure"] == "fit: RuntimeError: boom" and failed["cider"] == ""
        assert bench("export", "csv")[1] == out, "the same records give the same bytes"
        assert len(self.table(bench("export", "csv", "dataset=another")[1])) == 1

    def test_to_a_file(self, home: Home, bench: Run, tmp_path: Path) -> None:
        scored(home)
        path = tmp_path / "new" / "cells.csv"
        assert bench("export", "csv", f"path={path}") == (0, f"{path} written: 1 cell\n", "")
        assert path.read_text() == bench("export", "csv")[1]
        status, _, err = bench("export", "csv", f"path={path}/below.csv")
        assert status == 2
        assert "cannot write" in err

    def test_foreign_text_keeps_to_its_field(self, home: Home, bench: Run) -> None:
        failed = content(config(), "failed")
        failed["failure"]["message"] = 'a,b\n"c"\x1b[2J;d'
        put(home.results, Record.model_validate(failed))
        (row,) = self.table(bench("export", "csv")[1])
        assert row["failure"] == 'fit: RuntimeError: a,b "c"[2J;d'

    def test_refused_records_are_named(self, home: Home, bench: Run) -> None:
        good, bad = scored(home), scored(home, seed=1)
        path = folder(home, bad) / "record.json"
        path.write_text(path.read_text().replace('"done"', '"fine"'))
        status, out, err = bench("export", "csv")
        assert status == 1
        assert [row["key"] for row in self.table(out)] == [good.key]
        assert f"{path} is not a valid record" in err

    def test_nothing_to_export(self, home: Home, bench: Run) -> None:
        status, out, err = bench("export", "csv")
        assert (status, out) == (2, "")
        assert "there are no records under" in err
        scored(home)
        assert 'there are of: toy; did you mean "toy"?' in bench("export", "csv", "dataset=tou")[2]
        assert '"export" is half a command; allowed: export csv' in bench("export")[2]


def test_a_record_is_read_where_it_was_found(home: Home) -> None:
    item = scored(home)
    assert find_row(item.key[:4], home).first == read_record(folder(home, item) / "record.json")
