"""What every loss promises, on drawn inputs, and what those of the catalogue promise besides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import CLASSES, CORRECTED, NAMES, build, gradient, sample
from monai.data import MetaTensor
from torch.testing import assert_close

import losses
from losses import contract

IGNORED = 255

# Published losses whose defect is their treatment of ignored voxels, which is kept.
LEAK = contract.EXCEPTIONS["ignored_voxels"]
COUNTED = {
    **LEAK,
    "published_focal_weighted_probability": "ignored voxels stay in the divisor of the mean",
}
EMPTY_COUNTED = {
    **COUNTED,
    "published_lovasz_hinge": "an image without valid voxels counts as 0 in the mean over images",
}

FOREGROUND = {
    "asymmetric_unified_focal": "class 0 is suppressed, the others are enhanced",
    "cl_dice": "class 0 is left out by default",
    "unified_focal": "class 0 has its own factor in the focal term",
    "boundary": "class 0 is left out by default",
    "dice_boundary": "class 0 is left out of its boundary term",
    "dice_hausdorff": "class 0 is left out of its Hausdorff term",
    "generalized_wasserstein_dice": "only the other classes earn anything",
    "hausdorff_dt": "class 0 is left out by default",
    "hausdorff_erosion": "class 0 is left out by default",
    "historic_generalized_wasserstein_dice_monai": "only the other classes earn anything",
}
# Losses that do not want certainty.
CALIBRATED = {
    "label_smoothing_cross_entropy": "lowest where p is the smoothed label",
    "nacl": "lowest between certainty and logits near the shares of the neighbourhood",
}
MARGIN = {"lovasz_hinge": "0 beyond the margin"}


def without(exempt, names=NAMES):
    return pytest.mark.parametrize("name", [name for name in names if name not in exempt])


# --- the contract, which losses of the user's own are held to as well -----------------------------

SUBJECTS = {name: contract.subject(name) for name in NAMES}
APPLIED = [
    (check, name)
    for check in contract.CHECKS
    for name in NAMES
    if name not in contract.EXCEPTIONS.get(check, ())
]
EXCEPTED = [(check, name) for check, names in contract.EXCEPTIONS.items() for name in names]


@st.composite
def cases(draw):
    """Images in 2-D and 3-D, each with some of the classes, some voxels ignored."""
    classes = draw(st.integers(2, 5))
    some = st.sets(st.integers(0, classes - 1), min_size=1).map(lambda own: tuple(sorted(own)))
    lengths = draw(st.sampled_from([(5, 2), (4, 3)]))  # the largest, the number of axes
    return contract.Case(
        spatial=tuple(draw(st.integers(1, lengths[0])) for _ in range(lengths[1])),
        classes=classes,
        present=tuple(draw(st.lists(some, min_size=1, max_size=3))),
        ignored=draw(st.sampled_from([0.0, 0.2, 0.6])),
        scale=draw(st.sampled_from([0.1, 1.0, 3.0])),
        seed=draw(st.integers(0, 1000)),
    )


@pytest.mark.parametrize(("check", "name"), APPLIED)
def test_the_contract_holds_on_the_inputs_of_a_check_by_hand(check, name):
    for case in contract.CASES:
        contract.hold(check, SUBJECTS[name], case)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=3, deadline=None, database=None, derandomize=True)
@given(case=cases())
def test_the_contract_holds_on_drawn_inputs(name, case):
    findings = []
    for check in contract.CHECKS:
        if name not in contract.EXCEPTIONS.get(check, ()):
            try:
                contract.hold(check, SUBJECTS[name], case)
            except contract.Finding as finding:
                findings.append(f"{check}: {finding}")
    assert not findings


def test_more_voxels_than_float16_can_count(name):
    contract.hold("half_precision", SUBJECTS[name], contract.LARGE)


@pytest.mark.parametrize(("check", "name"), EXCEPTED)
def test_an_exception_is_needed(check, name):
    with pytest.raises(contract.Finding):
        for case in contract.CASES:
            contract.hold(check, SUBJECTS[name], case)


# --- shapes and dtypes ---------------------------------------------------------------------------


def test_a_loss_is_a_finite_scalar_in_one_dimension(name):
    value, slope = gradient(build(name), *sample(9))
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(slope).all()
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integer_dtype_of_labels_means_the_same(name, dtype):
    logits, labels = sample(4, 5)
    loss = build(name, ignore_index=IGNORED)
    assert_close(loss(logits, labels.to(dtype)), loss(logits, labels))


def test_a_three_dimensional_image_of_one_slice_equals_that_slice(name):
    logits, labels = sample(6, 5)
    loss = build(name)
    assert_close(loss(logits[..., None], labels[..., None]), loss(logits, labels))


def test_metatensors_mean_the_same_and_give_a_plain_tensor(name):
    logits, labels = sample(4, 3, 5)
    loss = build(name)
    value = loss(MetaTensor(logits), MetaTensor(labels))
    assert type(value) is torch.Tensor
    assert_close(value, loss(logits, labels))


# --- ignored voxels ------------------------------------------------------------------------------


@without(COUNTED)
def test_ignored_voxels_are_as_good_as_cropped_away(name):
    logits, labels = sample(4, 3, 6)
    masked = labels.clone()
    masked[..., 4:] = IGNORED
    expected = build(name)(logits[..., :4], labels[..., :4])
    assert_close(build(name, ignore_index=IGNORED)(logits, masked), expected)


@without(EMPTY_COUNTED)
def test_a_wholly_ignored_image_is_as_good_as_absent(name):
    logits, labels = sample(4, 5, batch=3)
    masked = labels.clone()
    masked[1] = IGNORED
    value, slope = gradient(build(name, ignore_index=IGNORED), logits, masked)
    assert_close(value, build(name)(logits[[0, 2]], labels[[0, 2]]))
    assert torch.isfinite(slope).all()


def test_ignore_index_may_be_a_class_and_changes_nothing_where_it_does_not_occur(name):
    logits, labels = sample(4, 5)
    expected = build(name)(logits, labels)
    assert torch.equal(build(name, ignore_index=-1)(logits, labels), expected)
    value, slope = gradient(build(name, ignore_index=2), logits, labels)
    assert torch.isfinite(value)
    if name not in LEAK:
        assert (slope.movedim(1, -1)[labels == 2] == 0).all()


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_a_value_in_float32(name, dtype):
    logits, labels = sample(4, 5)
    assert build(name)(logits.to(dtype), labels).dtype == torch.float32


def test_autocast_does_not_reach_inside(name):
    logits, labels = sample(8, 9)
    expected = build(name)(logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(build(name)(logits, labels), expected)


# --- meaning -------------------------------------------------------------------------------------


@without(CALIBRATED, CORRECTED)
def test_the_perfect_prediction_has_the_lowest_value(name):
    logits, labels = sample(4, 5, 3)
    perfect = 60.0 * torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    loss = build(name)
    lowest = -0.5 if name == "combo" else 0.0  # combo subtracts (1 - alpha) Dice
    if name in {"boundary", "dice_boundary"}:  # distances inside a class are below 0
        lowest = loss(perfect, labels).item()
    assert_close(loss(perfect, labels), torch.tensor(lowest), rtol=0, atol=1e-5)
    unsure = (0.01 if name in MARGIN else 0.05) * perfect
    for other in (logits, torch.zeros_like(logits), perfect.roll(1, 1), unsure):
        assert loss(other, labels) > lowest + 1e-3


@without(
    {
        "boundary": "the rim of a class costs as little as the background, whose phi is left out",
        "hausdorff_erosion": "an error that one erosion removes is free",
    },
    CORRECTED,
)
def test_descent_reaches_the_reference(name):
    logits, labels = sample(3, 4, batch=1)
    loss = build(name)
    logits = torch.nn.Parameter(0.1 * logits)
    adam = torch.optim.Adam([logits], lr=0.5)
    for _ in range(150):
        adam.zero_grad()
        loss(logits, labels).backward()
        adam.step()
    assert (logits.argmax(1) == labels).float().mean() > 0.9


@without({**FOREGROUND, "weighted_cross_entropy": "its class weights would have to move as well"})
def test_all_classes_are_treated_alike(name):
    logits, labels = sample(4, 6)
    order = torch.tensor([2, 0, 3, 1])
    loss = build(name)
    assert_close(loss(logits[:, order], order.argsort()[labels]), loss(logits, labels))


WEIGHTED = [n for n in NAMES if "weight" in losses.options(n)]


@pytest.mark.parametrize(
    "name", [n for n in WEIGHTED if n != "published_focal_weighted_probability"]
)
def test_only_ratios_of_class_weights_matter(name):
    logits, labels = sample(4, 6)
    weight = [0.1, 0.2, 0.3, 0.4]
    weighted = build(name, weight=weight)(logits, labels)
    assert_close(build(name, weight=[10 * w for w in weight])(logits, labels), weighted)
    uniform = build(name, weight=[3.0] * CLASSES)(logits, labels)
    assert not torch.isclose(weighted, uniform, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in WEIGHTED if n != "weighted_cross_entropy"])
def test_uniform_class_weights_equal_none(name):
    logits, labels = sample(4, 6)
    uniform = build(name, weight=[1.0] * CLASSES)(logits, labels)
    assert_close(uniform, build(name)(logits, labels))


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_loss_with_class_weights_moves_between_precisions(name):
    logits, labels = sample(4, 6, dtype=torch.float64)
    loss = build(name, weight=[1.0, 2.0, 3.0, 4.0])
    expected = loss(logits, labels)
    assert loss.double()(logits, labels).dtype == torch.float64
    assert_close(loss.half()(logits, labels), expected)


# --- reduction -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "cross_entropy",
        "weighted_cross_entropy",
        "focal",
        "generalised_cross_entropy",
        "label_smoothing_cross_entropy",
    ],
)
def test_voxel_losses_give_terms_sum_and_mean(name):
    logits, labels = sample(4, 6)
    labels[0, 1] = IGNORED
    terms = build(name, ignore_index=IGNORED, reduction="none")(logits, labels)
    assert terms.shape == labels.shape
    assert (terms[labels == IGNORED] == 0).all()
    weights = (labels != IGNORED).float()
    if name == "weighted_cross_entropy":
        weights = weights * (1 + labels)
    total = (weights * terms).sum()
    assert_close(build(name, ignore_index=IGNORED, reduction="sum")(logits, labels), total)
    assert_close(build(name, ignore_index=IGNORED)(logits, labels), total / weights.sum())


REGION = [
    name
    for name in NAMES
    if {"include_background", "batch", "weight", "reduction"} <= set(losses.options(name))
    and losses.card(name).family == "region"
]


@pytest.mark.parametrize("name", REGION)
def test_region_losses_give_a_term_for_each_image_and_class(name):
    logits, labels = sample(4, 6, batch=3)
    labels[1] = IGNORED
    options = dict(ignore_index=IGNORED)
    if name == "cl_dice":
        options["include_background"] = True
    terms = build(name, reduction="none", **options)(logits, labels)
    assert terms.shape == (3, CLASSES)
    assert (terms[1] == 0).all()
    assert_close(build(name, **options)(logits, labels), terms[[0, 2]].mean())
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighted = build(name, weight=weight, **options)(logits, labels)
    assert_close(weighted, (weight * terms[[0, 2]]).sum() / (2 * weight.sum()))
    foreground = build(name, **{**options, "include_background": False})(logits, labels)
    assert_close(foreground, terms[[0, 2], 1:].mean())
    pooled = build(name, batch=True, reduction="none", **options)(logits, labels)
    assert pooled.shape == (1, CLASSES)


def test_generalized_dice_gives_a_term_for_each_image():
    logits, labels = sample(4, 6, batch=3)
    labels[1] = IGNORED
    loss = build("generalized_dice", reduction="none", ignore_index=IGNORED)
    terms = loss(logits, labels)
    assert terms.shape == (3,)
    assert terms[1] == 0
    mean = build("generalized_dice", ignore_index=IGNORED)(logits, labels)
    assert_close(mean, terms[[0, 2]].mean())
    assert (loss(logits, torch.full_like(labels, IGNORED)) == 0).all()


# --- bad input -----------------------------------------------------------------------------------


def test_wrong_tensors_are_refused_by_name(name):
    logits, labels = sample(4, 6)
    loss = build(name)
    for wrong, error, message in [
        ((logits.long(), labels), TypeError, r"logits must be floating point, got torch.int64"),
        ((logits, labels.float()), TypeError, r"labels must be integer .* got torch.float32"),
        ((logits.numpy(), labels), TypeError, r"logits must be a torch.Tensor, got ndarray"),
        ((logits, labels[:1]), ValueError, r"\(2, 4, 6\) or \(2, 1, 4, 6\).*got \(1, 4, 6\)"),
        ((logits, labels[..., :5]), ValueError, r"got \(2, 4, 5\)"),
        ((logits, logits.long()), ValueError, r"labels must have shape"),
        ((logits[:, :1], labels), ValueError, r"at least 2 channels"),
        ((logits[0, 0], labels[0]), ValueError, r"logits must be \(B, C, \*spatial\)"),
        ((logits[..., :0], labels[..., :0]), ValueError, r"no voxel"),
        ((logits, labels + 2), ValueError, r"labels must be 0 to 3.*no ignore_index.*got 4, 5"),
        ((logits, labels - 1), ValueError, r"got -1"),
        ((logits, labels.to("meta")), ValueError, r"on cpu, but labels are on meta"),
    ]:
        with pytest.raises(error, match=message):
            loss(*wrong)


def test_a_label_out_of_range_beside_ignored_voxels_is_refused(name):
    logits, labels = sample(4, 6)
    labels[0, 0, 0], labels[0, 0, 1] = IGNORED, 7
    with pytest.raises(ValueError, match=r"ignored: 255\); got 7$"):
        build(name, ignore_index=IGNORED)(logits, labels)


@pytest.mark.parametrize("name", WEIGHTED)
def test_wrong_class_weights_are_refused(name):
    for wrong, error in [
        ([1.0, -1.0], ValueError),
        ([0.0, 0.0], ValueError),
        ([1.0, float("nan")], ValueError),
        ([[1.0, 2.0]], ValueError),
        (["a", "b"], TypeError),
    ]:
        with pytest.raises(error, match="weight must"):
            build(name, weight=wrong)
    with pytest.raises(ValueError, match="weight has 3 values, but logits have 4 classes"):
        build(name, weight=[1.0, 2.0, 3.0])(*sample(4, 6))


def test_options_of_the_wrong_type_or_range_are_refused(name):
    with pytest.raises(TypeError, match="ignore_index must be an integer label or None"):
        build(name, ignore_index=0.5)
    for option, default in losses.options(name).items():
        if isinstance(default, bool):
            with pytest.raises(TypeError, match=f"{option} must be True or False, got 'yes'"):
                build(name, **{option: "yes"})
        elif isinstance(default, float):
            with pytest.raises(TypeError, match=f"{option} must be a number, got '1e-5'"):
                build(name, **{option: "1e-5"})  # YAML reads 1e-5 as text
            with pytest.raises(ValueError, match=f"{option} must be >=? "):
                build(name, **{option: -1.0})
            with pytest.raises(ValueError, match=f"{option} must be"):
                build(name, **{option: float("nan")})
        elif isinstance(default, str):
            with pytest.raises(ValueError, match=f"{option} must be one of .*{default!r}"):
                build(name, **{option: "neither"})
