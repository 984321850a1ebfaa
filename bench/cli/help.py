"""What `--help` prints: one text per command, with an example."""

from __future__ import annotations

OVERVIEW = """\
bench: video-captioning papers side by side, under one protocol

  bench list [methods|datasets|features|runs]      what is there
  bench plan methods=[..] dataset=..               what would run, its state and why
  bench run methods=[..] dataset=..                train, decode, score and rank; skips what is done
  bench tune methods=[..] dataset=..               search settings on validation clips, then train the chosen ones
  bench test METHOD                                does a method keep the contract? one line for each check
  bench data check dataset=..                      captions, splits and streams of a data set
  bench features list|check|import|extract         the feature cache
  bench evaluate captions.jsonl dataset=..         score captions made anywhere
  bench caption VIDEO.. checkpoint=RUN             what a trained method says of any video
  bench compare A B [dataset=..]                   two rows or records: differences, intervals, clips won and lost
  bench show RUN                                   one record as a page
  bench export csv [dataset=..] [path=..]          all records as a table
  bench leaderboard [dataset=..] [--check]         regenerate the pages
  bench reproduce list                             every table and figure of the papers, and how far it is here
  bench reproduce PAPER[/TARGET] [scale=small]     make a table or figure again, printed numbers beside ours
  bench reproduce ideas[/NAME]                     each paper's idea against its own control
  bench mlflow sync                                write into MLflow what the results have and it lacks
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
  mlflow=URI                  http://HOST:5000, sqlite:///FILE.db or another database in place of this folder's; or off
  --retry-failed              run failed cells again"""

