"""Which commands there are: where each is implemented, and what its line in `bench --help` says. Nothing heavy is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command is a function of its module in `bench.cli`; its docstring is what `--help` says, with an example at the end.

    `options` names the models of its options, each as a class of that module or as `module:Class`. `usage` is what stands
    behind its name, `brief` the same for the overview where that has to be shorter.
    """

    place: str  # module.function
    options: str
    usage: str
    summary: str
    brief: str = ""

    def function(self) -> Callable[[Sequence[str]], int]:
        """What runs it: takes the rest of the command line, returns the exit status."""
        module, _, name = self.place.partition(".")
        found: Callable[[Sequence[str]], int] = getattr(importlib.import_module(f"bench.cli.{module}"), name)
        return found

    def models(self) -> list[Any]:
        """The models of its options, in the order of help."""
        places = [name.rpartition(":") for name in self.options.split()]
        own = f"bench.cli.{self.place.partition('.')[0]}"
        return [getattr(importlib.import_module(module or own), name) for module, _, name in places]


RUN = "bench.plan.request:RunSpec"
REQUEST = "[PLAN.yaml] key=value ..."
BRIEF = "methods=[..] dataset=.."

COMMANDS: dict[str, Command] = {
    "list": Command(
        "show.list_all", "List", "[methods|datasets|features|runs]", "what is there", "[methods|datasets|..]"
    ),
    "plan": Command("run.plan", "Plan", REQUEST, "what would run, its state, why, and what it will cost", BRIEF),
    "run": Command("run.run", RUN, REQUEST, "train, decode, score and rank; skips what is done", BRIEF),
    "tune": Command(
        "run.tune",
        f"bench.tuning.request:How {RUN}",
        REQUEST,
        "search settings on validation clips, then train the chosen ones",
        BRIEF,
    ),
    "test": Command(
        "conformance.test",
        "Test",
        "METHOD[:VARIANT|:*] ...",
        "does a method keep the contract? one line for each check",
        "METHOD",
    ),
    "init dataset": Command(
        "init.dataset",
        "Init",
        "captions=FILE features=FOLDER [key=value ...]",
        "a definition of your own corpus, from its captions and features",
        "captions=.. features=..",
    ),
    "data check": Command("features.data_check", "Check", "dataset=..", "captions, splits and streams of a data set"),
    "features list": Command("features.features_list", "Nothing", "", "the caches of feature streams"),
    "features check": Command(
        "features.features_check",
        "CheckStreams",
        "dataset=.. [stream=..]",
        "damage in the caches of a data set",
        "dataset=..",
    ),
    "features import": Command(
        "features.features_import",
        "Import",
        "dataset=.. [stream=NAME,..] [from=PATH] [key=value ...]",
        "features as others published them",
        "dataset=..",
    ),
    "features extract": Command(
        "features.features_extract",
        "Extract",
        "dataset=.. stream=NAME videos=FOLDER encoder=NAME [key=value ...]",
        "features of a folder of videos",
        "dataset=..",
    ),
    "doctor": Command(
        "conformance.doctor",
        "Doctor",
        "",
        "can this machine do what runs need? a line for each part, with what mends it",
    ),
    "evaluate": Command(
        "run.evaluate",
        "Evaluate",
        "CAPTIONS.jsonl dataset=.. [key=value ...]",
        "score captions made anywhere",
        "FILE dataset=..",
    ),
    "metrics": Command(
        "metrics.metrics",
        "Metrics",
        "[RUN ...] [dataset=..] [metrics=NAME,..]",
        "further metrics of scored captions, beside the ranked ones",
        "dataset=.. metrics=..",
    ),
    "caption": Command(
        "caption.caption",
        "Request",
        "VIDEO|FOLDER|- ... checkpoint=RUN [key=value ...]",
        "what a trained method says of any video",
        "VIDEO.. checkpoint=RUN",
    ),
    "compare": Command(
        "show.compare",
        "Compare",
        "A B [key=value ...] [--seeds]",
        "two rows or records: differences, intervals, clips won and lost",
        "A B [dataset=..]",
    ),
    "show": Command("show.show", "Show", "RUN [dataset=..]", "one record as a page", "RUN"),
    "export csv": Command(
        "show.export_csv", "Export", "[dataset=..] [path=FILE.csv]", "all records as a table", "[dataset=..] [path=..]"
    ),
    "leaderboard": Command("pages.leaderboard", "Leaderboard", "[dataset=..] [--check]", "regenerate the pages"),
    "study": Command(
        "study.study",
        "Study",
        "[NAME] [pairs=[..]] [cells=N] [--dry] [key=value ...]",
        "each idea of a declared study against its control",
        "[NAME]",
    ),
    "reproduce list": Command(
        "pages.reproduce_list", "Nothing", "", "every table and figure of the papers, and how far it is here"
    ),
    "reproduce": Command(
        "pages.reproduce",
        "Reproduce",
        "PAPER/TARGET|PAPER|all|ideas [key=value ...]",
        "make a table or figure again, or each paper's idea against its control",
        "PAPER[/TARGET]|ideas",
    ),
    "mlflow sync": Command(
        "show.mlflow_sync",
        "Sync",
        "[dataset=..] [mlflow=URI]",
        "write into MLflow what the results have and it lacks",
        " ",
    ),
    "ui": Command(
        "show.ui",
        "Ui",
        "[dataset=..] [open=true] [port=5000] [mlflow=URI]",
        "MLflow's pages on this machine",
        "[dataset=..] [open=true]",
    ),
    "completion": Command(
        "completion.completion", "Completion", "bash|zsh|fish", "a script that lets a shell complete all of this"
    ),
    "version": Command("show.version", "Nothing", "", "the version"),
}
