"""The catalogue: names, options, cards, sources and losses of the user's own."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from loss_samples import CORRECTED, NAMES, PUBLISHED, build, sample

import losses
from losses.base import NO_OPTIONS

FOLDER = Path(losses.__file__).parent


# --- names and options ---------------------------------------------------------------------------


def test_names_are_sorted_and_hold_the_losses_of_the_study():
    assert sorted(NAMES) == NAMES
    assert len(PUBLISHED) == 17
    assert set(NAMES) >= {
        "combo",
        "cross_entropy",
        "dice",
        "dice_ce",
        "dice_focal",
        "focal",
        "focal_tversky",
        "generalized_dice",
        "generalized_dice_ce",
        "jaccard",
        "lovasz_softmax",
        "topk_cross_entropy",
        "tversky",
        "weighted_cross_entropy",
        "published_focal_mean_bce",
        "published_generalized_dice_answer",
        "published_generalized_dice_graph",
        "published_generalized_dice_written",
    }


def test_the_defaults_that_options_lists_are_the_defaults_of_create(name):
    options = losses.options(name)
    assert "ignore_index" in options
    given = {k: v for k, v in options.items() if v is not losses.REQUIRED}
    logits, labels = sample(4, 5)
    assert torch.equal(build(name, **given)(logits, labels), build(name)(logits, labels))


def test_options_are_read_through_the_classes_a_loss_is_built_on():
    assert dict(losses.options("focal_tversky")) == {
        "gamma": 4 / 3,
        "alpha": 0.3,
        "beta": 0.7,
        "include_background": True,
        "batch": False,
        "smooth_nr": 1e-5,
        "smooth_dr": 1e-5,
        "weight": None,
        "ignore_index": None,
        "reduction": "mean",
    }


def test_options_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        losses.options("dice")["batch"] = True


def test_no_two_losses_have_one_name(monkeypatch):
    monkeypatch.setattr(losses.catalogue._classes()["focal"], "name", "dice")
    with pytest.raises(RuntimeError, match="two losses are named 'dice'"):
        losses.catalogue._classes.__wrapped__()


def test_a_loss_prints_its_options():
    text = repr(losses.create("dice", smooth_nr=0.25))
    assert text.startswith("Dice(")
    assert "smooth_nr=0.25" in text
    assert "training" not in text


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown loss 'dise_ce'; did you mean 'dice_ce'"):
        losses.create("dise_ce")
    with pytest.raises(
        ValueError, match=r"unknown loss 'xyzzy'; available: asymmetric_similarity, "
    ):
        losses.card("xyzzy")
    with pytest.raises(TypeError, match="named by a string, got None"):
        losses.create(None)


def test_an_unknown_option_names_the_nearest_and_the_allowed(name):
    message = rf"loss '{name}' has no option 'ignore_idx'; did you mean 'ignore_index'.*options: "
    with pytest.raises(TypeError, match=message):
        losses.create(name, ignore_idx=0)


def test_a_missing_option_is_named():
    assert losses.options("weighted_cross_entropy")["weight"] is losses.REQUIRED
    with pytest.raises(TypeError, match="'weighted_cross_entropy' needs the option weight"):
        losses.create("weighted_cross_entropy")
    with pytest.raises(TypeError, match="needs weight"):
        losses.create("weighted_cross_entropy", weight=None)


# --- cards ---------------------------------------------------------------------------------------


def test_a_card_is_complete(name):
    card = losses.card(name)
    assert card.name == name
    for entry in dataclasses.fields(card):
        value = getattr(card, entry.name)
        if entry.name in {"seed", "twin", "reason", "runs_as_is"}:
            assert bool(value) or not card.published, entry.name
        else:
            assert value, entry.name
    assert dict(card.defaults) == dict(losses.options(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.title = "other"


def as_on_a_card(default):
    """An option's default as ``defaults_from`` writes it: 2, 0.3, 1e-5, 4/3, square, None."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return str(default)
    decimal = f"{default:g}"
    if float(decimal) != default:
        return str(Fraction(default).limit_denominator(10))
    return decimal.replace("e-0", "e-")


