"""The command line: which command, its words, its exit status. Each command imports what it needs when it runs.

Exit status: 0 all is well, 1 something failed or differs, 2 the request was not understood or cannot be met, 130 stopped
by Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import BenchError, __version__
from bench.grammar import Arguments, check_keys, take_apart
from bench.help import HELP, OVERVIEW
from bench.home import Home, find_home
from bench.reports.terminal import columns
from bench.sentences import listing, unknown

if TYPE_CHECKING:
    from bench.data.findings import Finding
    from bench.definition import DatasetDefinition
    from bench.registry import MethodEntry

WELL, FAILED, USAGE, STOPPED = 0, 1, 2, 130
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
PLACING = (
    "executor",
    "executor.address",
    "max_concurrent",
    "resources.cpus",
    "resources.gpus",
    "resources.gpu_memory",
    "resources.accelerator_type",
)
REPRODUCE_KEYS = ("scale", "seeds", "dataset", "protocol", *PLACING, "threads", "device", "mlflow")
EXTRACT_KEYS = (
    "videos",
    "frames",
    "fps",
    "encoder",
    "weights",
    "boxes",
    "silence",
    "batch",
    "workers",
    "device",
    "skip",
    "replace",
)
CLIPS_NAMED = 5  # clip ids spelled out after a finding; the rest is counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. No mistake of the user's reaches them as a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path or title that the terminal's encoding lacks is no failure
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except BenchError as error:
        return _say(str(error), USAGE)
    except KeyboardInterrupt:
        return _say("stopped; the same command goes on where this one ended", STOPPED)
    except BrokenPipeError:
        # The reader of our output has seen enough (`bench list | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WELL
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        if error.filename is None and _output_is_full():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
            return _say(f"the output cannot be written ({error.strerror}): send it where there is room", USAGE)
        place = error.filename or find_home().root
        return _say(f"{place}: {error.strerror}; free space there or make it writable, or set BENCH_HOME", USAGE)


def _output_is_full() -> bool:
    """Whether there is no room where our output goes: a line of its own is the only way to know."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except (OSError, ValueError):
        return True
    return False


def _say(sentence: str, status: int) -> int:
    print(f"bench: {sentence}", file=sys.stderr)
    return status


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(OVERVIEW)
        return WELL
    if words[0] == "--version":
        return version([])
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS:
        below = [command for command in COMMANDS if command.startswith(words[0] + " ")]
        if below and ("--help" in words or "-h" in words):
            print("\n\n".join(HELP[command] for command in below))
            return WELL
        raise _no_command(words, below)
    rest = words[len(name.split()) :]
    if "--help" in rest or "-h" in rest:
        print(HELP[name])
        return WELL
    return COMMANDS[name](rest)


def _no_command(words: list[str], below: list[str]) -> BenchError:
    """The error for words that name no command; `below` are the commands that begin with the first word."""
    if below and len(words) == 1:
        return BenchError(f'"{words[0]}" is half a command; allowed: {listing(below)}')
    return unknown("command", " ".join(words[:2]) if below else words[0], below or list(COMMANDS))


