"""Numbers that papers and documentation print, and what our losses give for the same input.

Each value is as its source prints it, to the digits printed there. The numbers of the five
documents are in ``test_errata.py``.
"""

from __future__ import annotations

import pytest
import torch
from loss_samples import build, gradient
from torch.testing import assert_close


def at(probabilities):
    """(1, C, N) logits whose softmax is these rows, one for each voxel; 0 becomes 1e-30."""
    return torch.tensor(probabilities, dtype=torch.float64).clamp_min(1e-30).log().T[None]


def labels_of(values):
    return torch.tensor([values])


def hard(prediction, classes):
    """Logits of a certain prediction."""
    return 500 * torch.nn.functional.one_hot(torch.tensor([prediction]), classes).movedim(-1, 1)


EXACT = dict(smooth_nr=0.0, smooth_dr=0.0)


# --- papers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "times", "rel"), [(0.5, 4, 1e-9), (0.9, 100, 1e-9), (0.968, 1000, 0.03)]
)
def test_lin_2017_focal_loss_is_so_many_times_lower_than_cross_entropy(p, times, rel):
    """Section 3.2, arXiv:1708.02002: with gamma 2, 4 at p_t = .5, 100 at .9, 1000 at about .968."""
    logits, labels = at([[1 - p, p]]), labels_of([1])
    ratio = build("cross_entropy")(logits, labels) / build("focal", gamma=2.0)(logits, labels)
    assert ratio.item() == pytest.approx(times, rel=rel)


def test_szegedy_2016_smoothed_labels_of_imagenet():
    """Section 7, arXiv:1512.00567: H(q', p) = (1 - e) H(q, p) + e H(u, p), K = 1000, e = 0.1.

    So the loss is lowest, its gradient 0, at p = 0.9 + 0.1 / 1000 for the label.
    """
    classes, e = 1000, 0.1
    loss = build("label_smoothing_cross_entropy", classes=classes, label_smoothing=e)
    labels = labels_of([7])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, 1, generator=generator, dtype=torch.float64)
    log_p = logits.log_softmax(1)
    expected = (1 - e) * -log_p[0, 7, 0] + e * -log_p.mean()
    assert_close(loss(logits, labels), expected)
    best = [e / classes] * classes
    best[7] = 0.9001
    assert sum(best) == pytest.approx(1)
    assert gradient(loss, at([best]), labels)[1].abs().max() < 1e-12


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_zhang_2018_bounds_the_sum_of_the_loss_over_all_labels(q):
    """arXiv:1805.07836, on robustness: (C - C^(1-q)) / q <= sum over labels <= (C - 1) / q.

    The lower bound is attained by a uniform prediction, the upper one by a certain one; with q = 1
    they meet, which makes mean absolute error robust to noise.
    """
    classes = 10
    loss = build("generalised_cross_entropy", classes=classes, q=q)
    low, high = (classes - classes ** (1 - q)) / q, (classes - 1) / q

    def total(logits):
        return sum(loss(logits, labels_of([label])).item() for label in range(classes))

    drawn = torch.randn(1, classes, 1, generator=torch.Generator().manual_seed(0)).double()
    assert total(torch.zeros(1, classes, 1)) == pytest.approx(low, rel=1e-5)
    assert total(hard([3], classes).double()) == pytest.approx(high)
    assert low - 1e-9 <= total(drawn) <= high + 1e-9