def test_a_card_says_of_every_default_where_it_comes_from(name):
    """ "option value, option value: origin; ...", each option once and with its real default.

    Options that all losses share need no origin where their default is the shared one as well.
    """
    shared = {
        "weight": None,
        "ignore_index": None,
        "reduction": "mean",
        "batch": False,
        "include_background": True,
    }
    own = {
        option: as_on_a_card(default)
        for option, default in losses.options(name).items()
        if option not in shared or default != shared[option]
    }
    text = losses.card(name).defaults_from
    if not own:
        assert text.startswith(NO_OPTIONS)
        return
    stated = []
    for part in text.split("; "):
        options, origin = part.split(": ", 1)
        assert re.search(r"ours|'s?\b|answer of document|as in \w", origin), part
        stated += [tuple(option.split(" ")) for option in options.split(", ")]
    assert sorted(stated) == sorted(own.items())
    assert f"defaults from  {text.split(' ')[0]}" in losses.card(name).text()


@pytest.mark.parametrize("name", CORRECTED)
def test_a_corrected_loss_cites_a_paper_that_can_be_found(name):
    card = losses.card(name)
    assert "doi:10." in card.paper or "arXiv:" in card.paper
    assert card.family in {"distribution", "region", "boundary", "compound"}
    assert card.seed is card.reason is card.runs_as_is is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_loss_and_its_twin_name_each_other(name):
    card = losses.card(name)
    assert name.startswith("published_")
    assert card.family == "as published"
    assert card.twin in CORRECTED
    assert name in losses.card(card.twin).twin
    assert all(seed in {"000", "001", "002", "003", "004"} for seed in card.seed.split(", "))


@pytest.mark.parametrize("name", CORRECTED)
def test_only_published_losses_start_with_published(name):
    assert not name.startswith("published")
    assert all(losses.card(twin).twin == name for twin in losses.card(name).twin)


def test_a_formula_renders_with_mathtext(name):
    figure = pytest.importorskip("matplotlib.figure")
    drawing = figure.Figure()
    drawing.text(0, 0.5, f"${losses.card(name).formula}$")
    drawing.savefig(io.BytesIO(), format="svg")


def test_a_formula_converts_to_mathml(name):
    converter = pytest.importorskip("latex2mathml.converter")
    mathml = converter.convert(losses.card(name).formula)
    assert mathml.startswith("<math")
    assert "\\" not in mathml  # a command it does not know would be left as it is


def test_a_card_prints_within_the_width_of_a_terminal(name):
    text = losses.card(name).text(width=80)
    assert text.startswith(name)
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(losses.card(name).title.split()) in " ".join(text.split())


def test_the_docstring_holds_formula_and_source_of_the_card(name):
    doc = type(build(name)).__doc__
    assert losses.card(name).formula in doc
    assert losses.card(name).paper in doc


# --- sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cross_entropy", {"distribution", "base", "reduction", "probabilities"}),
        ("dice", {"overlap", "base", "counts", "probabilities"}),
        ("generalized_dice", {"generalized_dice", "base", "counts", "probabilities"}),
        ("lovasz_softmax", {"lovasz", "base", "counts", "odds", "probabilities"}),
        ("dice_metric", {"differences", "overlap", "base", "counts", "probabilities"}),
        ("cl_dice", {"neighbourhood", "overlap", "base", "counts", "morphology", "probabilities"}),
        ("nacl", {"penalised", "base", "counts", "reduction", "probabilities"}),
        (
            "dice_ce",
            {"compound", "distribution", "generalized_dice", "overlap", "base", "counts", "odds"}
            | {"reduction", "sums", "probabilities"},
        ),
        *((name, {"as_published", "base"}) for name in PUBLISHED),
    ],
)
def test_sources_are_the_files_a_loss_consists_of(name, expected):
    found = losses.sources(name)
    assert {path.stem for path in found} == expected
    assert all(path.is_file() and path.parent == FOLDER for path in found)


IMPORTING = """
import importlib, sys, types
package = types.ModuleType("losses")
package.__path__ = [sys.argv[1]]
for own in sys.argv[2:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "losses"]:
        del sys.modules[name]
    sys.modules["losses"] = package
    importlib.import_module(f"losses.{own}")
    print(own, *[name.partition(".")[2] for name in sys.modules if name.startswith("losses.")])
"""


