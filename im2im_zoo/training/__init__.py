"""Training: turns a recipe into a run. `train` makes a run folder, `open_run` reads one."""
