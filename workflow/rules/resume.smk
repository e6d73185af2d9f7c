# What a killed call left behind, and checkpoints that have served.

import fcntl

# Snakemake has a keyword `checkpoint`
from workflow.training.checkpoint import ANY, clear


def forget_stale_locks():
    """Removes Snakemake's locks if no other call in this folder is alive.

    They are files, which outlive a Snakemake that is killed. So each call holds a lock of the
    operating system as well, which does not, and shares it with calls for other studies.
    """
    folder = Path(".snakemake")
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)  # never closed: the lock goes with this process
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for stale in folder.glob("locks/*.lock"):
            stale.unlink()
        fcntl.flock(handle, fcntl.LOCK_SH)
    except BlockingIOError:
        fcntl.flock(handle, fcntl.LOCK_SH)
    except OSError:
        pass  # the file system has no such locks: after a kill `snakemake --unlock` it is


def checkpointed_runs():
    """Folders of the runs that have a checkpoint."""
    return {file.parent for file in Path(RESULTS).rglob(ANY)}


def forget_runs_asked_for_again():
    """`--forcerun` and the like mean from the start."""
    asked = workflow.dag_settings
    names = set(map(str, asked.forcerun)) | (set(asked.targets) if asked.forcetargets else set())
    everything = asked.forceall or names & {"train", "trial"}
    for folder in checkpointed_runs():
        if everything or any(folder in Path(name).parents for name in names):
            clear(folder)


def forget_finished_runs():
    """Once all is done, and Snakemake has noted so, no checkpoint of it is needed."""
    for folder in checkpointed_runs():
        if (folder / "status.json").exists():
            clear(folder)


# before Snakemake looks at its own locks; the jobs of a call work under its lock
if workflow.is_main_process:
    forget_stale_locks()


onstart:
    forget_runs_asked_for_again()
