"""Experiments: one question a file, run as `python -m experiments.NAME`; `--help` lists its options."""
