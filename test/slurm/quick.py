"""Snakemake whose Slurm plugin asks for its jobs every second.

As it is, it waits 10 s longer each time that nothing has finished: minutes, for jobs of seconds.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda _: 1, lambda *_: None)
main()