def test_salehi_2017_tversky_index_with_alpha_plus_beta_one_is_f_beta():
    """arXiv:1706.05721; Hashemi et al., arXiv:1803.11078, train with beta = 1.5."""
    logits = at([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    labels = labels_of([0, 1, 2, 0])
    share = 1 / (1 + 1.5**2)
    tversky = build("tversky", classes=3, alpha=share, beta=1 - share, **EXACT)
    f_beta = build("asymmetric_similarity", classes=3, beta=1.5, **EXACT)
    assert_close(tversky(logits, labels), f_beta(logits, labels))


@pytest.mark.parametrize(("share", "published"), [(0.2, 0.975), (0.5, 0.909), (0.8, 0.714)])
def test_sun_2023_boundary_dou_of_two_equal_areas(share, published):
    """Figure 2, arXiv:2308.00220: alpha = .8, both areas 1, an overlap of .2, .5 and .8."""
    area = 1000  # long against its two ends, so alpha is at its largest, .8
    labels = torch.zeros(1, 4 * area, dtype=torch.long)
    labels[0, area : 2 * area] = 1
    prediction = labels.roll(round((1 - share) * area), 1)
    loss = build("boundary_dou", classes=2, include_background=False)
    value = loss(hard(prediction[0].tolist(), 2).double(), labels).item()
    assert value == pytest.approx(published, abs=1e-3)


# --- Keras ---------------------------------------------------------------------------------------

KERAS_BINARY = torch.tensor([-18.6, 0.51, 2.94, -12.8], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("cross_entropy", {}, 0.865),  # BinaryCrossentropy(from_logits=True)
        ("focal", {"gamma": 2.0}, 0.691),  # BinaryFocalCrossentropy(gamma=2, from_logits=True)
        ("focal", {"gamma": 3.0}, 0.647),  # the same, gamma=3
    ],
)
def test_keras_binary_cross_entropies(name, options, published):
    """keras.io: y_true = [0, 1, 0, 0], logits as above; two channels that differ by the logit."""
    logits = torch.stack([torch.zeros(4, dtype=torch.float64), KERAS_BINARY])[None]
    value = build(name, classes=2, **options)(logits, labels_of([0, 1, 0, 0])).item()
    assert value == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(("rows", "published"), [(slice(0, 2), 0.330), (slice(2, 4), 0.206)])
def test_keras_binary_focal_cross_entropy_of_probabilities(rows, published):
    """keras.io: y_true = [[0, 1], [0, 0]], y_pred = [[.6, .4], [.4, .6]], one value a row."""
    p, labels = [0.6, 0.4, 0.4, 0.6], [0, 1, 0, 0]
    logits = at([[1 - each, each] for each in p[rows]])
    value = build("focal", classes=2, gamma=2.0)(logits, labels_of(labels[rows])).item()
    assert value == pytest.approx(published, abs=5e-4)


KERAS_THREE = [[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]]


def test_keras_categorical_cross_entropy():
    """keras.io: y_true = [[0, 1, 0], [0, 0, 1]]."""
    value = build("cross_entropy", classes=3)(at(KERAS_THREE), labels_of([1, 2])).item()
    assert value == pytest.approx(1.177, abs=5e-4)


def test_keras_categorical_focal_cross_entropy():
    """keras.io: y_true = [[0, 1, 0], [0, 0, 1]], alpha = .25, gamma = 2; mean, and each alone."""
    loss = build("focal", classes=3, gamma=2.0, alpha=0.25)
    each = [3.2058331e-05, 4.6627346e-01]
    for row, label, published in zip(KERAS_THREE, (1, 2), each, strict=True):
        assert loss(at([row]), labels_of([label])).item() == pytest.approx(published, rel=2e-4)
    assert loss(at(KERAS_THREE), labels_of([1, 2])).item() == pytest.approx(0.23315276, abs=5e-7)


# --- nobrainer, MindSpore, MONAI -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published"), [("dice", 0.6), ("jaccard", 0.75), ("generalized_dice", 0.6)]
)
def test_nobrainer_losses_of_four_voxels(name, published):
    """nobrainer.losses: y_true = [0, 0, 1, 1], y_pred = [1, 1, 1, 0]."""
    loss = build(name, classes=2, include_background=False, **EXACT)
    logits = hard([1, 1, 1, 0], 2).double()
    assert loss(logits, labels_of([0, 0, 1, 1])).item() == pytest.approx(published)


def test_mindspore_squared_dice():
    """mindspore.nn.DiceLoss(smooth=1e-5): six numbers in the interval [0, 1] against 0 and 1."""
    p, labels = [0.2, 0.5, 0.3, 0.1, 0.9, 0.6], [0, 1, 1, 0, 0, 1]
    loss = build("dice", classes=2, squared_pred=True, include_background=False)
    value = loss(at([[1 - each, each] for each in p]), labels_of(labels)).item()
    assert value == pytest.approx(0.38596618, abs=1e-5)  # the place of its smoothing is not given


