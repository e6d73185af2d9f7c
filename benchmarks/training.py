"""Our training beside the ordinary MONAI way: steps a second, share of the peak, overhead of a run.

    python -m benchmarks.training            # some minutes; writes training.csv beside itself
    python -m benchmarks.training --device cuda                  # the same, training_cuda.csv

Both train the network of the default study from the same weights, on the same cases, patch size
and batch, with Dice + CE, AdamW and the one-cycle schedule, on one thread, in the precision that
the workflow has on the device. They take turns, a few steps each, and so does a large matrix
product, whose speed is called the machine's peak.
"""

from __future__ import annotations

import argparse
import gc
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.transforms import (
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch.profiler import ProfilerActivity, profile

from workflow import check, files
from workflow.data import phantom
from workflow.data.prepare import Prepared
from workflow.needs import run as needs_of_run
from workflow.study import RunSettings, Study, load
from workflow.training import network as networks
from workflow.training import optimisation
from workflow.training.train import Record, Run, Trainer

HERE = Path(__file__).parent
TABLE, CURVES = HERE / "training.csv", HERE / "training_curves.csv"
LOSS, SEED = "dice_ce", 1
CHUNK = 10
LONG = 3000
PRODUCT = {"cpu": 1024, "cuda": 8192}
"""Side of the matrices whose product measures the machine: long enough to fill it."""


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds: of the CPU if it does the work, else of the wall, once the device has no more to do.

    With one thread the CPU's are what the wall would show on a machine with nothing else to do.
    """
    if device.type == "cpu":
        return time.process_time

    def seconds() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return seconds


class Data(NamedTuple):
    """The same cases, prepared for us and as NIfTI files for MONAI."""

    prepared: Prepared
    splits: pd.DataFrame
    folder: Path

    def names(self, split: str) -> list[str]:
        return sorted(self.splits.loc[self.splits["split"] == split, "case"])

    def items(self, split: str) -> list[dict[str, str]]:
        """MONAI's list of dictionaries."""
        raw = {path.name.partition(".")[0]: path for path in self.folder.glob("labelsTr/*")}
        return [
            {"image": str(self.folder / "imagesTr" / raw[name].name), "label": str(raw[name])}
            for name in self.names(split)
        ]


class Ours:
    """The loop of the workflow, step by step as `Trainer.fit` takes them."""

    def __init__(self, settings: RunSettings, data: Data, rate: float):
        self.record = Record()
        self.trainer = Trainer(
            settings, data.prepared, data.splits, Run(LOSS, rate, SEED), self.record
        )
        self.batches = iter(self.trainer.sampler())

    def steps(self, count: int) -> None:
        self.trainer._train_until(self.trainer.step + count, self.batches)

    def validate(self) -> float:
        """Mean foreground Dice of the validation cases."""
        self.trainer.validate()
        rows = pd.DataFrame(self.record.curve, columns=["step", "split", "quantity", "", "value"])
        dice = rows[(rows["quantity"] == "dice") & (rows["step"] == self.trainer.step)]
        return float(dice["value"].mean())


class Monai:
    """What MONAI's tutorials do: dictionary transforms, cache, loader, channels first, autocast."""

    def __init__(self, settings: RunSettings, data: Data, rate: float):
        training = settings.training
        self.device = networks.accelerator(training.accelerator)
        keys = ["image", "label"]
        load_case = [
            LoadImaged(keys), EnsureChannelFirstd(keys),
            NormalizeIntensityd("image", channel_wise=True),
        ]  # fmt: skip
        jitter = training.intensity_jitter
        cropped = RandCropByPosNegLabeld(
            keys, label_key="label", spatial_size=training.patch_size,
            pos=training.foreground_share, neg=1 - training.foreground_share,
            num_samples=training.batch_size,
        )  # fmt: skip
        augmented = [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)]
        augmented += [
            RandScaleIntensityd("image", factors=jitter, prob=1.0),
            RandShiftIntensityd("image", offsets=jitter, prob=1.0),
        ]
        cached = CacheDataset(
            data.items("train"), Compose([*load_case, cropped, *augmented]), progress=False
        )
        # the samples of a case make the batch: cheaper than a case for each
        self.loader = DataLoader(cached, batch_size=1, shuffle=True, num_workers=0)
        self.held_out = CacheDataset(data.items("validation"), Compose(load_case), progress=False)
        classes = len(data.prepared.classes)
        self.network = networks.build(
            len(data.prepared.channels), classes,
            seed=Run(LOSS, rate, SEED).seeds()["initialisation"], **settings.network.model_dump(),
        ).to(self.device)  # fmt: skip
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=rate, weight_decay=training.weight_decay
        )
        self.schedule = optimisation.schedule(
            self.optimizer, training.schedule, rate, training.steps
        )
        self.batches = self._endless()
        self.window = settings.geometry(data.prepared).window
        self.score = DiceMetric(include_background=False, ignore_empty=True)
        self.prediction = AsDiscrete(argmax=True, to_onehot=classes)
        self.reference = AsDiscrete(to_onehot=classes)

    def _endless(self) -> Iterator[dict]:
        while True:
            yield from self.loader

    def steps(self, count: int) -> None:
        self.network.train()
        for _ in range(count):
            batch = next(self.batches)
            self.optimizer.zero_grad()
            images, labels = (batch[key].to(self.device) for key in ("image", "label"))
            with networks.autocast(self.device):
                value = self.loss(self.network(images), labels)
            value.backward()
            self.optimizer.step()
            self.schedule.step()
            value.item()

    def validate(self) -> float:
        self.network.eval()
        self.score.reset()
        with torch.no_grad():
            for batch in DataLoader(self.held_out, batch_size=1):
                images, labels = (batch[key].to(self.device) for key in ("image", "label"))
                with networks.autocast(self.device):
                    logits = sliding_window_inference(images, self.window, 4, self.network)
                self.score(
                    [self.prediction(item) for item in decollate_batch(logits)],
                    [self.reference(item) for item in decollate_batch(labels)],
                )
        # of each class over the cases that have it, then over the classes, as ours
        return float(self.score.get_buffer().nanmean(0).nanmean())


