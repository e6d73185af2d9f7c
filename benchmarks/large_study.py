"""A study of 2,000 runs: seconds to build its graph of jobs, and to make its tables and report.

    python -m benchmarks.large_study                      # 2,000 runs of 54 cases
    python -m benchmarks.large_study --seeds 8 --out DIR  # a tenth of it

The bounds that it is held against: 15 s for the graph, 3 minutes for tables, figures and report.
Times are CPU seconds, which on a machine with nothing else to do are those of the wall. The runs
are made up.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
import yaml

from benchmarks.peak import peak_mib
from tests.reporting import synthetic_study
from workflow.comparison import tables
from workflow.reporting import figures, report

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent


def graph(folder: Path, losses: int, seeds: int) -> dict[str, float]:
    """A dry run of so many losses x seeds, in a folder without results."""
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
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "jobs": int(jobs),
        "cpu_seconds": seconds,
        "peak_mib": peak_mib(resource.RUSAGE_CHILDREN),
    }


def told(folder: Path, seeds: int, cases: int) -> dict[str, dict[str, float]]:
    """Tables, figures and report of all made-up losses x seeds.

    One process makes them, so the peak of a part is at most what is said: that of those before it.
    """
    found = {}

    def measured(part: str, make: Callable[..., object], *arguments: object) -> None:
        begin = time.process_time()
        make(*arguments)
        seconds = time.process_time() - begin
        found[part] = {"cpu_seconds": seconds, "peak_mib": peak_mib()}

    with mock.patch.object(tables, "write_all", partial(measured, "tables", tables.write_all)):
        synthetic_study.write_study(folder, synthetic_study.LARGE, seeds=seeds, cases=cases)
    measured("figures", figures.write_all, folder)
    measured("report", report.build, folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=75)
    parser.add_argument("--cases", type=int, default=54)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    losses = len(synthetic_study.LARGE)
    runs = {"runs": losses * options.seeds, "cases": options.cases}
    with tempfile.TemporaryDirectory() as name:
        parts = {"graph": graph(Path(name), losses, options.seeds)}
        parts |= told(Path(name) / "study", options.seeds, options.cases)
    table = pd.DataFrame([{"part": part} | runs | found for part, found in parts.items()])
    table = table[["part", *runs, "jobs", "cpu_seconds", "peak_mib"]].round(1)
    table["jobs"] = table["jobs"].astype("Int64")
    table.to_csv(options.out / "large_study.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
