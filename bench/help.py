"""What `--help` prints: one text per command, with an example."""

from __future__ import annotations

OVERVIEW = """\
bench: video-captioning papers side by side, under one protocol

  bench list [methods|datasets|features|runs]      what is there
  bench plan methods=[..] dataset=..               what would run, its state and why
  bench run methods=[..] dataset=..                train, decode, score and rank; skips what is done
  bench tune methods=[..] dataset=..               search settings on validation clips, then train the chosen ones
  bench data check dataset=..                      captions, splits and streams of a data set
  bench features list|check|import|extract         the feature cache
  bench evaluate captions.jsonl dataset=..         score captions made anywhere
  bench compare A B [dataset=..]                   two rows or records: differences, intervals, clips won and lost
  bench show RUN                                   one record as a page
  bench export csv [dataset=..] [path=..]          all records as a table
  bench leaderboard [dataset=..] [--check]         regenerate the pages
  bench reproduce list                             every table and figure of the papers, and how far it is here
  bench reproduce PAPER[/TARGET] [scale=small]     make a table or figure again, printed numbers beside ours
  bench reproduce ideas[/NAME]                     each paper's idea against its own control
  bench ui                                         MLflow's pages on this machine
  bench version

Words are key=value with values in YAML: methods=[salstm,recnet:global], train.epochs=5. `bench COMMAND --help` tells
more. Files are looked for, and written, in the nearest parent folder with a bench.toml or a checkout (BENCH_HOME
overrides), annotations and features under BENCH_DATA.

Example: bench run methods=[recnet,etenet,glrg] dataset=shapes"""

_REQUEST = """\
  methods=[a,b:variant,c:*]   methods, their default, a named or all variants (also methods=a,b)
  dataset=NAME or FILE.yaml   a data set of `bench list datasets`, or your own definition
  PLAN.yaml                   a file with the same keys; the command line is stronger

  seeds=[0,1,2]               one cell per variant and seed (default [0])
  split=test                  val or test
  splits=default              a split variant of the data set (protocol=paper: its variant `paper`, if any)
  subset=300/50/150           the first clips of train, val and test
  streams=[frames]            leave out the other streams that a method could use
  protocol=standard           standard (all else equal) or paper (the printed setting)
  loss=cross_entropy          or the loss of a paper, for every method that takes one: information (of hail, with its
                              hail.lambda and hail.gamma), discrepant (of glrg: glrg.seed_weight, glrg.weight_scale)
  train.K=V                   epochs, captions (batch), captions_per_clip, accumulate, learning_rate, decay,
                              decay_every, precision, optimizer, clip, clip_by, patience, weight_decay,
                              scheduled_sampling, data_fraction
  model.K=V                   sizes shared by all methods: width, embedding, attention, dropout, normalise
  search.K=V                  beam, max_words, length_rule, clips
  text.K=V                    tokenizer, min_count, max_words
  METHOD.K=V                  a method's own setting or its alias, as its card names it: recnet.lambda=0.2
  executor=ray                ray, or inline for debugging
  executor.address=local      a Ray of this command's own; auto or HOST:PORT for a cluster (deploy/README.md)
  max_concurrent=N            at most so many cells at once
  resources.K=V               what a cell asks of a node in place of its card: cpus, gpus (0.5), gpu_memory (GiB),
                              accelerator_type
  threads=1  device=auto      processors of one cell; auto, cpu, cuda or cuda:0
  mlflow=URI                  another tracking server, or off
  --retry-failed              run failed cells again"""

