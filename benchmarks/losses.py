"""``python -m benchmarks.losses``: time and memory of our losses beside those of MONAI and kornia.

Writes ``losses.csv``, its figure and ``environment.json`` beside itself, the measured values
of the cards (``losses/measured.csv``), and prints how the targets stand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks import cards
from benchmarks.figure import MEMORY_TARGET, TIME_TARGET, draw
from benchmarks.measure import MemoryMeter, Step, busiest, seconds, softmax_step, step
from benchmarks.pairs import ALONE, KORNIA, MONAI, Pair
from benchmarks.patches import Patch, lesions
from workflow import files, provenance
from workflow.reporting import style

HERE = Path(__file__).parent
TABLE = HERE / "losses.csv"
SIZE, LARGE = 64, 128


def our_step(pair: Pair) -> Step:
    """One step of our loss."""
    return step(pair.ours())


def peer_step(pair: Pair) -> Step:
    """One step of the peer."""
    return step(pair.make(), channel=True)


def build(place: int, size: int, peer: bool) -> tuple[Step, Patch]:
    """The step of a pair and its patch, for the process that measures memory."""
    pair = (*MONAI, *KORNIA, *ALONE)[place]
    return (peer_step if peer else our_step)(pair), lesions(size, pair.classes)


def measured(
    pairs: Iterable[Pair], size: int, threads: Sequence[int], budget: float, meter: MemoryMeter
) -> Iterator[dict[str, object]]:
    """A row for every pair and number of threads.

    ``ratio`` is ours / peer: the median over the rounds, with its quartiles; ``floor_ratio`` and
    ``peer_floor_ratio`` are the medians of the time over that of softmax alone in the same round.
    """
    places = {id(pair): place for place, pair in enumerate((*MONAI, *KORNIA, *ALONE))}
    for pair in pairs:
        patch = lesions(size, pair.classes)
        steps = [softmax_step(torch.randn_like(patch.logits)), our_step(pair)]
        sides = [False, True] if pair.make else [False]
        if pair.make:
            steps.append(peer_step(pair))
        mebibytes = [meter.mebibytes(build, places[id(pair)], size, peer) for peer in sides]
        for number in threads:
            torch.set_num_threads(number)
            times = seconds(steps, patch, budget, pair.same_patch)
            bound_by, share = busiest(steps[1], patch, pair.same_patch)
            floors = np.median(times / times[:, :1], axis=0)
            row = {
                "size": size,
                "threads": number,
                "loss": pair.loss,
                "same_labels": pair.same_patch,
                "library": pair.library,
                "peer": pair.peer,
                "rounds": len(times),
                "floor_ms": 1e3 * np.median(times[:, 0]),
                "ours_ms": 1e3 * np.median(times[:, 1]),
                "floor_ratio": floors[1],
                "bound_by": bound_by,
                "bound_share": share,
                "ours_mib": mebibytes[0],
            }
            if pair.make:
                ratios = times[:, 1] / times[:, 2]
                low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
                row |= {
                    "peer_ms": 1e3 * np.median(times[:, 2]),
                    "peer_floor_ratio": floors[2],
                    "ratio": middle,
                    "ratio_low": low,
                    "ratio_high": high,
                    "peer_mib": mebibytes[1],
                    "memory_ratio": mebibytes[0] / mebibytes[1],
                    "differs": pair.differs,
                }
            print(_line(row), flush=True)
            yield row


def _fitting(pairs: Iterable[Pair], rows: list[dict[str, object]]) -> list[Pair]:
    """The pairs that will take less than half of the free memory at the large size."""
    free = psutil.virtual_memory().available / 2**20
    peaks = {
        (row["loss"], row["library"]): max(row["ours_mib"], row["peer_mib"])
        for row in rows
        if row["library"]
    }
    growth = (LARGE / SIZE) ** 3
    fitting = [pair for pair in pairs if growth * peaks[pair.loss, pair.library] < free / 2]
    for pair in (pair for pair in pairs if pair not in fitting):
        print(f"{LARGE}^3: {pair.loss} left out, it would need more than half of the memory")
    return fitting


def _line(row: dict[str, object]) -> str:
    beside = ""
    if row["library"]:
        beside = f"{row['ratio']:.2f} of {row['library']}, memory {row['memory_ratio']:.2f}; "
    return (
        f"{row['size']}^3 {row['threads']} threads  {row['loss']}"
        f"{' (same labels)' if row['same_labels'] else ''}: {beside}"
        f"{row['floor_ratio']:.1f} floors, {row['bound_share']:.0%} in {row['bound_by']}"
    )


def targets(table: pd.DataFrame) -> list[str]:
    """How the figures to reach stand, a line each, against MONAI at 64^3."""
    lines = []
    monai = table[(table["library"] == "MONAI") & (table["size"] == SIZE)]
    for threads, rows in monai.groupby("threads"):
        known = rows[rows["same_labels"]].set_index("loss")["ratio"]
        fresh = rows[~rows["same_labels"]].set_index("loss")
        ratio, memory = fresh["ratio"], fresh["memory_ratio"]
        for what, value, limit in (
            ("median time", ratio.median(), TIME_TARGET),
            (f"largest time, {ratio.idxmax()},", ratio.max(), 1.1),
            ("median memory", memory.median(), MEMORY_TARGET),
            ("time of hausdorff_dt", ratio["hausdorff_dt"], 1 / 2),
            ("time of hausdorff_dt with known distance maps", known["hausdorff_dt"], 1 / 5),
            ("time of focal", ratio["focal"], 1 / 2),
        ):
            verdict = "reached" if value <= limit else "missed"
            lines.append(
                f"{threads} threads: {what} {value:.2f} of MONAI's, at most {limit:.2f}: {verdict}"
            )
    return lines


def main() -> None:
    """Measures, writes and tells."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--large", action="store_true", help=f"2 x 4 x {LARGE}^3 as well, once")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row (default 4)")
    options = parser.parse_args()
    with MemoryMeter() as meter:
        common = (options.seconds, meter)
        rows = [
            *measured((*MONAI, *KORNIA), SIZE, options.threads, *common),
            *measured(ALONE, SIZE, [1], *common),
        ]
        if options.large:
            rows += measured(_fitting(MONAI, rows), LARGE, [max(options.threads)], *common)
    table = pd.DataFrame(rows)
    files.write_table(TABLE, table)
    files.write_json(HERE / "environment.json", provenance.environment())
    style.save(draw(table), HERE, "losses")
    cards.write(table)
    print("", *targets(table), sep="\n")


if __name__ == "__main__":
    main()
