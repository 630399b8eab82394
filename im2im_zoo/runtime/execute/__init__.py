"""Run a plan: statistics, tiles, later stages, the ledger and outputs."""