HELP = {
    "list": """\
bench list [methods|datasets|features|runs]

Show what is there; all four without a word. Imports no method.

Example: bench list methods""",
    "plan": f"""\
bench plan [PLAN.yaml] key=value ...

Show the cells of a request, their state (missing, running, done, unscored, failed, stale) and why. Changes nothing.

{_REQUEST}

Example: bench plan methods=[recnet,etenet,glrg] dataset=msvd seeds=[0,1,2]""",
    "run": f"""\
bench run [PLAN.yaml] key=value ...

Train, decode and score the cells of a request, then bring the leaderboard up to date. What is done is skipped, what was
interrupted goes on. Exit status: 0 all well, 1 some cells failed, 2 the request was not understood.

{_REQUEST}

Example: bench run methods=[salstm,recnet:global] dataset=msvd seeds=[0,1,2] recnet.lambda=0.2 train.epochs=5""",
    "tune": f"""\
bench tune [PLAN.yaml] key=value ...

Search the settings that the cards name (lambda, gamma, beta, ..) by Ray Tune, one search for each row and as many
trials for each, on validation clips alone; then train the chosen settings anew over the seeds, which is what the
leaderboard shows. Trials and cells that are done are kept, what was interrupted goes on.

  search=grid                 grid, random, or optuna (pip install "captionbench[optuna]")
  scheduler=fifo              fifo: every trial has its whole budget; asha: the worse half is stopped, first after a
                              quarter of the last phase
  trials=N                    points for each row (without it, the whole grid)
  tune_seed=0                 draws the points, and trains the trials
  storage=FOLDER or URL       where the state of the search goes, with copies of its trials' resume states: an absolute
                              path that all nodes share, file:// or s3://bucket/folder (default: below .bench)
  space.METHOD.K=[..]         other values than the card's, or {{min: .., max: .., log: true}}; also of
                              train.K, such as space.salstm.train.learning_rate={{min: 1e-4, max: 1e-3, log: true}}

{_REQUEST}

Example: bench tune methods=[recnet,vre] dataset=msvd trials=6 seeds=[0,1,2]""",
    "data check": """\
bench data check dataset=NAME or FILE.yaml

Look for everything that can be wrong with a data set before a model is trained: files, counts, ids, splits, streams.
Exit status 1 if there are errors.

Example: bench data check dataset=msvd""",
    "features list": """\
bench features list

Show the caches of feature streams: shape, clips, size, fingerprint.

Example: bench features list""",
    "features check": """\
bench features check dataset=NAME or FILE.yaml [stream=NAME,..]

Read the caches of a data set whole: truncation, flipped bits, NaN, wrong shapes, ids missing or extra. Exit status 1 if
there are errors.

Example: bench features check dataset=msvd stream=frames""",
    "features import": """\
bench features import dataset=NAME or FILE.yaml [stream=NAME,..]

Bring the streams that the data set's definition names into the cache, unless they are there and up to date.

Example: bench features import dataset=my/dataset.yaml stream=frames""",
    "features extract": """\
bench features extract dataset=NAME or FILE.yaml stream=pixels [videos=FOLDER] [frames=16] [encoder=NAME]

Decode videos and put equally spaced frames, as the encoder reads them, into the cache: what EtENet's second step trains
from. A video is named by its clip. What the data set's definition says of the stream need not be said again. Stopped or
failed clips are made up for by the same command; exit status 1 if there are clips that could not be read. Needs
pip install "captionbench[extract]".

Example: bench features extract dataset=msvd stream=pixels videos=/data/msvd/clips""",
    "evaluate": """\
bench evaluate CAPTIONS.jsonl dataset=NAME or FILE.yaml [split=test] [splits=VARIANT] [as=NAME]

Score captions made anywhere and record them as an external row called NAME (default: the file's name). One line per
clip: {"clip": "vid1301", "caption": "a man is singing"}.

Example: bench evaluate predictions.jsonl dataset=msvd split=test as=my_model""",
    "compare": """\
bench compare A B [dataset=NAME or FILE.yaml] [split=..] [protocol=..] [--seeds]

Put two rows or records beside each other: the means of each metric, their difference with its 95 % interval and p
value, what differs in the configurations, and the clips that A wins and loses most, with captions and references.

A and B are rows, such as recnet:local or external:my_model, with all their seeds; or records, by the first digits of
a key (bench list runs) or the folder of a cell. With --seeds a record stands for all seeds of its settings. dataset=,
split= and protocol= tell rows of one name apart. The two must share data set, split and metric signatures. References
are shown where the captions of the data set are on this machine; cells scored by earlier versions need them, and
Java, for the intervals of BLEU and METEOR.

Example: bench compare recnet:local salstm dataset=msrvtt1000""",
    "show": """\
bench show RUN [dataset=NAME or FILE.yaml]

Show one record: scores and signatures, settings that are not the defaults, budget and cost, files, how to load the
checkpoint, its best and worst clips. RUN is the first digits of a key (bench list runs), the folder of a cell, or a row
of a single seed, such as recnet:local.

Example: bench show 402034cc""",
    "export csv": """\
bench export csv [dataset=NAME or FILE.yaml] [path=FILE.csv]

Write one line for each cell, in the order of their folders: key, state, scores, cost, provenance, and every setting as
a column of its own. Without path= it goes to the terminal. Exit status 1 if a record was refused and is not in the
table.

Example: bench export csv dataset=msvd path=msvd.csv""",
    "leaderboard": """\
bench leaderboard [dataset=NAME] [--check]

Write leaderboards/<dataset>.md from the records. With --check write nothing and exit with 1 if a page differs from what
the records say: for continuous integration.

Example: bench leaderboard --check""",
    "reproduce list": """\
bench reproduce list

Show every table and figure of the papers: data set, cells and their states, on the paper's own data and in small; below
the table, why cells cannot run here. Exit status 1 if a declaration names what a card lacks.

Example: bench reproduce list""",
    "reproduce": """\
bench reproduce PAPER/TARGET, PAPER, all or ideas [key=value ...]

Run the cells of a table or figure that are missing (what is done is skipped, what was interrupted goes on), then write
leaderboards/reproductions/PAPER/TARGET.md: the printed number beside ours, the difference, what was not comparable, and
the pictures. Targets are declared in methods/PAPER/reproduce.yaml. Exit status: 0 all well, 1 some cells failed or
cannot run here, 2 none can.

  scale=small                 the same cells in small, on the embedded corpus shapes: no data needed, minutes per target
  seeds=[0,1,2]               one cell per row and seed (default [0]); a verdict needs two or more
  dataset=NAME or FILE.yaml   another data set than the paper's
  protocol=paper              paper (the printed setting) or standard (all else equal)
  executor=ray                ray, or inline for debugging
  executor.address=local      a Ray of this command's own; auto or HOST:PORT for a cluster (deploy/README.md)
  max_concurrent=N            at most so many cells at once
  resources.K=V               what a cell asks of a node in place of its card: cpus, gpus (0.5), gpu_memory (GiB),
                              accelerator_type
  threads=1  device=auto  mlflow=URI  --retry-failed   as for bench run

`ideas` (or ideas/NAME) is a study of its own: each paper's idea against its control, with corpus, seeds and settings of
datasets/ideas/study.yaml, which were fixed before its first run. Its page: leaderboards/reproductions/ideas.md.

Example: bench reproduce recnet/table7 scale=small""",
    "ui": """\
bench ui [port=5000]

Show the runs in MLflow's own pages on 127.0.0.1, until Ctrl-C.

Example: bench ui port=5001""",
    "version": """\
bench version

Show the version.

Example: bench version""",
}
