"""A run: training, validation on whole volumes, and the scores of the held-out cases.

Everything random is drawn from the run's seed and nothing from its loss, so that all losses of
a seed start from the same weights and see the same patches; both digests are in the status.
"""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from workflow import files, provenance
from workflow.data.patches import PatchSampler
from workflow.data.prepare import Prepared, PreparedCase
from workflow.data.splits import EXTERNAL
from workflow.evaluation.metrics import confusion_counts, dice
from workflow.evaluation.predict import batches, label_map, predict
from workflow.study import RunSettings
from workflow.training import network as networks
from workflow.training import objective, optimisation, signals
from workflow.training.checkpoint import Checkpoints, alone, case_sha256, fingerprint
from workflow.training.limits import TimeOver, is_out_of_memory, time_limit
from workflow.training.scoring import CASE_COLUMNS, RELIABILITY_COLUMNS, score, summed_up

LOG = logging.getLogger("rareclass")

CURVE_COLUMNS = ("step", "split", "quantity", "class", "value")


class LossFailed(Exception):
    """The loss itself raised (the cause); whatever else goes wrong is no verdict on it."""


@contextmanager
def blaming_the_loss() -> Iterator[None]:
    """Turns what the loss raises into :class:`LossFailed`; a machine out of memory is no defect."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise LossFailed from error


class Diverged(Exception):
    """Training became non-finite; the message says what and when."""


@dataclass(frozen=True)
class Run:
    """What distinguishes a run within its study."""

    loss: str
    learning_rate: float
    seed: int

    def key(self, dataset: str) -> dict[str, object]:
        """The columns that identify the run in every table."""
        return {
            "dataset": dataset,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }

    def seeds(self) -> dict[str, int]:
        """A seed for each thing that is random, so that none moves when another draws more.

        The words that NumPy's ``SeedSequence`` makes of the run's seed, the same in every version.
        """
        things = ("initialisation", "order", "augmentation")
        words = np.random.SeedSequence(self.seed).generate_state(len(things))
        return dict(zip(things, map(int, words), strict=True))


@dataclass
class Record:
    """What a run leaves behind, filled as it goes so that a failure keeps what was there."""

    status: dict[str, Any] = field(default_factory=dict)
    curve: list[tuple] = field(default_factory=list)
    cases: list[dict] = field(default_factory=list)
    reliability: list[dict] = field(default_factory=list)
    signals: list[tuple] | None = None
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, out: Path, key: dict[str, object], *, trial: bool = False) -> None:
        """Three tables, ``predictions.npz``, and ``status.json`` last.

        Signals are a fourth table where they are recorded. A trial has no test cases: it leaves
        its curve and status.
        """
        tables: dict[str, tuple[list, Sequence[str]]] = {"curve": (self.curve, CURVE_COLUMNS)}
        if not trial:
            if self.signals is not None:
                tables["signals"] = (self.signals, signals.COLUMNS)
            tables["cases"] = (self.cases, CASE_COLUMNS)
            tables["reliability"] = (self.reliability, RELIABILITY_COLUMNS)
        for name, (rows, columns) in tables.items():
            table = pd.DataFrame(rows, columns=columns)
            for position, (column, value) in enumerate(key.items()):
                table.insert(position, column, value)
            files.write_table(out / f"{name}.csv", table)
        if not trial:
            files.write_arrays(out / "predictions.npz", self.predictions)
        files.write_json(out / "status.json", key | self.status)


def train(
    settings: RunSettings,
    prepared: Prepared,
    splits: pd.DataFrame,
    run: Run,
    out: Path,
    *,
    trial: bool = False,
    limit: float | None = None,
) -> str:
    """Trains and scores one run, writes its files to ``out`` and returns its status.

    A ``trial`` of a learning rate never sees the test cases. Where an earlier call was killed,
    this one goes on from its last checkpoint.

    ``ok``; ``diverged`` when the loss or its gradient became non-finite; ``failed`` when the
    loss raised, or the run took longer than the ``limit`` in seconds: the reason is in
    ``status.json``, the traceback in the log. Anything else raises, so that the job fails and is
    tried again by the next call; ``MemoryError`` says which keys need less memory.
    """
    began = time.monotonic() - _age()  # on a clock that nobody sets while the run goes on
    with alone(out) as waited:
        record = Record(signals=[] if settings.training.signals_every else None)
        record.status["settings_sha256"] = settings.sha256()
        device = networks.accelerator(settings.training.accelerator)
        checkpoints = Checkpoints(
            out, fingerprint(settings, run.learning_rate, run.seed, prepared, splits, device)
        )
        state = checkpoints.load()
        earlier = state["spent"] if state else {"seconds": 0.0, "peak_memory_mib": 0.0}
        earlier["seconds"] -= waited

        def once(key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            """What ``compute`` gives, if an earlier call has not left it."""
            part = checkpoints.part(key)
            if part is None:
                part = compute() | {"spent": _spent(earlier, began)}
                checkpoints.keep(key, part)
            elif (unknown := part["spent"]["seconds"] - earlier["seconds"]) > 0:
                earlier.update(part["spent"])
                spend(unknown)
            return part

        try:
            with time_limit(limit and limit - _spent(earlier, began)["seconds"]) as spend:
                trainer = Trainer(settings, prepared, splits, run, record)
                outcome = trainer.fit(
                    lambda state: checkpoints.save(state | {"spent": _spent(earlier, began)}), state
                )
                if not trial:
                    trainer.evaluate(once)
                record.status |= outcome
        except LossFailed as error:
            assert error.__cause__ is not None  # what the loss raised
            reason = objective.reason(error.__cause__)
            record.status |= {"status": "failed", "reason": reason}
            trace = traceback.format_exc().encode("utf-8", "backslashreplace").decode()
            LOG.error("%s seed %d failed: %s\n%s", run.loss, run.seed, reason, trace)
        except TimeOver:
            assert limit is not None  # without one nothing raises this
            reason = f"not finished within the study's time limit of {limit / 60:g} minutes"
            record.status |= {"status": "failed", "reason": reason}
            LOG.error("%s seed %d failed: %s", run.loss, run.seed, reason)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(
                f"{run.loss} seed {run.seed}: out of memory; a smaller training.batch_size, "
                f"training.patch_size or evaluation.window needs less: {error}"
            ) from error
        record.status |= {"commit": provenance.commit(), "torch": torch.__version__}
        record.status |= _spent(earlier, began)
        record.write(out, run.key(prepared.name), trial=trial)
        checkpoints.retire(keep_newest=record.status["status"] != "failed")
    return record.status["status"]


class Trainer:
    """The state of one run: network, loss, optimiser, and the best weights so far."""

    def __init__(
        self,
        settings: RunSettings,
        prepared: Prepared,
        splits: pd.DataFrame,
        run: Run,
        record: Record,
    ):
        self.settings, self.prepared, self.run, self.record = settings, prepared, run, record
        self.geometry = settings.geometry(prepared)
        self.name = f"{run.loss} seed {run.seed}"
        self.seeds = run.seeds()
        record.status |= {f"{what}_seed": seed for what, seed in self.seeds.items()}
        self.device = networks.accelerator(settings.training.accelerator)
        torch.use_deterministic_algorithms(True, warn_only=self.device.type != "cpu")
        # this would fill every new tensor with NaN first, one step in twenty spent; no kernel here
        # reads what it has not written
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        cases = {case.name: case for case in prepared.cases}
        self.cases = {
            split: [cases[name] for name in sorted(rows["case"])]
            for split, rows in splits.groupby("split")
        }
        voxels = [
            sum(case.array_voxels[c] for case in self.cases["train"]) for c in prepared.classes
        ]
        with blaming_the_loss():
            self.loss = objective.create(settings.loss, voxels)
            if isinstance(self.loss, torch.nn.Module):
                self.loss.to(self.device)  # a user's may have buffers
        total = sum(voxels)
        self.network = networks.build(
            len(prepared.channels),
            len(prepared.classes),
            seed=self.seeds["initialisation"],
            class_frequencies=None
            if settings.training.output_bias == "random"
            else [v / total for v in voxels],
            **settings.network.model_dump() | {"strides": self.geometry.strides},
        )
        record.status["initial_weights_sha256"] = networks.weights_sha256(self.network)
        self.network.to(self.device)
        # torch's annotations leave this argument out
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = optimisation.optimizer(self.network, settings.training, run.learning_rate)
        self.schedule = optimisation.schedule(
            self.optimizer, settings.training.schedule, run.learning_rate, settings.training.steps
        )
        self.step = 0
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None
        self.seconds = dict.fromkeys(("training", "validation", "evaluation"), 0.0)

    def sampler(self) -> PatchSampler:
        """The patches of the run, from the first."""
        training = self.settings.training
        return PatchSampler(
            *self.prepared.patches_of(self.cases["train"]),
            patch_size=self.geometry.patch_size,
            batch_size=training.batch_size,
            foreground_share=training.foreground_share,
            flips=training.flips,
            intensity=training.intensity_jitter,
            order_seed=self.seeds["order"],
            augmentation_seed=self.seeds["augmentation"],
            device=self.device,
        )

    def fit(
        self, save: Callable[[dict[str, Any]], None], state: dict[str, Any] | None
    ) -> dict[str, str]:
        """Trains for the study's steps; validates before the first, every K-th and the last.

        Each validation after the first is a checkpoint: ``save`` gets the state of the run, from
        which a later call goes on.

        Returns the status: ``ok``, or ``diverged`` with the reason. Whatever else happens raises.
        """
        training, sampler = self.settings.training, self.sampler()
        status, outcome = self.record.status, {"status": "ok", "reason": ""}
        status["startup_seconds"] = _age()
        try:
            if state is None:
                self.validate()
            else:
                self._restore(state, sampler)
                LOG.info("%s: goes on at step %d", self.name, self.step)
            while self.step < training.steps:
                until = min(training.steps, self.step + training.validate_every)
                self._train_until(until, iter(sampler))
                self.validate()
                save(self._state(sampler))
        except Diverged as error:
            outcome = {"status": "diverged", "reason": str(error)}
            LOG.warning("%s: diverged: %s", self.name, error)
        finally:
            status |= {
                "steps": self.step,
                "best_step": self.best[1] if self.best else 0,
                "patch_order_sha256": sampler.sha256,
                "training_seconds": self.seconds["training"],
                "validation_seconds": self.seconds["validation"],
                "seconds_per_step": self.seconds["training"] / max(1, self.step),
            }
        if self.step:
            share = self._loss_seconds(next(iter(sampler))) / status["seconds_per_step"]
            status["loss_share"] = share
        return outcome

    def _state(self, sampler: PatchSampler) -> dict[str, Any]:
        """All that the next step depends on, and what was measured and found so far."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"sampler": sampler.state(), "generators": {"cpu": torch.get_rng_state()}}
        if self.device.type != "cpu":
            module = torch.get_device_module(self.device)
            state["generators"][self.device.type] = module.get_rng_state()
        state |= {name: getattr(self, name) for name in ("step", "best", "seconds")}
        return state | {"curve": self.record.curve, "signals": self.record.signals}

    def _restore(self, state: dict[str, Any], sampler: PatchSampler) -> None:
        """Goes on from :meth:`_state` of a trainer with the same arguments."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        sampler.restore(state["sampler"])
        torch.set_rng_state(state["generators"]["cpu"])
        if self.device.type != "cpu":
            module = torch.get_device_module(self.device)
            module.set_rng_state(state["generators"][self.device.type])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.record.curve, self.record.signals = state["curve"], state["signals"]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        # a user's loss may have buffers, and need be no module
        return parts | ({"loss": self.loss} if isinstance(self.loss, torch.nn.Module) else {})

    def _train_until(self, until: int, batches: Iterator) -> None:
        self.network.train()
        sums = {"loss": 0.0, "gradient_norm": 0.0}
        parameters = list(self.network.parameters())  # to find them takes time in every step
        first = self.step
        started = time.perf_counter()
        try:
            while self.step < until:
                images, labels = next(batches)
                logits = self._logits(images)
                value = self._loss(logits, labels)
                if not math.isfinite(value.item()):
                    raise Diverged(f"the loss is {value.item()} at step {self.step + 1}")
                self.optimizer.zero_grad(set_to_none=True)
                watched = self.record.signals if self._watched() else None
                if watched is not None:
                    logits.retain_grad()
                with blaming_the_loss():
                    value.backward()
                if watched is not None:
                    assert logits.grad is not None  # retained
                    watched += [
                        (self.step, *row)
                        for row in signals.measure(
                            self.loss, logits, logits.grad, labels, self.prepared.classes
                        )
                    ]
                norm = torch.nn.utils.get_total_norm(
                    [p.grad for p in parameters if p.grad is not None]
                ).item()
                if not math.isfinite(norm):
                    raise Diverged(f"the gradient norm is {norm} at step {self.step + 1}")
                self.optimizer.step()
                self.schedule.step()
                self.step += 1
                sums["loss"] += value.item()
                sums["gradient_norm"] += norm
        finally:
            self.seconds["training"] += time.perf_counter() - started
            for quantity, total in sums.items():
                if self.step > first:
                    self._note("train", quantity, "", total / (self.step - first))
            self._note("train", "learning_rate", "", self.optimizer.param_groups[0]["lr"])

    def _watched(self) -> bool:
        every = self.settings.training.signals_every
        return every > 0 and self.step % every == 0

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """The forward pass of training and prediction; float32, whatever the layers compute in."""
        images = images.contiguous(memory_format=torch.channels_last_3d)
        with networks.autocast(self.device):
            return self.network(images).float()

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with blaming_the_loss():
            value = self.loss(logits, labels)
            objective.judge(value)
        return value

    def _loss_seconds(self, batch: tuple[torch.Tensor, torch.Tensor], repeats: int = 5) -> float:
        """Seconds that the loss alone takes, forward and backward, on the logits of a batch."""
        images, labels = batch
        self.network.eval()  # else the batch would move the running means that are scored next
        with torch.no_grad():
            logits = self._logits(images)
        logits.requires_grad_()
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            with blaming_the_loss():
                torch.autograd.grad(self.loss(logits, labels), logits)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        return float(np.median(times))

    def _predictions(self, split: Sequence[PreparedCase]) -> Iterator[tuple]:
        """``(case, logits)`` of every case of a split, or of a batch of it."""
        cases = {case.name: case for case in split}
        self.network.eval()
        for name, logits in predict(
            self._logits,
            {name: case.shape for name, case in cases.items()},
            lambda name: torch.from_numpy(np.array(self.prepared.image(cases[name]))),
            window=self.geometry.window,
            overlap=self.settings.evaluation.overlap,
            device=self.device,
        ):
            yield cases[name], logits

    def validate(self) -> None:
        """The loss's own value, cross-entropy, Dice and predicted fraction on validation."""
        started = time.perf_counter()
        classes = self.prepared.classes
        own, yardstick, dices, fractions = [], [], [], []
        for case, logits in self._predictions(self.cases["validation"]):
            reference = np.array(self.prepared.label(case))
            target = torch.from_numpy(reference).to(self.device).long()[None]
            with torch.no_grad(), blaming_the_loss():
                own.append(self.loss(logits[None], target).item())
            yardstick.append(torch.nn.functional.cross_entropy(logits[None], target).item())
            counts = confusion_counts(label_map(logits), reference, len(classes))
            dices.append([dice(c) for c in counts])
            fractions.append([c["predicted_voxels"] / reference.size for c in counts])
        self._note("validation", "loss", "", np.mean(own))
        self._note("validation", "cross_entropy", "", np.mean(yardstick))
        scores = []
        for c, name in enumerate(classes):
            self._note("validation", "predicted_fraction", name, np.mean(fractions, axis=0)[c])
            present = [row[c] for row in dices if not math.isnan(row[c])]
            if c and present:
                scores.append(np.mean(present))
                self._note("validation", "dice", name, scores[-1])
        score = float(np.mean(scores)) if scores else 0.0
        # untrained weights are no candidate: their noise would beat a run that collapsed to 0;
        # of equal scores the later one counts
        if self.step and (self.best is None or score >= self.best[0]):
            weights = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            self.best = (score, self.step, weights)
        self.seconds["validation"] += time.perf_counter() - started
        self._report(score)

    def evaluate(self, once: Callable[..., dict[str, Any]]) -> None:
        """Scores every test case with the last and the best weights.

        ``once(key, compute)`` gives what ``compute`` does, which is the scores of a batch of cases,
        or what it gave an earlier call under this key.
        """
        last = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        # a run that diverged before its first validation has nothing better than its last weights
        best = self.best[1:] if self.best else (self.step, last)
        checkpoints = {"last": (self.step, last), "best": best}
        scored: dict[int, tuple] = {}
        for checkpoint, (step, weights) in checkpoints.items():
            if step not in scored:
                self.network.load_state_dict(weights)
                digest = networks.weights_sha256(self.network)
                found: list[dict[str, Any]] = []
                for batch in chain(self._batches("test"), self._batches(EXTERNAL)):
                    cases = [case_sha256(case) for case in batch]
                    part = once(f"{digest} {cases}", partial(self._scores, batch))
                    found += part["found"]
                    self.seconds["evaluation"] += part["seconds"]
                scored[step] = summed_up(found, self.prepared.classes)
            rows, reliability, predictions = scored[step]
            self.record.cases += [{"checkpoint": checkpoint} | row for row in rows]
            self.record.reliability += [{"checkpoint": checkpoint} | row for row in reliability]
            if checkpoint == self.settings.checkpoint:
                self.record.predictions = predictions
        self.record.status["evaluation_seconds"] = self.seconds["evaluation"]

    def _batches(self, split: str) -> Iterator[list[PreparedCase]]:
        """The cases of a split that are predicted together."""
        cases = {case.name: case for case in self.cases.get(split, [])}
        for batch in batches({name: case.shape for name, case in cases.items()}):
            yield [cases[name] for name in batch]

    def _scores(self, batch: Sequence[PreparedCase]) -> dict[str, Any]:
        started = time.perf_counter()
        tolerance = self.settings.evaluation.nsd_tolerance
        found = score(self._predictions(batch), self.prepared, tolerance)
        return {"found": found, "seconds": time.perf_counter() - started}

    def _note(self, split: str, quantity: str, name: str, value: float | np.floating) -> None:
        self.record.curve.append((self.step, split, quantity, name, float(value)))

    def _report(self, score: float) -> None:
        """A progress line: step, loss, rate, validation Dice, time left."""
        steps = self.settings.training.steps
        loss = [v for s, split, q, _, v in self.record.curve if (split, q) == ("train", "loss")]
        spent = self.seconds["training"] + self.seconds["validation"]
        left = spent / self.step * (steps - self.step) if self.step else math.nan
        LOG.info(
            "%s: step %d/%d  loss %s  rate %.2e  validation Dice %.3f  %s left",
            self.name,
            self.step,
            steps,
            f"{loss[-1]:.4f}" if loss else "-",
            self.optimizer.param_groups[0]["lr"],
            score,
            "-" if math.isnan(left) else f"{left:.0f} s",
        )


def _age() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process().create_time()


def _spent(earlier: dict[str, float], began: float) -> dict[str, float]:
    """Seconds and peak memory of the run: of this process and of earlier ones that were killed."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = largest / 2**20 if sys.platform == "darwin" else largest / 2**10
    return {
        "seconds": earlier["seconds"] + time.monotonic() - began,
        "peak_memory_mib": max(earlier["peak_memory_mib"], peak),
    }
