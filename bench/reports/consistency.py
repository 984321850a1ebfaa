"""Which records may stand on a page: those whose scores are the ones that the files beside them give.

A record is checked against its schema and its key when it is read. What that cannot find, a score that was changed or a folder
that was mixed up, is found here: the mean of the clip scores must be the record's score, and there must be one caption of each
clip. BLEU and METEOR are no means of clip scores; `bench compare` checks them, where the statistics of the clips are there.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench import BenchError
from bench.evaluation.metrics import MEANS, RANKED_BY
from bench.home import Home
from bench.records.clip_scores import SCORES, read_columns
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, RECORD, BadRecord, apart, cell_folder, prediction_ids
from bench.reports.intervals import Clips

NEAR = 1e-5  # percent: clip scores are written to six digits


def check(records: Sequence[Record], home: Home, bad: list[BadRecord]) -> tuple[list[Record], dict[str, Clips]]:
    """The records that hold, and the ranked scores of their clips by key, where they lie beside the record.

    Records that do not hold are appended to `bad`, with the reason. Files that are not there are not asked for.
    """
    sound = []
    clips: dict[str, Clips] = {}
    for record in records:
        try:
            found = _clips(record, home) if record.state == "done" else None
        except BenchError as error:
            bad.append(BadRecord(cell_folder(home.results, record) / RECORD, str(error)))
            continue
        sound.append(record)
        if found is not None:
            clips[record.key] = found
    return sound, clips


def _clips(record: Record, home: Home) -> Clips | None:
    folder = cell_folder(home.results, record)
    if not (folder / SCORES).is_file():
        return None
    ids, columns = read_columns(folder / SCORES, MEANS)
    recorded = record.scores[record.split]
    for metric, scores in columns.items():
        mean = float(scores.mean())
        if metric in recorded and abs(mean - recorded[metric]) > NEAR:
            raise BenchError(f"its {metric} is {recorded[metric]:.4f}, and that of {SCORES} beside it is {mean:.4f}")
    if (folder / PREDICTIONS).is_file() and (wrong := apart(prediction_ids(folder / PREDICTIONS), ids)):
        raise BenchError(f"{PREDICTIONS} beside it does not caption the {len(ids)} clips that were scored: {wrong}")
    return Clips(ids, columns[RANKED_BY]) if RANKED_BY in columns else None
