"""The name of every file in a run's directory and in a sweep's."""

CONFIG = "config.yaml"  # every value of the run, resolved
OVERRIDES = "overrides.yaml"  # what was typed in place of the defaults
METRICS = "metrics.json"  # of a finished run: metrics, the best epoch and its checkpoint, why it stopped, settings
PROVENANCE = "provenance.json"  # time, git state and versions of each start, the first and each resume's
RESULTS = "test_results.json"  # of a tested classification: confusion matrix and most confident mistakes
LOG = "train.log"  # what the run printed
TRACE = "trace.json"  # of debug=profile, for ui.perfetto.dev
ERROR = "error.txt"  # of a failed run: one sentence, then the traceback
TABLE = "metrics.csv"  # the curves, where the run logs to CSV
EVENTS = "events.out.tfevents.*"  # the curves, where it logs to TensorBoard
REPORT = "report.html"
MLFLOW_ID, WANDB_ID = "mlflow.id", "wandb.id"  # by which a resumed run finds its own run in a tracker
CURVES_PICTURE, SWEEP_PICTURE = "curves.png", "sweep.png"

CHECKPOINTS = "checkpoints"  # a folder
BEST = "best-*.ckpt"  # by the monitored metric, as conf/callbacks/best_checkpoint.yaml names it
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # from which a run is resumed, and the one before it

# In a sweep's directory.
MULTIRUN = "multirun.yaml"  # the sweep's configuration, as Hydra's own sweeper writes it
SLOT = ".slot-{}"  # locked by the process that has this number, while jobs run side by side
SWEEP = "sweep.yaml"  # its command: the overrides, and which file they were composed with
SUMMARY, SUMMARY_TABLE = "summary.json", "summary.csv"  # the leaderboard
STUDY = "study"  # the folder of a search
STUDY_JOURNAL, STUDY_CLAIMS = f"{STUDY}/journal", f"{STUDY}/claims"  # the second is locked, a byte for each trial
