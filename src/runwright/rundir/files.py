"""The name of every file in the directory of a run or a sweep."""

CONFIG = "config.yaml"  # every value of the run, resolved
OVERRIDES = "overrides.yaml"  # the user's overrides
METRICS = "metrics.json"  # of a finished run: metrics, best epoch and its checkpoint, why it stopped, settings
PROVENANCE = "provenance.json"  # time, git state and versions, for the first start and each resume
RESULTS = "test_results.json"  # of a tested classifier: confusion matrix and most confident mistakes
LOG = "train.log"  # what the run printed
TRACE = "trace.json"  # of debug=profile, for ui.perfetto.dev
ERROR = "error.txt"  # of a failed run: one line, then the traceback
TABLE = "metrics.csv"  # the curves, if the run logs to CSV
EVENTS = "events.out.tfevents.*"  # the curves, if it logs to TensorBoard
REPORT = "report.html"
MLFLOW_ID, WANDB_ID = "mlflow.id", "wandb.id"  # the id with which a resumed run continues its run in the tracker
CURVES_PICTURE, SWEEP_PICTURE = "curves.png", "sweep.png"

CHECKPOINTS = "checkpoints"  # a folder
BEST = "best-*.ckpt"  # by the monitored metric, as conf/callbacks/best_checkpoint.yaml names it
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # the one a run is resumed from, and the one before it

# In a sweep's directory.
MULTIRUN = "multirun.yaml"  # the sweep's configuration, in Hydra's format
SLOT = ".slot-{}"  # locked by the process with this number while jobs run in parallel
SWEEP = "sweep.yaml"  # its command: the overrides, and the main configuration file
SUMMARY, SUMMARY_TABLE = "summary.json", "summary.csv"  # the leaderboard
STUDY = "study"  # the folder of a search's files
STUDY_JOURNAL = f"{STUDY}/journal"
STUDY_CLAIMS = f"{STUDY}/claims"  # one byte is locked per running trial