WAYS = {"ours": Ours, "monai": Monai}


def product(device: torch.device) -> Callable[[], float]:
    """A function that multiplies two matrices and gives the operations a second."""
    side, seconds = PRODUCT[device.type], clock(device)
    left, right = torch.rand(2, side, side, dtype=networks.precision(device), device=device)

    def run() -> float:
        begin = seconds()
        torch.mm(left, right)
        return 2 * side**3 / (seconds() - begin)

    return run


def write_data(study: Study, folder: Path) -> Data:
    """Writes the phantom of a study, and prepares it."""
    phantom.write(study.dataset.phantom, folder / "raw")
    read = check.read_dataset(study.dataset, folder / "raw")
    prepared = check.prepare_data(study.data(), read, folder / "prepared")
    return Data(prepared, check.split(study.splits, prepared), folder / "raw")


def race(
    settings: RunSettings, data: Data, rate: float
) -> tuple[pd.DataFrame, pd.DataFrame, torch.nn.Module]:
    """A row for each round, both validation curves, and the network that ours trained.

    A round is a few steps of each and a matrix product, in seconds of :func:`clock`.
    """
    training = settings.training
    device = networks.accelerator(training.accelerator)
    rivals = {name: way(settings, data, rate) for name, way in WAYS.items()}
    seconds, speed, rounds, curves = clock(device), product(device), [], []
    for index, done in enumerate(range(0, training.steps, CHUNK)):
        row = {"peak": speed()}
        for name in list(rivals)[:: 1 if index % 2 else -1]:
            begin = seconds()
            rivals[name].steps(CHUNK)
            row[name] = (seconds() - begin) / CHUNK
        rounds.append(row)
        if (done + CHUNK) % training.validate_every == 0:
            for name, rival in rivals.items():
                curves.append((name, done + CHUNK, rival.validate()))
    curve = pd.DataFrame(curves, columns=["way", "step", "dice"])
    return pd.DataFrame(rounds), curve, rivals["ours"].trainer.network


def peak_memory(way: type[Ours | Monai], settings: RunSettings, data: Data, rate: float) -> float:
    """MiB of a GPU that one way holds at its peak, alone, in some steps and a validation.

    To be called after :func:`race`: then what CUDA's libraries keep for themselves is there before
    either way, and counted for neither.
    """
    gc.collect()  # of another way, whose parts hold one another
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    alone = way(settings, data, rate)
    alone.steps(CHUNK)
    alone.validate()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def busiest(settings: RunSettings, data: Data, rate: float, steps: int = 20) -> pd.Series:
    """Share of each operator in our steps; what is left is Python, NumPy and their calls."""
    whole = settings.training.model_copy(update={"steps": CHUNK + steps})
    ours = Ours(settings.model_copy(update={"training": whole}), data, rate)
    ours.steps(CHUNK)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        begin = time.perf_counter()  # the profiler's clock
        ours.steps(steps)
        total = time.perf_counter() - begin
    rows = {event.key: event.self_cpu_time_total / 1e6 / total for event in profiled.key_averages()}
    rows["outside PyTorch"] = 1 - sum(rows.values())
    return pd.Series(rows).sort_values(ascending=False)


def scored(trainer: Trainer) -> dict[str, float]:
    """CPU seconds of a validation and of scoring one checkpoint, with the weights as they are."""
    parts = {}
    evaluate = partial(trainer.evaluate, lambda key, compute: compute())
    for part, run in (("validation", trainer.validate), ("evaluation", evaluate)):
        run()  # what is loaded and allocated once is the job's
        begin = time.process_time()
        run()
        parts[part] = time.process_time() - begin
    return parts


