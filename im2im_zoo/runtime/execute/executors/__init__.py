"""Executors, which run the units of a job; one per file."""

from im2im_zoo.core.jobs import Executor
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.execute.executors.process_pool import LocalProcesses
from im2im_zoo.runtime.settings import Resources

__all__ = ["InProcess", "LocalProcesses", "executor_for"]


def executor_for(resources: Resources) -> Executor:
    """Return the executor of some resources: a given one, this process, or `workers` processes."""
    if resources.executor is not None:
        return resources.executor
    if resources.workers == 1:
        return InProcess()
    return LocalProcesses(resources.workers, resources.threads)