HELP = {
    "list": """\
bench list [methods|datasets|features|runs]

Show what is there; all four without a word. The methods of other packages are imported once, each in a process of its
own: one whose import fails is listed with its error.

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
  storage=FOLDER or URL       where the state of the search goes, with copies of its trials' resume states: an
                              absolute path that all nodes share, file:// or s3://bucket/folder (default: below .bench)
  space.METHOD.K=[..]         other values than the card's, or {{min: .., max: .., log: true}}; also of
                              train.K, such as space.salstm.train.learning_rate={{min: 1e-4, max: 1e-3, log: true}}

{_REQUEST}

Example: bench tune methods=[recnet,vre] dataset=msvd trials=6 seeds=[0,1,2]""",
    "test": """\
bench test METHOD[:VARIANT|:*] ...

Make the checks that every method must pass, each on a tiny corpus made for it: one line per check, with the reason
where one fails. Checks that a fault of another one hides are not made. Writes nothing into this project. For methods of
this project, or of any installed package with an entry point in the group bench.methods (docs/method.md). Exit status 1
if a check failed.

Example: bench test salstm""",
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
bench features import dataset=NAME or FILE.yaml [stream=NAME,..] [replace=true]
bench features import dataset=NAME or FILE.yaml stream=NAME from=PATH [layout=auto] [frames=N] [encoder=NAME] [ids=..]

Bring features as they were published into the cache: those that the data set's definition names, unless they are
there and up to date, or those at PATH. Layouts, told apart by themselves: HDF5 with a dataset per clip, with one
matrix and ids or without ids; folders of .npy, .npz or HDF5 files; lines of csv, a frame each; tsv of bottom-up
attention. What was recognised is said. replace=true lets them take the place of features that a command has made.

Example: bench features import dataset=my/dataset.yaml stream=regions from=boxes.tsv frames=40""",
    "features extract": """\
bench features extract dataset=NAME or FILE.yaml stream=NAME videos=FOLDER encoder=NAME [frames=28] [KEY=VALUE ..]

From videos to a stream in the cache: frames, spatial, objects (2-D networks), motion, actions (of runs of frames),
regions, audio, pixels (frames as they are, for EtENet's second step); words by checkpoint= of a trained glrg from the
stream frames. A video is named by its clip; clips with a start and an end are cut out of longer videos. What the data
set's definition says of the stream need not be said again. Stopped or failed clips are made up for by the same
command; exit status 1 if there are clips that could not be read. Needs pip install "captionbench[extract]".

  encoder=       inception_v4, inception_resnet_v2, resnet101, resnet152, vgg19, googlenet, ..., any network of timm;
                 r3d_18, r2plus1d_18, s3d, c3d; fasterrcnn_resnet50_fpn, ..; vggish
  weights=       a .safetensors file; pretrained (default) downloads; random is for tests
  frames=, fps=  so many equally spaced frames; with fps= that many a second, and frames= is the most
  boxes=16       of a frame, for regions; silence=true lets clips without sound count as silent, for audio
  skip=failed    finish without the clips that failed; replace=true makes a cache anew that was made otherwise
  batch=, workers=, device=            change how long it takes, not the values

Example: bench features extract dataset=msvd stream=frames videos=/data/msvd/clips encoder=inception_v4 frames=28""",
    "evaluate": """\
bench evaluate CAPTIONS.jsonl dataset=NAME or FILE.yaml [split=test] [splits=VARIANT] [as=NAME]

Score captions made anywhere and record them as an external row called NAME (default: the file's name). One line per
clip: {"clip": "vid1301", "caption": "a man is singing"}.

Example: bench evaluate predictions.jsonl dataset=msvd split=test as=my_model""",
    "caption": """\
bench caption VIDEO|FOLDER|- ... checkpoint=RUN [key=value ...]

Say what is in videos: the streams that the method reads are made of each video as its training features were, then it
is decoded by beam search. Printed are the caption and the other beams with their log-probabilities. A folder stands for
the videos below it, - for files named on the standard input, one to a line. A video that cannot be read is told, the
others go on, and the exit status is 1. Needs pip install "captionbench[extract]".

  checkpoint=RUN              a checkpoint.safetensors, the folder of a cell, or the first digits of its key
  weights=FILE                the encoder's weights (.safetensors), where they cannot be downloaded
  encoder=NAME                the encoder, where features were imported without its name
  weights.STREAM=  encoder.STREAM=   the same for one stream of several
  alternatives=N              how many other captions are printed (default: all other beams)
  explain=FOLDER or true      a picture (SVG) for each video, in FOLDER or in ./explained: its frames, and what the
                              method looked at: weights of frames at each word, key frame, places, regions
  search.K=V                  beam, max_words, length_rule, in place of the cell's own

In Python: bench.load("results/msvd_clips/salstm/KEY").caption("video.mp4", weights="mobilenetv2.safetensors")

Example: bench caption holiday.mp4 clips/ checkpoint=402034cc explain=pictures""",
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

Write leaderboards/<dataset>.md and its HTML twin from the records, leaderboards/published.md from the printed
numbers, and the index. With --check write nothing and exit with 1 if a page differs from what the records say: for
continuous integration.

Example: bench leaderboard --check""",
    "reproduce list": """\
bench reproduce list

Show every table and figure of the papers: data set, cells and their states, on the paper's own data and in small; below
the table, why cells cannot run here. Cells are told by their features: until these are in the cache (bench reproduce
and bench run put them there) it is not known which are done. Exit status 1 if a declaration names what a card lacks.

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
    "mlflow sync": """\
bench mlflow sync [dataset=NAME or FILE.yaml] [mlflow=URI]

Write into MLflow the cells and trials that the results folder has and MLflow lacks, or shows as they were: after a
server was gone, into a new database, on a machine that only has the records. What is up to date stays, runs of killed
commands are closed. Exit status 1 if a record is damaged.

  mlflow=URI                  http://HOST:5000, sqlite:///FILE.db or another database (default: this folder's own)

Example: bench mlflow sync mlflow=http://127.0.0.1:5000""",
    "ui": """\
bench ui [port=5000] [mlflow=sqlite:///FILE.db]

Show the runs in MLflow's own pages on 127.0.0.1, until Ctrl-C; those of this folder, or of another database.

Example: bench ui port=5001""",
    "version": """\
bench version

Show the version.

Example: bench version""",
}
