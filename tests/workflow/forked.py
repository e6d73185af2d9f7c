"""``python -m MODULE ...`` in a copy of the project, without the seconds that imports take.

What is not of the project has been imported before; its own code is imported from the copy. The
jobs that Snakemake starts are ordinary processes.
"""

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.processes import PROCESSES

OFFLINE = Path(__file__).parent / "offline"


def run(*words: str, cwd: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """What ``subprocess.run`` gives: exit code, and all that was printed as ``stdout``."""
    with tempfile.NamedTemporaryFile("r") as printed:
        process = PROCESSES.Process(target=_work, args=(words, cwd, env, printed.name))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        return subprocess.CompletedProcess(words, process.exitcode, printed.read())


def _work(words: tuple[str, ...], cwd: Path, env: dict[str, str], printed: str) -> None:
    descriptor = os.open(printed, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    # `sitecustomize` was looked for long ago
    runpy.run_path(str(OFFLINE / "sitecustomize.py"))
    for name in list(sys.modules):
        if name.partition(".")[0] in ("workflow", "losses"):
            del sys.modules[name]
    sys.path.insert(0, str(cwd))
    module, *sys.argv[1:] = words
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # which a process of multiprocessing leaves out
        atexit._run_exitfuncs()
