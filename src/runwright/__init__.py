"""The engine: runs what conf/ describes. It knows a project's own classes only by `contracts` and their dotpaths.

Each package imports only those above it in this list, plus `contracts` and `signals`:

- `config`: overrides, the table of keys, defaults, errors
- `rundir`: the files of a run directory: names, writers, readers, safety checks
- `sweeps`: names, grid, search, leaderboard
- `loop`: extensions of Lightning's loop: the step, checkpoints, non-finite values, speed, pruning
- `loggers`: the terminal, TensorBoard, MLflow, Weights & Biases
- `pages`: charts, and HTML pages that need no network
- `report`: the results of a run or a sweep
- `training`: a run, top to bottom
- `reopen`: evaluate, predict, export
- `launch`: the application, the processes of a run, how jobs share a machine

`config`, `rundir`, `sweeps`, `pages`, `report` and `launch` import neither torch nor lightning at their top, because
that takes seconds; a function that needs them imports them itself.
"""
