"""The engine: it runs what conf/ describes, and knows a project's own classes by `contracts` and their dotpaths alone.

Each package imports only those above it in this list, and `contracts` and `signals`:

- `config`: overrides, what is known of keys, defaults, errors
- `rundir`: the files of a run directory: names, writers, readers, trust
- `sweeps`: names, grid, search, leaderboard
- `loop`: what takes part in Lightning's loop: the step, checkpoints, non-finite numbers, speed, pruning
- `loggers`: the terminal, TensorBoard, MLflow, Weights & Biases
- `pages`: charts, and the page that a browser shows without a network
- `report`: what a run or a sweep has come to
- `training`: a run, top to bottom
- `reopen`: evaluate, predict, export
- `launch`: the application, the processes of a run, the machine's share of a job

`config`, `rundir`, `sweeps`, `pages`, `report` and `launch` import neither torch nor lightning, so that what they
answer takes no seconds of imports; where a function needs them, it imports them itself.
"""
