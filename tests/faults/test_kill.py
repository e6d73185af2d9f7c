"""``kill -9`` at any moment: the next call goes on, and ends as if nothing had happened."""

import hashlib
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import pytest
import torch

from tests.faults.killing import EVERY, STEPS, Job, Kill, run
from workflow.training.checkpoint import NEWEST, PART, PREVIOUS

STUDIES, LOSSES = ("adamw", "sgd"), ("dice_ce", "boundary", "noisy")


@pytest.fixture(scope="module")
def uninterrupted(make_job, tmp_path_factory):
    """What a job leaves when nothing happens to it; each is run once."""
    done = {}

    def find(job: Job, key: tuple) -> dict:
        if key not in done:
            out = tmp_path_factory.mktemp("uninterrupted")
            code, steps, scores = run(replace(job, out=out))
            assert (code, steps) == (0, STEPS)
            # the best weights may be the last
            assert scores in (TESTED, 2 * TESTED)
            done[key] = left(out) | {"scores": scores}
        return done[key]

    return find


def left(out: Path) -> dict:
    """Digests of all that a run leaves, times aside, and of its last state."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.name not in ("status.json", NEWEST) and not path.match(PART)
    }
    status = json.loads((out / "status.json").read_text())
    found["status"] = {
        key: value
        for key, value in status.items()
        if not any(word in key for word in ("second", "memory", "share", "commit"))
    }
    content = (out / NEWEST).read_bytes().partition(b"\n")[2]
    state = torch.load(io.BytesIO(content), weights_only=True)
    found["state"] = {
        name: digest(state[name]) for name in state if name not in ("seconds", "spent")
    }
    return found


def digest(value) -> str:
    """Of nested containers of tensors and numbers, bit for bit."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().numpy().tobytes()
        return hashlib.sha256(str(value.shape).encode() + content).hexdigest()
    if isinstance(value, dict):
        return digest([[key, digest(item)] for key, item in value.items()])
    if isinstance(value, list | tuple):
        value = [digest(item) for item in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def finish(job: Job, expected: dict, *, steps: int, scored: int = 0) -> None:
    """The next call trains no more than these steps and ends as the uninterrupted run did.

    Of the cases that were ``scored`` none is scored again.
    """
    done = run(job)
    assert done.code == 0
    assert done.steps <= steps
    assert done.scores == expected["scores"] - scored
    assert left(job.out) | {"scores": expected["scores"]} == expected


TESTED = 2  # cases, each a batch
WRITES = STEPS // EVERY
RENAMES = 2 * WRITES - 1  # a checkpoint takes its place, and all but the first move one
FILES = TESTED + 6  # scores with the last weights (and often the best), tables and predictions


def kills() -> list[tuple[str, str, Kill]]:
    """Seeded moments, each for one of the studies and losses."""
    draw = random.Random(2009)
    moments = [Kill("step", n) for n in draw.sample(range(1, STEPS + 1), 7)]
    moments += [Kill("rename", n) for n in draw.sample(range(1, RENAMES + FILES + 1), 8)]
    torn = draw.sample(range(1, WRITES + FILES + 1), 6)
    moments += [Kill("write", n, draw.random()) for n in torn]
    moments += [Kill("score", n) for n in range(1, TESTED + 1)]
    return [(draw.choice(STUDIES), LOSSES[i % len(LOSSES)], kill) for i, kill in enumerate(moments)]


def checkpointed(kill: Kill) -> int:
    """Steps that the newest whole checkpoint holds at that moment."""
    if kill.what == "step":
        return (kill.number - 1) // EVERY * EVERY
    if kill.what == "rename":
        return min(kill.number // 2 * EVERY, STEPS)
    return min((kill.number - 1) * EVERY, STEPS) if kill.what == "write" else STEPS


def scored(kill: Kill, everything: int) -> int:
    """Cases whose scores are whole files at that moment."""
    before = {"step": kill.number, "rename": RENAMES, "write": WRITES, "score": 0}[kill.what]
    return min(max(0, kill.number - 1 - before), everything)


def sampled(cases: list) -> list:
    """Every seventh is tried by ``make test``, the others by ``make test-faults``."""
    return [
        pytest.param(
            *case, id="-".join(map(str, case)), marks=[pytest.mark.faults] if i % 7 else []
        )
        for i, case in enumerate(cases)
    ]


@pytest.mark.parametrize(("study", "loss", "kill"), sampled(kills()))
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    make_job, uninterrupted, tmp_path, study, loss, kill
):
    job = make_job(study, loss, tmp_path)
    expected = uninterrupted(job, (study, loss))
    assert run(job, kill).code == -SIGKILL
    kept = scored(kill, expected["scores"])
    finish(job, expected, steps=STEPS - checkpointed(kill), scored=kept)


def truncate(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def flip_a_bit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def lose_a_page(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(max(1, len(content) - 4096))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    path.write_bytes(content)


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


DAMAGES = (flip_a_bit, truncate, lose_a_page, empty)


@pytest.mark.parametrize(
    ("damage", "seed"),
    [
        pytest.param(
            damage, seed, marks=[] if (damage, seed) == (flip_a_bit, 0) else [pytest.mark.faults]
        )
        for damage in DAMAGES
        for seed in range(2)
    ],
)
def test_a_damaged_checkpoint_costs_one_interval_more(
    make_job, uninterrupted, tmp_path, damage, seed
):
    job = make_job("adamw", "noisy", tmp_path)
    expected = uninterrupted(job, ("adamw", "noisy"))
    assert run(job, Kill("step", STEPS - 1)).code == -SIGKILL
    damage(tmp_path / NEWEST, random.Random(seed))
    finish(job, expected, steps=2 * EVERY)


@pytest.mark.faults
def test_if_both_checkpoints_are_damaged_the_run_starts_anew(make_job, uninterrupted, tmp_path):
    job = make_job("adamw", "dice_ce", tmp_path)
    expected = uninterrupted(job, ("adamw", "dice_ce"))
    assert run(job, Kill("step", STEPS - 1)).code == -SIGKILL
    for name in (NEWEST, PREVIOUS):
        truncate(tmp_path / name, random.Random(0))
    finish(job, expected, steps=STEPS)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_killed_again_and_again_gets_to_its_end(
    make_job, uninterrupted, tmp_path, seed
):
    draw = random.Random(seed)
    job = make_job("sgd", "noisy", tmp_path)
    expected = uninterrupted(job, ("sgd", "noisy"))
    for _ in range(5):
        what, most = draw.choice([("step", EVERY + 1), ("rename", 2), ("write", 2)])
        run(job, Kill(what, draw.randint(1, most), draw.random()))
    finish(job, expected, steps=STEPS)


def test_nothing_of_a_killed_writer_is_left(make_job, tmp_path):
    job = make_job("adamw", "dice_ce", tmp_path)
    assert run(job, Kill("write", 2)).code == -SIGKILL
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert run(job).code == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
