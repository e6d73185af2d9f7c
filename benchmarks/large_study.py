"""A study of 2,000 runs: seconds to build its graph of jobs, and to make its tables and report.

    python -m benchmarks.large_study                 # 2,000 runs of 54 cases
    python -m benchmarks.large_study --seeds 8       # a tenth of it

The bounds that it is held against: 15 s and 3 minutes (issue 5). Times are CPU seconds, which on a
machine with nothing else to do are those of the wall. The runs are made up.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import yaml

from tests.reporting import synthetic_study
from workflow.comparison import tables
from workflow.reporting import figures, report

ROOT = Path(__file__).parent.parent


def graph(folder: Path, losses: int, seeds: int) -> tuple[int, float]:
    """Jobs and CPU seconds of a dry run of so many losses x seeds, in a folder without results."""
    study = folder / "large.yaml"
    study.write_text(
        yaml.safe_dump(
            {
                "dataset": {"source": "phantom", "name": "large"},
                "seeds": list(range(1, seeds + 1)),
                "losses": {
                    "dice_ce": {},
                    **{f"loss_{i}": {"name": "dice"} for i in range(1, losses)},
                },
            }
        )
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1"),
            *("--snakefile", ROOT / "Snakefile", "--configfile", study, "--directory", folder),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("total"))
    return int(jobs), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def told(folder: Path, seeds: int, cases: int) -> dict[str, float]:
    """CPU seconds of tables, figures and report of all made-up losses x seeds."""
    seconds = {}
    write_all = tables.write_all

    def timed(*arguments: object) -> None:
        begin = time.process_time()
        write_all(*arguments)
        seconds["tables"] = time.process_time() - begin

    with mock.patch.object(tables, "write_all", timed):
        synthetic_study.write_study(folder, synthetic_study.LARGE, seeds=seeds, cases=cases)
    for name, make in (("figures", figures.write_all), ("report", report.build)):
        begin = time.process_time()
        make(folder)
        seconds[name] = time.process_time() - begin
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=75)
    parser.add_argument("--cases", type=int, default=54)
    options = parser.parse_args()
    losses = len(synthetic_study.LARGE)
    with tempfile.TemporaryDirectory() as name:
        jobs, seconds = graph(Path(name), losses, options.seeds)
        print(f"graph of {jobs} jobs: {seconds:.1f} s", flush=True)
        parts = told(Path(name) / "study", options.seeds, options.cases)
    text = ", ".join(f"{part} {value:.1f} s" for part, value in parts.items())
    print(f"{losses * options.seeds} runs x {options.cases} cases: {text}")


if __name__ == "__main__":
    main()