def _take(
    words: Sequence[str],
    keys: Sequence[str],
    *,
    files: int = 0,
    required: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> tuple[dict[str, str], Arguments]:
    """The words of a simple command: values as text by key. Raises BenchError for what is unknown or missing."""
    arguments = take_apart(words, flags)
    check_keys(arguments.values, keys)
    if len(arguments.files) > files:
        raise BenchError(f"command line: {arguments.files[files]!r} is not key=value; allowed keys: {listing(keys)}")
    values = {key: value.read(text=True) for key, value in arguments.values.items()}
    for key in required:
        if key not in values:
            raise BenchError(f"command line: {key}= is missing")
    for key, value in values.items():
        if not isinstance(value, str):
            raise BenchError(f"command line: {key} is {value!r}, but must be one name")
    return values, arguments


def version(words: Sequence[str]) -> int:
    _take(words, ())
    print(f"bench {__version__}")
    return WELL


def list_all(words: Sequence[str]) -> int:
    """`bench list`: methods, data sets, feature caches and runs, each a table."""
    from bench import listings

    names = {
        "methods": listings.methods,
        "datasets": listings.datasets,
        "features": listings.features,
        "runs": listings.runs,
    }
    _, arguments = _take(words, (), files=1)
    for name in arguments.files:
        if name not in names:
            raise unknown("list", name, names)
    chosen = arguments.files or tuple(names)
    home = find_home()
    blocks = []
    for name in chosen:
        head, rows, right = names[name](home)
        body = columns(head, rows, right) if rows else f"no {name} yet"
        blocks.append(body if len(chosen) == 1 else f"{name.upper()}\n{body}")
    print("\n\n".join(blocks))
    return WELL


def plan(words: Sequence[str]) -> int:
    """`bench plan`: the cells of a request with their state and the reason; changes nothing."""
    from bench.spec import parse
    from bench.spec import plan as planned

    found = planned(parse(words), find_home())
    rows = [
        (
            item.cell.config["title"],
            f"{item.cell.method}:{item.cell.config['variant']}",
            "+".join(item.cell.config["streams"]),
            item.cell.config["seed"],
            item.state,
            f"{item.budget:,}" if item.budget else "-",
            item.why,
        )
        for item in found
    ]
    print(
        columns(("method", "variant", "streams", "seed", "state", "captions", "why"), rows, right=("seed", "captions"))
    )
    counts = {
        state: sum(item.state == state for item in found) for state in dict.fromkeys(item.state for item in found)
    }
    totals = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"\n{len(found)} cell{'s' if len(found) != 1 else ''}: {totals}. Data set {found[0].cell.config['dataset']}.")
    return WELL


def run(words: Sequence[str]) -> int:
    """`bench run`: bring every cell of a request to a scored record, then the page up to date."""
    from bench.plugins import check_imports
    from bench.registry import dataset, find_methods
    from bench.spec import cells, parse, requested

    spec, home = parse(words), find_home()
    asked = requested(spec, home)
    check_imports(spec.methods, find_methods(), home)
    needed = {stream for cell in asked for stream in cell.config["streams"]}
    definition = dataset(spec.dataset)
    from bench.execution.prepare import prepare, refuse_empty_splits
    from bench.execution.runner import run as run_cells

    refuse_empty_splits(definition, home, asked[0].config["splits"], spec.subset, spec.split)
    prepare(definition, home, spec.subset, needed)
    status = run_cells(cells(spec, home), home, spec)
    if status not in (WELL, FAILED):
        return status
    if status == FAILED and not any((home.results / definition.name).glob("*/*/record.json")):
        return status  # not even a record of the failure could be written: there is nothing to show on a page
    return max(status, _write_pages(home, definition.name, check=False))


def tune(words: Sequence[str]) -> int:
    """`bench tune`: search on validation clips, then the chosen points over the seeds, then the pages."""
    from bench.plugins import check_imports
    from bench.registry import dataset, find_methods
    from bench.tuning.request import parse

    spec, home = parse(words), find_home()
    check_imports(spec.run.methods, find_methods(), home)
    from bench.tuning.command import tune as tune_methods

    status = tune_methods(spec, home, find_methods())
    if status not in (WELL, FAILED):
        return status
    return max(status, _write_pages(home, dataset(spec.run.dataset).name, check=False))


def test(words: Sequence[str]) -> int:
    """`bench test`: the conformance suite for methods, a line for each check; status 1 if one failed."""
    from bench.conformance.command import test as test_methods

    arguments = take_apart(words, ())
    if arguments.values:
        raise BenchError(
            "command line: bench test takes names of methods alone, such as bench test salstm recnet:global"
        )
    return FAILED if test_methods(arguments.files) else WELL


def data_check(words: Sequence[str]) -> int:
    values, _ = _take(words, ("dataset",), required=("dataset",))
    from bench.data.check import check_dataset
    from bench.registry import dataset

    definition = dataset(values["dataset"])
    return _report(f"data set {definition.name}", check_dataset(definition, find_home()))