def test_mindspore_weighted_focal():
    """mindspore.nn.FocalLoss(weight=[1, 2], gamma=2): divided by the voxels, not their weights."""
    logits = torch.tensor([[0.8, 1.4], [0.5, 0.9], [1.2, 0.9]], dtype=torch.float64).T[None]
    labels, weight = [1, 1, 0], [1.0, 2.0]
    value = build("focal", classes=2, gamma=2.0, weight=weight)(logits, labels_of(labels)).item()
    rescaled = value * sum(weight[label] for label in labels) / len(labels)
    assert rescaled == pytest.approx(0.12516622, abs=5e-8)


def test_monai_dice_of_its_own_tests():
    """MONAI, tests of DiceLoss: softmax, background included, smoothing 1e-4."""
    logits = torch.tensor(
        [[[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    )
    labels = torch.tensor([[1, 0, 0], [1, 1, 0]])
    value = build("dice", classes=2, smooth_nr=1e-4, smooth_dr=1e-4)(logits, labels).item()
    assert value == pytest.approx(0.383713, abs=5e-7)


def test_monai_wasserstein_dice_of_a_perfect_prediction():
    """MONAI, GeneralizedWassersteinDiceLoss: the example of its documentation gives 0."""
    matrix = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]]
    for name in ("generalized_wasserstein_dice", "historic_generalized_wasserstein_dice_monai"):
        loss = build(name, classes=3, dist_matrix=matrix)
        value = loss(1000 * torch.eye(3).unsqueeze(2), torch.tensor([[0], [1], [2]]))
        assert value.item() == 0


# --- scikit-learn: a loss at a certain prediction is one minus the score --------------------------


@pytest.mark.parametrize(
    ("name", "options", "truth", "prediction", "published"),
    [
        # jaccard_score(average=None)
        ("jaccard", {}, [0, 1, 2, 2], [0, 2, 1, 2], [1.0, 0.0, 0.33]),
        # f1_score(average=None)
        ("dice", {}, [0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], [0.8, 0.0, 0.0]),
        # fbeta_score(average=None, beta=0.5)
        (
            "asymmetric_similarity",
            {"beta": 0.5},
            [0, 1, 2, 0, 1, 2],
            [0, 2, 1, 0, 0, 1],
            [0.71, 0.0, 0.0],
        ),
    ],
)
def test_scikit_learn_scores_of_each_class(name, options, truth, prediction, published):
    loss = build(name, classes=3, reduction="none", **EXACT, **options)
    scores = 1 - loss(hard(prediction, 3).double(), labels_of(truth))
    assert_close(scores, torch.tensor([published]).double(), rtol=0, atol=0.005)


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [("dice", {}, 0.267), ("asymmetric_similarity", {"beta": 0.5}, 0.238)],
)
def test_scikit_learn_macro_averages(name, options, published):
    """f1_score and fbeta_score(beta=0.5) with average='macro'."""
    loss = build(name, classes=3, **EXACT, **options)
    value = loss(hard([0, 2, 1, 0, 0, 1], 3).double(), labels_of([0, 1, 2, 0, 1, 2])).item()
    assert 1 - value == pytest.approx(published, abs=5e-4)


def test_scikit_learn_matthews_correlation():
    """matthews_corrcoef([+1, +1, +1, -1], [+1, -1, +1, +1]) is -0.33."""
    value = build("mcc", classes=2)(hard([1, 0, 1, 1], 2).double(), labels_of([1, 1, 1, 0])).item()
    assert 1 - value == pytest.approx(-0.33, abs=0.005)


def test_scikit_learn_log_loss():
    """log_loss(spam, ham, ham, spam), the probabilities of ham and of spam in each row."""
    rows = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]
    value = build("cross_entropy", classes=2)(at(rows), labels_of([1, 0, 0, 1])).item()
    assert value == pytest.approx(0.21616, abs=5e-6)
