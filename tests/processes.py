"""Processes that are forked from one that has imported what is slow to import."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
# an optimiser of torch imports `torch._dynamo` when it is made
PROCESSES.set_forkserver_preload(
    ["workflow.training.train", "torch._dynamo", "scipy.stats", "snakemake.cli"]
)
