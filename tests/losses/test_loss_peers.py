"""Agreement with installed libraries, up to the differences that are documented."""

from __future__ import annotations

import monai
import pytest
import torch
from loss_samples import CLASSES, build, gradient, sample
from torch.testing import assert_close

SOFTMAX = dict(softmax=True, to_onehot_y=True)


def same(ours, peer, labels_too=True, factor=1.0, seed=0, labels=None):
    """Assert equal values and gradients; MONAI wants a channel in its labels.

    Without ``labels`` once where each image holds every class, once where the first lacks one.
    """
    logits, everything = sample(5, 4, 3, seed=seed, dtype=torch.float64)
    lacking = everything.clone()
    lacking[0] = lacking[0].clamp_max(CLASSES - 2)
    for given in (everything, lacking) if labels is None else (labels,):
        value, slope = gradient(ours, logits, given)
        peer_value, peer_slope = gradient(peer, logits, given.unsqueeze(1) if labels_too else given)
        # MONAI's focal loss computes in float32 whatever it is given
        tolerance = dict(rtol=1e-6, atol=1e-7) if peer_value.dtype == torch.float32 else {}
        assert_close(value, factor * peer_value.double(), **tolerance)
        assert_close(slope, factor * peer_slope, **tolerance)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("squared_pred", [True, False])
def test_dice_is_that_of_monai(include_background, batch, squared_pred):
    options = dict(include_background=include_background, batch=batch, squared_pred=squared_pred)
    same(build("dice", **options), monai.losses.DiceLoss(**options, **SOFTMAX))


@pytest.mark.parametrize("batch", [True, False])
def test_jaccard_is_that_of_monai(batch):
    peer = monai.losses.DiceLoss(jaccard=True, batch=batch, smooth_nr=0, smooth_dr=0, **SOFTMAX)
    same(build("jaccard", batch=batch, smooth_nr=0.0, smooth_dr=0.0), peer)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_tversky_is_that_of_monai(include_background, batch):
    options = dict(include_background=include_background, batch=batch, alpha=0.3, beta=0.7)
    same(build("tversky", **options), monai.losses.TverskyLoss(**options, **SOFTMAX))


@pytest.mark.parametrize("lacking", [None, 0, 1], ids=["none", "first", "second"])
@pytest.mark.parametrize("weighting", ["square", "simple", "uniform"])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_generalized_dice_is_that_of_monai(weighting, include_background, batch, lacking):
    _, labels = sample(5, 4, 3)
    labels[1][labels[1] == 3] = 0
    labels[1, 0, 0, 0] = 3  # so the largest weights of the two images are far apart
    if lacking is not None:
        labels[lacking][labels[lacking] == 2] = 0  # absent from one image, not from the batch
    # MONAI adds its smoothing to sums of 1/V, ours is in voxels: they agree without any.
    options = dict(include_background=include_background, batch=batch, smooth_nr=0.0, smooth_dr=0.0)
    peer = monai.losses.GeneralizedDiceLoss(w_type=weighting, **options, **SOFTMAX)
    same(build("generalized_dice", weighting=weighting, **options), peer, labels=labels)


@pytest.mark.parametrize("batch", [True, False])
def test_dice_ce_is_that_of_monai(batch):
    options = dict(batch=batch, lambda_dice=0.7, lambda_ce=1.3)
    same(build("dice_ce", **options), monai.losses.DiceCELoss(**options, **SOFTMAX))


def test_focal_is_that_of_monai_times_the_number_of_classes():
    peer = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
    same(build("focal"), peer, factor=CLASSES)
    peer = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=3.0, alpha=0.25)
    same(build("focal", gamma=3.0, alpha=0.25), peer, factor=CLASSES)


def test_cross_entropies_are_those_of_torch():
    weight = [0.1, 0.4, 0.2, 0.3]
    same(build("cross_entropy"), torch.nn.CrossEntropyLoss(), labels_too=False)
    peer = torch.nn.CrossEntropyLoss(torch.tensor(weight, dtype=torch.float64), ignore_index=2)
    for name in ("weighted_cross_entropy", "published_weighted_cross_entropy"):
        same(build(name, weight=weight, ignore_index=2), peer, labels_too=False)


def test_lovasz_and_focal_are_those_of_kornia():
    kornia = pytest.importorskip("kornia.losses")
    _, everything = sample(5, 4, 3)  # kornia averages over classes that are absent as well
    same(
        build("lovasz_softmax"),
        lambda z, y: kornia_lovasz(kornia, z, y),
        labels_too=False,
        labels=everything,
    )
    same(
        build("focal"),
        lambda z, y: kornia.focal_loss(z, y, alpha=None, gamma=2.0, reduction="mean"),
        labels_too=False,
        factor=CLASSES,
    )