def _report(what: str, findings: Sequence[Finding]) -> int:
    for finding in findings:
        more = len(finding.clips) - CLIPS_NAMED
        told = all(clip in finding.message for clip in finding.clips[:CLIPS_NAMED])
        clips = f" [{listing(finding.clips[:CLIPS_NAMED])}{f' and {more} more' if more > 0 else ''}]"
        print(f"{finding.severity}: {finding.message}{'' if told else clips}")
    errors = sum(finding.severity == "error" for finding in findings)
    print(
        f"{what}: {_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"
        if findings
        else f"{what}: nothing to complain of"
    )
    return FAILED if errors else WELL


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def features_list(words: Sequence[str]) -> int:
    _take(words, ())
    return list_all(["features"])


def features_check(words: Sequence[str]) -> int:
    """`bench features check`: damage in the caches of a data set; status 1 if there is any."""
    definition, streams, home = _streams(words)
    from bench.data.corpus import load_corpus
    from bench.features.check import check_cache
    from bench.features.sidecar import cache_path

    ids = list(load_corpus(definition, home).clips)
    statuses = [
        _report(f"stream {stream} of {definition.name}", check_cache(cache_path(home, definition.name, stream), ids))
        for stream in streams
    ]
    return max(statuses)


def features_import(words: Sequence[str]) -> int:
    """`bench features import`: features as others published them; `from=` and its kin stand for a definition's entry."""
    told, rest = _split(words, ("from", "layout", "frames", "encoder", "ids", "replace"))
    if "from" not in told and set(told) - {"replace"}:
        raise BenchError(
            f"command line: {sorted(set(told) - {'replace'})[0]}= goes with from=PATH, the features' place"
        )
    if "from" in told:
        values, _ = _take(rest, ("dataset", "stream"), required=("dataset", "stream"))
        from bench.execution.prepare import import_from
        from bench.registry import dataset

        print(import_from(dataset(values["dataset"]), values["stream"], find_home(), told))
        return WELL
    definition, streams, home = _streams(rest)
    from bench.execution.prepare import prepare, refuse_told

    if told.get("replace") != "true":
        refuse_told(definition, streams, home)
    prepare(definition, home, None, streams, again=told.get("replace") == "true")
    return WELL


