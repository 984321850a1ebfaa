"""Commands that write pages: leaderboard, and reproduce with the cells that its pages lack."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from bench import BenchError
from bench.cli.words import FAILED, WELL, name_of, say, take
from bench.declare.grammar import check_keys, take_apart
from bench.errors import unknown
from bench.home import Home, find_home
from bench.pages.terminal import columns, room

if TYPE_CHECKING:
    from bench.declare.registry import MethodEntry


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


def leaderboard(words: Sequence[str]) -> int:
    values, arguments = take(words, ("dataset",), flags=("--check",))
    return write_pages(find_home(), name_of(values.get("dataset")), check="--check" in arguments.flags)


def write_pages(home: Home, dataset: str | None, check: bool) -> int:
    """Bring leaderboards, reproductions and searches up to date and tell which changed; returns the exit status."""
    from bench.records.store import BadRecord
    from bench.reports.leaderboard import write
    from bench.reproduction.pages import write as write_reproductions
    from bench.tuning.pages import write as write_searches

    bad: list[BadRecord] = []
    changed = [*write(home, dataset, check, bad), *write_reproductions(home, check), *write_searches(home, check)]
    for error in bad:
        say(str(error), FAILED)
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
    take(words, ())
    from bench.reproduction import listing as reproductions

    rows, errors, reasons = reproductions.rows(find_home())
    print(columns(reproductions.HEAD, rows, right=("cells",), most=room()))
    for sentence in (*errors, *reasons):
        print(sentence)
    return FAILED if errors else WELL


def reproduce(words: Sequence[str]) -> int:
    """`bench reproduce`: run the cells of tables and figures that are missing, then write their pages."""
    from bench.declare.registry import find_methods
    from bench.plan.request import FLAGS, parse
    from bench.reproduction import ideas
    from bench.reproduction.declaration import chosen, find_reproductions
    from bench.reproduction.edition import edition
    from bench.reproduction.run import run as run_targets

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
        say(sentence, status)
    return status if status not in (WELL, FAILED) else max(status, write_pages(find_home(), None, check=False))


def _ideas(word: str, words: Sequence[str], given: Collection[str], entries: dict[str, MethodEntry]) -> int:
    """`bench reproduce ideas`: the declared study, whose corpus, seeds and protocol are not for the command line to say."""
    from bench.plan.request import parse
    from bench.reproduction import ideas

    fixed = sorted(set(given) & {"scale", "seeds", "dataset", "protocol"})
    if fixed:
        raise BenchError(
            f"command line: {fixed[0]} of {word} was fixed before the first comparison (datasets/ideas/study.yaml); leave "
            f"{fixed[0]}= out"
        )
    name = next(name for name, entry in entries.items() if entry.card)  # any method: the study says which are run
    base = parse([*(one for one in words if one != word), f"methods={name}", f"dataset={ideas.study().dataset}"])
    status = ideas.run(word, base, find_home(), entries)
    return status if status not in (WELL, FAILED) else max(status, write_pages(find_home(), None, check=False))