def kornia_lovasz(kornia, logits, labels):
    """Per image; kornia is 2-D only, and pools the batch."""
    images = zip(logits, labels, strict=True)
    return torch.stack(
        [kornia.lovasz_softmax_loss(z.flatten(2)[None], y.flatten(1)[None]) for z, y in images]
    ).mean()


def test_label_smoothing_is_that_of_torch():
    peer = torch.nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=2)
    same(build("label_smoothing_cross_entropy", ignore_index=2), peer, labels_too=False)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_mcc_is_that_of_monai(include_background, batch):
    options = dict(include_background=include_background, batch=batch)
    peer = monai.losses.MCCLoss(**options, **SOFTMAX)
    same(build("mcc", **options), peer)
    _, labels = sample(5, 4, 3)
    same(build("mcc", **options), peer, labels=labels.clamp_max(CLASSES - 2))  # one class absent


def test_cl_dice_is_that_of_monai_for_one_foreground_class():
    """MONAI sums skeletons over all classes before its ratios: large classes hide small ones."""
    logits, labels = sample(9, 8, 7, classes=2, dtype=torch.float64)
    peer = monai.losses.SoftclDiceLoss(iter_=4, smooth=1e-12, include_background=False, **SOFTMAX)
    value, slope = gradient(build("cl_dice", classes=2, iterations=4), logits, labels)
    peer_value, peer_slope = gradient(peer, logits, labels.unsqueeze(1))
    assert_close(value, peer_value)
    assert_close(slope, peer_slope)


def test_nacl_is_that_of_monai_away_from_the_edge():
    """At the edge MONAI counts voxels outside the image as of no class: shares do not sum to 1."""
    logits, labels = sample(6, 5, dtype=torch.float64)
    _, slope = gradient(build("nacl"), logits, labels)
    peer = monai.losses.NACLLoss(classes=CLASSES, dim=2)
    _, peer_slope = gradient(peer, logits, labels)
    assert_close(slope[..., 1:-1, 1:-1], peer_slope[..., 1:-1, 1:-1])
    one = torch.zeros(1, 3, 3, dtype=torch.long)
    shares = peer.get_constr_target(one)[0, 0]
    assert_close(shares[1, 1], torch.tensor(1.0))
    assert_close(shares[0, 0], torch.tensor(4 / 9))
    z = logits[:1, :, :3, :3]
    cross = build("cross_entropy")(z, one)
    exact = torch.zeros(CLASSES, dtype=torch.float64)
    exact[0] = 1  # a single class has the share 1 everywhere
    penalty = (z - exact.view(-1, 1, 1)).abs().mean()
    assert_close(build("nacl")(z, one), cross + 0.1 * penalty)


def test_generalized_dice_focal_is_that_of_monai_but_for_its_sigmoid_focal_term():
    """Issue 8242: with softmax=True MONAI's focal term is still one-vs-rest sigmoid."""
    gdl = dict(lambda_gdl=0.7, lambda_focal=0.0, smooth_nr=0.0, smooth_dr=0.0)
    same(
        build("generalized_dice_focal", **gdl),
        monai.losses.GeneralizedDiceFocalLoss(**gdl, **SOFTMAX),
    )
    focal = dict(lambda_gdl=0.0, lambda_focal=1.0)
    theirs = monai.losses.GeneralizedDiceFocalLoss(**focal, **SOFTMAX)
    sigmoid = monai.losses.FocalLoss(to_onehot_y=True)
    same(lambda z, y: theirs(z, y.unsqueeze(1)), sigmoid)
    softmax = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True)
    same(build("generalized_dice_focal", **focal), softmax, factor=CLASSES)


def test_asymmetric_unified_focal_is_that_of_monai_for_two_classes():
    """MONAI's takes probabilities (issue 8603), drops classes above 1, and halves the focal sum."""
    logits, labels = sample(5, 4, 3, classes=2, dtype=torch.float64)
    options = dict(gamma=0.4, delta=0.6)
    focal = monai.losses.unified_focal_loss.AsymmetricFocalLoss(to_onehot_y=True, **options)
    tversky = monai.losses.unified_focal_loss.AsymmetricFocalTverskyLoss(
        to_onehot_y=True, **options
    )
    smooth = dict(smooth_nr=1e-7, smooth_dr=1e-7)
    for peer, factor, share in ((focal, 2, 1.0), (tversky, 1, 0.0)):
        ours = build("asymmetric_unified_focal", classes=2, lambda_focal=share, **options, **smooth)
        value, slope = gradient(ours, logits, labels)
        peer_value, peer_slope = gradient(
            lambda z, y, peer=peer: peer(z.softmax(1), y), logits, labels.unsqueeze(1)
        )
        assert_close(value, factor * peer_value)
        assert_close(slope, factor * peer_slope)


