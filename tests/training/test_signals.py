"""What a step tells each class: against identities of the softmax and against hand computation."""

import math

import pandas as pd
import pytest
import torch

import losses
from workflow.training import signals

NAMES = ("background", "large", "small")


def measured(loss, logits, labels):
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, labels), leaf)
    rows = signals.measure(loss, logits, gradient, labels, NAMES)
    return pd.DataFrame([(0, *row) for row in rows], columns=signals.COLUMNS).set_index("class")


@pytest.fixture
def batch():
    """Two images of three classes; the second lacks the small one."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((2, 3, 6, 6, 6), generator=generator)
    labels = torch.zeros((2, 6, 6, 6), dtype=torch.long)
    labels[:, :3, :3] = 1
    labels[0, 5, 5, 4:] = 2
    return logits, labels


def create(name, **options):
    return losses.create(name, **options)


def test_two_voxels_by_hand():
    # p = (.5, .25, .25) and (.25, .25, .5): of the classes background and small
    p = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    logits = p.log().T[None, :, :, None, None]
    labels = torch.tensor([0, 2])[None, :, None, None]
    table = measured(create("cross_entropy"), logits, labels)
    # the gradient of the mean cross-entropy is (p - g) / 2
    expected = pd.DataFrame(
        {
            "images": [1, 0, 1],
            "voxels": [1, 0, 1],
            "probability": [0.5, math.nan, 0.5],
            "slope": [0.25, math.nan, 0.25],
            "gradient_inside": [0.25, 0.0, 0.25],
            "gradient_outside": [0.125, 0.25, 0.125],
            "weight": math.nan,
        },
        index=pd.Index(NAMES, name="class"),
    )
    pd.testing.assert_frame_equal(table.drop(columns="step"), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "generalized_dice", "focal", "tversky"])
def test_inside_and_outside_make_the_whole_and_classes_push_against_each_other(batch, name):
    logits, labels = batch
    loss = create(name)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, labels), leaf)
    # moving all logits of a voxel alike changes no softmax, so the classes' gradients sum to 0
    assert gradient.sum(1).abs().max() < 1e-6 * gradient.abs().max()
    table = measured(loss, logits, labels)
    whole = table["gradient_inside"] + table["gradient_outside"]
    assert whole.to_numpy() == pytest.approx(gradient.abs().sum((0, 2, 3, 4)).numpy(), rel=1e-5)
    assert list(table["voxels"]) == [2 * 216 - 2 * 54 - 2, 2 * 54, 2]
    assert list(table["images"]) == [2, 2, 1]
    assert table["voxels"].sum() == labels.numel()


def test_where_a_class_fills_a_voxel_alone_its_gradient_is_all_inside(batch):
    logits, _ = batch
    table = measured(create("cross_entropy"), logits, torch.zeros((2, 6, 6, 6), dtype=torch.long))
    assert table.loc["background", "gradient_outside"] == 0
    others = table.drop(index="background")
    assert (others["gradient_inside"] == 0).all()
    assert table.loc["background", "gradient_inside"] == pytest.approx(
        others["gradient_outside"].sum(), rel=1e-5
    )


def test_slope_is_the_factor_of_every_gradient_through_the_softmax(batch):
    logits, labels = batch
    confident = 30.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    table = measured(create("dice"), confident, labels)
    assert table["probability"].to_numpy() == pytest.approx(1)
    assert (table["slope"] < 1e-9).all()
    assert (measured(create("dice"), logits, labels)["slope"] > 0.05).all()


def volumes(labels):
    return torch.stack([(labels == c).flatten(1).sum(1) for c in range(3)], 1).double()


def share(weights):
    return (weights / weights.sum(1, keepdim=True)).mean(0).numpy()


def weight(loss, batch):
    return measured(loss, *batch)["weight"].to_numpy()


def test_weights_of_the_rules_of_generalized_dice(batch):
    v = volumes(batch[1])
    known = v.clamp_min(1)
    there = v > 0
    square = known**-2 * there
    cases = {
        "zero": square,
        "max": torch.where(there, square, square.amax(1, keepdim=True)),
        "eps": torch.where(there, square, 1e-6),
        "relative": torch.where(there, square, 1e-6 * square.amax(1, keepdim=True)),
        "floor": v.clamp_min(100) ** -2,
        "skip": square[:1],
    }
    for absent, weights in cases.items():
        found = weight(create("generalized_dice", absent=absent), batch)
        assert found == pytest.approx(share(weights), rel=1e-5), absent
    lowest = square.masked_fill(~there, math.inf).amin(1, keepdim=True)
    capped = torch.minimum(known**-2, 10 * lowest)
    found = weight(create("generalized_dice", absent="cap", cap=10), batch)
    assert found == pytest.approx(share(capped), rel=1e-5)


def test_weights_over_the_batch_the_foreground_and_given_volumes(batch):
    v = volumes(batch[1])
    pooled = v.sum(0, keepdim=True) ** -2
    assert weight(create("generalized_dice", batch=True), batch) == pytest.approx(
        share(pooled), rel=1e-5
    )
    one = weight(create("generalized_dice", include_background=False, absent="zero"), batch)
    assert one[0] == 0
    foreground = v[:, 1:].clamp_min(1) ** -2 * (v[:, 1:] > 0)
    assert one[1:] == pytest.approx(share(foreground), rel=1e-5)
    given = weight(create("generalized_dice", volumes=[50, 40, 10], weighting="simple"), batch)
    inverse = 1 / torch.tensor([[50.0, 40.0, 10.0]])
    assert given == pytest.approx(share(inverse), rel=1e-5)
    uniform = weight(create("generalized_dice", weighting="uniform", absent="max"), batch)
    assert uniform == pytest.approx(1 / 3)


def test_an_image_that_no_class_has_a_weight_in_is_left_out(batch):
    logits, labels = batch
    labels[1] = 0
    table = measured(
        create("generalized_dice", include_background=False, absent="zero"), logits, labels
    )
    v = volumes(labels)[:1, 1:]
    assert table["weight"].to_numpy()[1:] == pytest.approx(share(v**-2), rel=1e-5)
    labels[0, labels[0] == 2] = 0
    skipped = measured(create("generalized_dice", absent="skip"), logits, labels)
    assert skipped["weight"].isna().all()


def test_weights_of_the_three_published_ones(batch):
    v = volumes(batch[1])
    graph = weight(create("published_generalized_dice_graph"), batch)
    assert graph == pytest.approx(1 / 3)
    written = weight(create("published_generalized_dice_written"), batch)
    assert written == pytest.approx(share(1 / (v.sum(0, keepdim=True) ** 2 + 1e-5)), rel=1e-5)
    answer = weight(create("published_generalized_dice_answer"), batch)
    assert answer == pytest.approx(share(torch.where(v > 0, v.clamp_min(1) ** -2, 1e-6)), rel=1e-5)


def test_a_class_that_no_image_has_gets_all_the_weight_as_written(batch):
    logits, labels = batch
    labels[labels == 2] = 0
    found = weight(create("published_generalized_dice_written"), (logits, labels))
    assert found[2] > 0.999


@pytest.mark.parametrize("own", ["tensor", "another method"])
def test_what_others_call_class_weights_is_no_weight_of_volumes(batch, own):
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if own == "tensor":
                self.class_weights = torch.ones(3)

        def forward(self, logits, labels):
            return torch.nn.functional.cross_entropy(logits, labels)

    loss = Mine() if own == "tensor" else create("exponential_logarithmic")
    assert hasattr(loss, "class_weights")
    assert measured(loss, *batch)["weight"].isna().all()