def overhead(study: Study, data: Data, step: float, trained: torch.nn.Module) -> pd.DataFrame:
    """CPU seconds of the parts of a run: of the study as it is, and of one of 3,000 steps.

    A real job of two steps is run for what it takes to begin and to end. Validation and evaluation
    are measured with ``trained`` weights (what untrained ones predict is ragged and takes longer to
    score) and scaled to the number of cases of the study.
    """
    short = study.training.model_copy(update={"steps": 2, "validate_every": 2})
    settings = study.run_settings(LOSS).model_copy(update={"training": short})
    trainer = Ours(settings, data, 1e-3).trainer
    untrained = scored(trainer)  # as the job of two steps does it
    trainer.network.load_state_dict(trained.state_dict())
    parts = scored(trainer)
    splits = data.folder.parent / "splits.csv"
    files.write_table(splits, data.splits)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            *(sys.executable, "-m", "workflow", "train", settings.model_dump_json(), splits),
            *(data.folder.parent / "run" / "status.json", "--loss", LOSS, "--rate", "0.001"),
            *("--seed", str(SEED), "--prepared", data.folder.parent / "prepared" / "prepared.json"),
        ],
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # two steps, validated before and after; the weights of one checkpoint scored
    ends = whole - 2 * step - 2 * untrained["validation"] - untrained["evaluation"]
    cases = study.dataset.phantom.subjects / len(data.prepared.cases)
    rows = []
    for steps in (study.training.steps, LONG):
        validations = 1 + math.ceil(steps / study.training.validate_every)
        rows.append({
            "steps": steps, "training": steps * step, "start_and_end": ends,
            "validation": validations * cases * parts["validation"],
            # the best weights and the last
            "evaluation": 2 * cases * parts["evaluation"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def run_rows(
    settings: RunSettings,
    study: Study,
    data: Data,
    rate: float,
    step: float,
    trained: torch.nn.Module,
) -> list:
    """Of the CPU: what holds a step, and what a run spends beside its steps."""
    shares = busiest(settings, data, rate)
    rows = [("step_share", operator, value) for operator, value in shares.items() if value > 0.005]
    for part in overhead(study, data, step, trained).to_dict("records"):
        steps, whole = int(part.pop("steps")), sum(part.values())
        rows += [(f"run_share_{steps}_steps", name, value / whole) for name, value in part.items()]
        rows.append((f"overhead_{steps}_steps", "", 1 - part["training"] / whole))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="of each (default 200)")
    parser.add_argument("--subjects", type=int, default=40, help="of the phantom (default 40)")
    parser.add_argument("--device", choices=PRODUCT, default="cpu", help="default cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    here = {"training": {"accelerator": options.device}}
    study = load(HERE.parent / "config" / "default.yaml", here)
    # as MONAI's way prepares them: what is clipped would be learnt more slowly
    changes = here | {
        "dataset": {"phantom": {"subjects": options.subjects}},
        "preparation": {"normalisation": "zscore"},
    }
    small = load(HERE.parent / "config" / "default.yaml", changes)
    training = study.training.model_copy(
        update={"steps": options.steps, "validate_every": max(CHUNK, options.steps // 4)}
    )
    settings = study.run_settings(LOSS).model_copy(update={"training": training})
    rate = float(study.rate(LOSS))
    with tempfile.TemporaryDirectory() as name:
        data = write_data(small, Path(name))
        rounds, curves, trained = race(settings, data, rate)
        if options.device == "cpu":
            further = run_rows(settings, study, data, rate, rounds["ours"].median(), trained)
        else:
            further = [
                ("peak_memory_mib", name, peak_memory(way, settings, data, rate))
                for name, way in WAYS.items()
            ]
    traced = needs_of_run.step(
        study.network, len(data.prepared.channels), len(data.prepared.classes),
        training.batch_size, training.patch_size,
    )  # fmt: skip
    ratio = rounds["monai"] / rounds["ours"]
    share = traced.operations / rounds["ours"] / rounds["peak"]
    rows = [
        ("steps_per_second", "ours", (1 / rounds["ours"]).median()),
        ("steps_per_second", "monai", (1 / rounds["monai"]).median()),
        *(("speed_up", f"{q:.2f}", ratio.quantile(q)) for q in (0.25, 0.5, 0.75)),
        ("gigaflops", "matrix product", rounds["peak"].median() / 1e9),
        ("gigaflops", "ours", (traced.operations / rounds["ours"]).median() / 1e9),
        ("share_of_peak", "ours", share.median()),
        *further,
    ]
    table = pd.DataFrame(rows, columns=["quantity", "of", "value"])
    for place, found in ((TABLE, table), (CURVES, curves)):
        suffix = "" if options.device == "cpu" else f"_{options.device}"
        files.write_table(place.with_stem(place.stem + suffix), found)
    print(table.to_string(), curves.to_string(), sep="\n")


if __name__ == "__main__":
    main()