def test_lovasz_hinge_is_that_of_kornia_for_each_class_against_the_rest():
    kornia = pytest.importorskip("kornia.losses")
    logits, labels = sample(5, 4, dtype=torch.float64)

    def peer(z, y):
        odds = z.softmax(1).logit()
        each = [kornia.lovasz_hinge_loss(odds[:, [c]], (y == c).long()) for c in range(CLASSES)]
        return torch.stack(each).mean()

    value, slope = gradient(build("lovasz_hinge"), logits, labels)
    peer_value, peer_slope = gradient(peer, logits, labels)
    assert_close(value, peer_value)
    assert_close(slope, peer_slope)


def ignoring(index):
    """Labels of which a third is ignored; class 2 is absent from what is left of image 1."""
    _, labels = sample(5, 4, 3)
    labels[1][labels[1] == 2] = 0
    hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    return labels.masked_fill(hidden, index)


@pytest.mark.parametrize("index", [255, 3])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_ignored_voxels_are_left_out_as_in_monai(name, include_background, index):
    options = dict(include_background=include_background, smooth_nr=0.0, smooth_dr=0.0)
    if name == "tversky":
        options |= dict(alpha=0.3, beta=0.7)
    classes = {"dice": monai.losses.DiceLoss, "tversky": monai.losses.TverskyLoss}
    peer = classes[name](ignore_index=index, **options, **SOFTMAX)
    same(build(name, ignore_index=index, **options), peer, labels=ignoring(index))


def test_monai_focal_with_ignore_index_has_the_mean_that_it_lacks_without():
    """It divides by voxels if ``ignore_index`` is given, else by voxels times classes."""
    options = dict(use_softmax=True, to_onehot_y=True, gamma=2.0)
    peer = monai.losses.FocalLoss(ignore_index=255, **options)
    same(build("focal", ignore_index=255), peer, labels=ignoring(255))


def test_ignored_voxels_are_left_out_as_in_kornia_but_for_its_focal_mean():
    kornia = pytest.importorskip("kornia.losses")
    # every class present: kornia leaves an absent one out of the mean, so nothing acts against it
    labels = ignoring(255)[:1].repeat(2, 1, 1, 1)
    plain = dict(ignore_index=255, smooth_nr=0.0, smooth_dr=0.0)
    tiny = dict(eps=1e-12, ignore_index=255)

    def flat(loss, **options):  # kornia is 2-D only
        return lambda z, y: loss(z.flatten(3), y.flatten(2), **options)

    dice = flat(kornia.dice_loss, average="macro", **tiny)
    same(build("dice", **plain), dice, labels_too=False, labels=labels)
    tversky = flat(kornia.tversky_loss, alpha=0.3, beta=0.7, **tiny)
    same(build("tversky", **plain), tversky, labels_too=False, labels=labels)
    # kornia divides by the classes, and by the ignored voxels as well
    focal = flat(kornia.focal_loss, alpha=None, gamma=2.0, reduction="mean", ignore_index=255)
    factor = CLASSES * labels.numel() / (labels != 255).sum().item()
    same(build("focal", ignore_index=255), focal, labels_too=False, labels=labels, factor=factor)


def test_dice_focal_is_that_of_monai_but_for_its_sigmoid_focal_term():
    """Issue 8242, as in generalized_dice_focal; ``ignore_index`` is missing from MONAI's."""
    factors = dict(lambda_dice=0.7, lambda_focal=0.0)
    same(build("dice_focal", **factors), monai.losses.DiceFocalLoss(**factors, **SOFTMAX))
    softmax = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True)
    focal = build("dice_focal", lambda_dice=0.0, lambda_focal=1.0)
    same(focal, softmax, factor=CLASSES)
    labels = ignoring(255)
    both = build("dice_focal", lambda_dice=0.7, lambda_focal=1.3, ignore_index=255)
    dice, focal = (build(name, ignore_index=255) for name in ("dice", "focal"))
    same(both, lambda z, y: 0.7 * dice(z, y) + 1.3 * focal(z, y), labels_too=False, labels=labels)