def _split(words: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The words key=value of these keys, and all others."""
    mine = [word for word in words if word.partition("=")[0] in keys and "=" in word]
    return _take(mine, keys)[0], [word for word in words if word not in mine]


def features_extract(words: Sequence[str]) -> int:
    """`bench features extract`: a stream from a folder of videos; status 1 if some clips could not be read."""
    if "stream=words" in words:
        return _extract_words(words)
    values, _ = _take(words, ("dataset", "stream", *EXTRACT_KEYS), required=("dataset", "stream"))
    from bench.execution.prepare import extract
    from bench.registry import dataset

    definition = dataset(values["dataset"])
    told = {name: values[name] for name in EXTRACT_KEYS if name in values}
    path, failed = extract(definition, values["stream"], find_home(), told)
    if failed and ("skip" not in told or not path.is_file()):
        return _say(failed, FAILED)
    if failed:
        print(failed)
    print(f"{definition.name}: stream {values['stream']} is in {path}")
    return WELL


def _extract_words(words: Sequence[str]) -> int:
    """The stream `words`, which a trained method makes of the stream `frames`."""
    values, _ = _take(words, ("dataset", "stream", "checkpoint", "replace"), required=("dataset", "checkpoint"))
    from bench.execution.words import extract_words
    from bench.registry import dataset

    definition = dataset(values["dataset"])
    checkpoint = Path(values["checkpoint"]).expanduser()
    path = extract_words(definition, find_home(), checkpoint, values.get("replace") == "true")
    print(f"{definition.name}: stream words is in {path}")
    return WELL


def _streams(words: Sequence[str]) -> tuple[DatasetDefinition, list[str], Home]:
    """The data set of a `features` command, and its streams or those that were named by `stream=`.

    Without `stream=`, streams that come from videos are left out until they are there: few methods read them.
    """
    from bench.features.sidecar import cache_path
    from bench.registry import dataset

    arguments = take_apart(words, ())
    check_keys(arguments.values, ("dataset", "stream"))
    if arguments.files or "dataset" not in arguments.values:
        raise BenchError("command line: dataset= is missing, such as dataset=msvd or dataset=my/dataset.yaml")
    definition, home = dataset(arguments.values["dataset"].read(text=True)), find_home()
    named = [
        name
        for name, stream in definition.streams.items()
        if stream.videos is None or cache_path(home, definition.name, name).is_file()
    ]
    if "stream" in arguments.values:
        named = arguments.values["stream"].listed(text=True)
    for stream in named:
        if stream not in definition.streams:
            raise unknown("stream", stream, definition.streams, f"data set {definition.name}")
    if not named and "stream" in arguments.values:
        raise BenchError(
            f"command line: stream= names none; data set {definition.name} has {listing(definition.streams)}"
        )
    if not named:
        raise BenchError(f"data set {definition.name} declares no streams: add them to {definition.path}")
    return definition, named, home


def evaluate(words: Sequence[str]) -> int:
    """`bench evaluate`: score captions made anywhere; the record is marked external and enters the page."""
    values, arguments = _take(words, ("dataset", "split", "splits", "as"), files=1, required=("dataset",))
    if not arguments.files:
        raise BenchError(
            "command line: name the file of captions, such as bench evaluate predictions.jsonl dataset=msvd"
        )
    path = Path(arguments.files[0])
    if not path.is_file():
        raise BenchError(f"there is no file {path}")
    split = values.get("split", "test")
    if split not in ("train", "val", "test"):
        raise unknown("split", split, ("train", "val", "test"), "command line")
    from bench.execution.external import evaluate as score
    from bench.registry import dataset

    name, splits = values.get("as", path.stem), values.get("splits", "default")
    home = find_home()
    record = score(path, dataset(values["dataset"]), split, name, home, splits=splits)
    for metric, value in record.scores[split].items():
        print(f"{metric:8} {value:7.2f}   {record.signatures[split].get(metric, '')}")
    return _write_pages(home, record.dataset, check=False)


def caption(words: Sequence[str]) -> int:
    """`bench caption`: captions of videos by a trained method; status 1 if some could not be read."""
    from bench.caption import parse
    from bench.caption import run as caption_videos

    return FAILED if caption_videos(parse(words), find_home()) else WELL


def compare(words: Sequence[str]) -> int:
    """`bench compare`: two rows or records on the same clips, with what chance makes of their difference."""
    keys = ("dataset", "split", "protocol")
    values, arguments = _take(words, keys, files=2, flags=("--seeds",))
    if len(arguments.files) != 2:
        raise BenchError(
            "command line: name two rows or records, such as bench compare recnet:local salstm dataset=msvd"
        )
    from bench.execution.clipwise import gather
    from bench.reports.compare import Side, check, render
    from bench.reports.named import find_row

    home = find_home()
    name, seeds = _name_of(values.get("dataset")), "--seeds" in arguments.flags
    first, second = (
        find_row(word, home, name, values.get("split"), values.get("protocol"), seeds) for word in arguments.files
    )
    check(first, second)
    found = gather([*first.records, *second.records], home, values.get("dataset"))
    a, b = (Side(row, tuple(found.cells[record.key] for record in row.records)) for row in (first, second))
    print(render(a, b, found.references, found.notes))
    return WELL


def _name_of(dataset: str | None) -> str | None:
    """The name of a data set that is given by its name or its file; a name needs no definition any more."""
    if dataset and dataset.endswith((".yaml", ".yml")):
        from bench.registry import dataset as definition

        return definition(dataset).name
    return dataset


def show(words: Sequence[str]) -> int:
    """`bench show`: one record as a page."""
    values, arguments = _take(words, ("dataset",), files=1)
    if not arguments.files:
        raise BenchError("command line: name a record, such as bench show 402034cc (bench list runs has the keys)")
    from bench.execution.clipwise import gather
    from bench.registry import find_methods
    from bench.reports.named import find_record
    from bench.reports.show import render
    from bench.spec import defaults

    home = find_home()
    record = find_record(arguments.files[0], home, _name_of(values.get("dataset")))
    entry = find_methods().get(record.method)
    usual = defaults(entry.card) if entry and entry.card else None
    if record.state != "done":
        print(render(record, home, usual, None, {}, ()))
        return WELL
    found = gather([record], home, values.get("dataset"), counted=False)
    print(render(record, home, usual, found.cells[record.key], found.references, found.notes))
    return WELL


def export_csv(words: Sequence[str]) -> int:
    """`bench export csv`: one line for each cell; status 1 if a record was refused and is not in the table."""
    values, _ = _take(words, ("dataset", "path"))
    from bench.records.store import BadRecord, write_atomically
    from bench.reports.export import cells, table

    bad: list[BadRecord] = []
    records = cells(find_home(), _name_of(values.get("dataset")), bad)
    text = table(records)
    for error in bad:
        _say(str(error), FAILED)
    if "path" in values:
        path = Path(values["path"]).expanduser()
        write_atomically(path, text)
        print(f"{path} written: {len(records)} cell{'s' if len(records) != 1 else ''}")
    else:
        print(text, end="")
    return FAILED if bad else WELL


def leaderboard(words: Sequence[str]) -> int:
    values, arguments = _take(words, ("dataset",), flags=("--check",))
    return _write_pages(find_home(), _name_of(values.get("dataset")), check="--check" in arguments.flags)


def _write_pages(home: Home, dataset: str | None, check: bool) -> int:
    from bench.records.store import BadRecord
    from bench.reports.leaderboard import write
    from bench.reproduction.pages import write as write_reproductions
    from bench.tuning.pages import write as write_searches

    bad: list[BadRecord] = []
    changed = [*write(home, dataset, check, bad), *write_reproductions(home, check), *write_searches(home, check)]
    for error in bad:
        _say(str(error), FAILED)
    pages = [path for path in changed if check or path.suffix == ".md"]
    for path in pages:
        print(f"{path} {'is not what the records say: bench leaderboard writes it' if check else 'written'}")
    if len(changed) > len(pages):
        print(f"HTML twins and pictures written: {len(changed) - len(pages)}")
    if not changed and not bad:
        print("leaderboards are up to date")
    return FAILED if bad or (check and changed) else WELL


def reproduce_list(words: Sequence[str]) -> int:
    """`bench reproduce list`: every target of every paper with its state; status 1 if a declaration is at fault."""
    _take(words, ())
    from bench.reproduction import listing as reproductions

    rows, errors, reasons = reproductions.rows(find_home())
    print(columns(reproductions.HEAD, rows, right=("cells",)))
    for sentence in (*errors, *reasons):
        print(sentence)
    return FAILED if errors else WELL


def reproduce(words: Sequence[str]) -> int:
    """`bench reproduce`: run the cells of tables and figures that are missing, then write their pages."""
    from bench.registry import find_methods
    from bench.reproduction import ideas
    from bench.reproduction.declaration import chosen, find_reproductions
    from bench.reproduction.request import edition
    from bench.reproduction.work import run as run_targets
    from bench.request import FLAGS, parse

    arguments = take_apart(words, FLAGS)
    check_keys(arguments.values, REPRODUCE_KEYS)
    if len(arguments.files) != 1:
        raise BenchError(
            "command line: name one target, such as bench reproduce recnet/table7 (see bench reproduce list)"
        )
    scale = arguments.values["scale"].read(text=True) if "scale" in arguments.values else "full"
    if scale not in ("full", "small"):
        raise unknown("scale", str(scale), ("full", "small"), "command line")
    small, given = scale == "small", arguments.values.keys()
    if small and given & {"dataset", "protocol"}:
        raise BenchError(
            "command line: scale=small has its own data set and protocol; leave dataset= and protocol= out"
        )
    entries = find_methods()
    if ideas.is_asked(arguments.files[0]):
        return _ideas(arguments.files[0], words, given, entries)
    found = chosen(arguments.files[0], find_reproductions(entries))
    # All but scale means what it means to `bench run`. Methods are those of each cell: any one will do to read the rest.
    rest = [word for word in words if word not in arguments.files and not word.startswith("scale=")]
    more = [f"methods={next(name for name, entry in entries.items() if entry.card)}"]
    base = parse([*rest, *more, *([] if "dataset" in given else [f"dataset={found[0].parts[0].dataset}"])])
    how = edition(small, base.dataset if "dataset" in given else None, base.protocol if "protocol" in given else None)
    status, sentences = run_targets(found, how, base, find_home(), entries)
    for sentence in sentences:
        _say(sentence, status)
    return status if status not in (WELL, FAILED) else max(status, _write_pages(find_home(), None, check=False))


def _ideas(word: str, words: Sequence[str], given: Collection[str], entries: dict[str, MethodEntry]) -> int:
    """`bench reproduce ideas`: the declared study, whose corpus, seeds and protocol are not for the command line to say."""
    from bench.reproduction import ideas
    from bench.request import parse

    fixed = sorted(set(given) & {"scale", "seeds", "dataset", "protocol"})
    if fixed:
        raise BenchError(
            f"command line: {fixed[0]} of {word} was fixed before the first comparison (datasets/ideas/study.yaml); leave "
            f"{fixed[0]}= out"
        )
    name = next(name for name, entry in entries.items() if entry.card)  # any method: the study says which are run
    base = parse([*(one for one in words if one != word), f"methods={name}", f"dataset={ideas.study().dataset}"])
    status = ideas.run(word, base, find_home(), entries)
    return status if status not in (WELL, FAILED) else max(status, _write_pages(find_home(), None, check=False))


def mlflow_sync(words: Sequence[str]) -> int:
    """`bench mlflow sync`: write into MLflow what the results folder has and MLflow lacks; status 1 if a record was refused."""
    values, _ = _take(words, ("dataset", "mlflow"))
    from bench.execution.sync import records, sync
    from bench.records.store import BadRecord
    from bench.tuning.tracked import trials

    home, given, bad = find_home(), values.get("dataset"), list[BadRecord]()
    name = _name_of(given)
    entries = [*records(home, name, given if given != name else None, bad), *trials(home, name)]
    for error in bad:
        _say(str(error), FAILED)
    uri = values.get("mlflow")
    done = sync(entries, uri, home, "bench mlflow sync", name, print)
    told = [f"{done.written} written", f"{done.kept} up to date"]
    told += [f"{done.busy} of commands that are at work"] if done.busy else []
    told += [f"{done.closed} of killed commands closed"] if done.closed else []
    print(f"MLflow runs: {', '.join(told)}; bench ui{f' mlflow={uri}' if uri else ''} shows them")
    return FAILED if bad else WELL


def ui(words: Sequence[str]) -> int:
    """`bench ui`: MLflow's pages on this machine, until Ctrl-C."""
    values, _ = _take(words, ("port", "mlflow"))
    port = values.get("port", "5000")
    if not port.isdecimal():
        raise BenchError(f"command line: port is {port!r}, but must be a whole number")
    from bench.execution.ui import serve

    serve(find_home(), int(port), values.get("mlflow"))
    return WELL


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": list_all,
    "plan": plan,
    "run": run,
    "tune": tune,
    "test": test,
    "data check": data_check,
    "features list": features_list,
    "features check": features_check,
    "features import": features_import,
    "features extract": features_extract,
    "evaluate": evaluate,
    "caption": caption,
    "compare": compare,
    "show": show,
    "export csv": export_csv,
    "leaderboard": leaderboard,
    "reproduce list": reproduce_list,
    "reproduce": reproduce,
    "mlflow sync": mlflow_sync,
    "ui": ui,
    "version": version,
}


if __name__ == "__main__":
    sys.exit(main())