@pytest.fixture(scope="module")
def imported():
    """What comes with each module that has a loss, when it is imported alone."""
    modules = sorted({losses.sources(name)[0].stem for name in NAMES})
    command = [sys.executable, "-c", IMPORTING, str(FOLDER), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = map(str.split, done.stdout.splitlines())
    return {own: set(others) for own, *others in lines}


def test_sources_agree_with_what_python_really_imports(name, imported):
    sources = losses.sources(name)
    assert {path.stem for path in sources} == imported[sources[0].stem]


# --- the user's own losses -----------------------------------------------------------------------

OWN = '''
import torch
from torch import nn

from losses.base import About, SegmentationLoss


class Plain(nn.Module):
    """Mean of the logits, scaled."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, logits, labels):
        return self.scale * logits.mean()


class Ours(SegmentationLoss):
    """One minus the mean probability of the label."""

    about = About(title="True probability", family="user's own", formula="1 - p")

    def compute(self, logits, labels, valid):
        return 1 - logits.softmax(1).gather(1, labels.unsqueeze(1)).mean()


class Unary(nn.Module):
    def forward(self, logits):
        return logits.mean()


class NotCallable:
    pass


def function(logits, labels):
    return logits.mean()
'''


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "own_losses_of_a_test.py"
    path.write_text(OWN)
    return path


def test_a_users_loss_comes_from_a_file(own_file):
    logits, labels = sample(4, 5)
    name = f"{own_file}:Plain"
    assert losses.create(name, scale=2.0)(logits, labels) == 2 * logits.mean()
    assert dict(losses.options(name)) == {"scale": 1.0}
    assert losses.sources(name)[0] == own_file.resolve()
    card = losses.card(name)
    assert (card.title, card.family) == ("Mean of the logits, scaled.", "user's own")
    assert card.text().startswith(name)


def test_a_users_loss_comes_from_a_module(own_file, monkeypatch):
    monkeypatch.syspath_prepend(own_file.parent)
    logits, labels = sample(4, 5)
    name = f"{own_file.stem}:Ours"
    expected = build("published_generalized_dice_graph")(logits, labels)
    torch.testing.assert_close(losses.create(name)(logits, labels), expected)
    assert losses.card(name).title == "True probability"
    assert [path.name for path in losses.sources(name)] == [own_file.name, "base.py"]
    with pytest.raises(ValueError, match="labels must be 0 to 3"):
        losses.create(name)(logits, labels + 9)


def test_a_users_loss_is_not_added_to_the_catalogue(own_file):
    losses.create(f"{own_file}:Ours")
    assert losses.available() == NAMES


def test_an_edited_file_is_read_again(own_file):
    logits, labels = sample(4, 5)
    losses.create(f"{own_file}:Plain")
    own_file.write_text(OWN.replace("self.scale * logits", "100 + self.scale * logits"))
    assert losses.create(f"{own_file}:Plain")(logits, labels) > 90


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no_such_package.module:Class", ValueError, "module 'no_such_package' is not found"),
        ("no/such/file.py:Class", ValueError, "there is no file no/such/file.py"),
        ("{file}:Plane", ValueError, "has no class 'Plane'; did you mean 'Plain'.*its classes: "),
        ("{file}:function", ValueError, "is not a class, called 'function'"),
        ("{file}:Unary", TypeError, r"must be callable as loss\(logits, labels\), but: too many"),
        ("{file}:NotCallable", TypeError, r"must be callable as loss\(logits, labels\)"),
    ],
)
def test_a_users_loss_that_does_not_fit_is_refused_with_the_reason(own_file, name, error, message):
    with pytest.raises(error, match=message):
        losses.create(name.format(file=own_file))


def test_an_option_a_users_loss_does_not_have_is_refused(own_file):
    with pytest.raises(TypeError, match="has no option 'scales'; did you mean 'scale'"):
        losses.create(f"{own_file}:Plain", scales=2)


def test_a_file_that_cannot_be_imported_is_refused_with_its_error(tmp_path):
    path = tmp_path / "broken_loss_of_a_test.py"
    path.write_text("import torch\nraise RuntimeError('out of tea')\n")
    with pytest.raises(ValueError, match="cannot be imported: RuntimeError: out of tea"):
        losses.create(f"{path}:Any")
    path.write_text("class Broken(:\n")
    with pytest.raises(ValueError, match="cannot be imported: SyntaxError"):
        losses.create(f"{path}:Broken")


def test_the_package_imports_nothing_but_torch_and_the_standard_library():
    code = (
        "import sys; import torch; before = set(sys.modules); import losses; losses.available();"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'torch', 'losses'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
