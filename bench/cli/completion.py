"""`bench completion`: a script for a shell, made of the table of commands and the models of their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.cli.answers import WELL
from bench.cli.commands import COMMANDS
from bench.declare.options import Options, Written, choices_of, group_of, key_of, parse, written
from bench.declare.registry import MethodEntry, find_datasets, find_methods


class Completion(Options):
    shell: Annotated[
        list[Literal["bash", "zsh", "fish"]],
        Written(word="shell", missing="name a shell, such as bench completion bash"),
    ] = Field(min_length=1, max_length=1, description="bash, zsh or fish")


def completion(argv: Sequence[str]) -> int:
    """Print a script that lets a shell complete commands, keys, choices, and the names of methods and data sets that are here
    now. In bash: source <(bench completion bash); in zsh, after compinit: source <(bench completion zsh); in fish: bench
    completion fish | source.

    Example: bench completion bash
    """
    shell = parse(Completion, argv).shell[0]
    words = {"": sorted({name.split()[0] for name in COMMANDS})}
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        if second:
            words.setdefault(first, []).append(second)
    entries = {name: entry for name, entry in find_methods().items() if entry.card}
    for name, command in COMMANDS.items():
        found = [word for model in command.models() for word in candidates(model, entries)]
        words[name] = list(dict.fromkeys([*words.get(name, []), *found, "--help"]))
    print(script(shell, words), end="")
    return WELL


def candidates(model: Any, entries: dict[str, MethodEntry], prefix: str = "") -> Iterator[str]:
    """Every word that may follow a command: its flags, `key=` of each option, and `key=choice` where choices are known."""
    for name, field in model.model_fields.items():
        how, group, key = written(field), group_of(field.annotation), prefix + key_of(name, field)
        if group is not None:
            yield from candidates(group, entries, f"{key}.")
        elif how.flag:
            yield how.flag
        elif name == "overrides":
            yield from _settings(entries)
        elif not how.apart:
            begin = "" if how.word else f"{key}="
            choices = ["true", "false"] if field.annotation is bool else choices_of(field.annotation)
            yield from (begin + choice for choice in (choices or _names(key, entries)))
            if begin and not choices:
                yield begin


def _names(key: str, entries: dict[str, MethodEntry]) -> list[str]:
    """Names that an option may be, of what is here: methods with their variants, data sets."""
    if key == "methods":
        variants = [f"{name}:{one}" for name, entry in entries.items() if entry.card for one in entry.card.variants]
        return [*entries, *variants]
    return list(find_datasets()) if key == "dataset" else []


def _settings(entries: dict[str, MethodEntry]) -> Iterator[str]:
    for name, entry in entries.items():
        if entry.card is not None:
            yield from (
                f"{name}.{one.alias or setting}=" for setting, one in entry.card.settings.items() if not one.shared
            )


def _cases(words: dict[str, list[str]]) -> str:
    """What may follow each command, as the cases of a shell's switch."""
    return "\n".join(
        f"    '{name}') printf '%s\\n' {' '.join(map(shlex.quote, found))} ;;" for name, found in words.items()
    )


# The word at the cursor is taken from the line itself, since bash cuts words at `=` and `:`. What stands before the last comma
# of a list stays as it is.
BASH = r"""# bench completion bash > FILE; source FILE
_bench_words() {
  case "$1" in
@CASES@
  esac
}

_bench() {
  local line=${COMP_LINE:0:COMP_POINT} name="" stem="" key="" word
  local cur=${line##* }
  local -a before
  read -ra before <<< "${line%"$cur"}"
  name=${before[1]:-}
  if [[ ${#before[@]} -gt 2 && -n $(_bench_words "$name ${before[2]}") ]]; then name="$name ${before[2]}"; fi
  if [[ $cur == *=*[,[]* ]]; then
    key=${cur%%=*}=
    stem=${cur%"${cur##*[,[]}"}
  fi
  local kept=""
  if [[ $cur == *[=:]* ]]; then kept=${cur%"${cur##*[=:]}"}; fi
  COMPREPLY=()
  while IFS= read -r word; do
    if [[ -n $key && $word == "$key"?* ]]; then word=$stem${word#"$key"}; fi
    if [[ $word == "$cur"* ]]; then COMPREPLY+=("${word#"$kept"}"); fi
  done < <(_bench_words "$name")
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2> /dev/null; fi
}
complete -F _bench bench
"""

ZSH = r"""#compdef bench
# bench completion zsh > FILE; source FILE, after compinit
_bench_words() {
  case "$1" in
@CASES@
  esac
}

_bench() {
  local name="" key
  local -a found open
  if (( CURRENT > 2 )); then name=$words[2]; fi
  if (( CURRENT > 3 )) && [[ -n $(_bench_words "$words[2] $words[3]") ]]; then name="$words[2] $words[3]"; fi
  found=(${(f)"$(_bench_words "$name")"})
  if [[ $PREFIX == *=*[,\[]* ]]; then
    key="${PREFIX%%=*}="
    found=(${(M)found:#${key}?*})
    found=(${found#$key})
    compset -P '*[,\[]'
  fi
  open=(${(M)found:#*=})
  found=(${found:#*=})
  compadd -S '' -a open
  compadd -a found
}
compdef _bench bench
"""

FISH = r"""# bench completion fish > ~/.config/fish/completions/bench.fish
function __bench_words
  switch "$argv[1]"
@CASES@
  end
end

function __bench_complete
  set -l before (commandline -opc)
  set -l cur (commandline -ct)
  set -l name "$before[2]"
  if test (count $before) -gt 2; and test -n "$(__bench_words "$before[2] $before[3]")"
    set name "$before[2] $before[3]"
  end
  set -l stem (string match -r '^[^=]+=.*[,\[]' -- $cur)
  if test -n "$stem"
    set -l key (string replace -r '=.*' '=' -- $cur)
    for word in (__bench_words "$name")
      if string match -q -- "$key?*" $word
        echo $stem(string sub -s (math (string length -- $key) + 1) -- $word)
      end
    end
  else
    __bench_words "$name"
  end
end
complete -c bench -f -a '(__bench_complete)'
"""


def script(shell: str, words: dict[str, list[str]]) -> str:
    """The script of a shell. `words` are those that may follow each command, and under the empty name the commands."""
    cases = _cases(words)
    if shell == "fish":
        cases = re.sub(r"^    ('[^']*')\) (.*) ;;$", r"    case \1\n      \2", cases, flags=re.M)
    return {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].replace("@CASES@", cases)
