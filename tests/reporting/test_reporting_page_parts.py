"""The parts of the page: what is missing, what is downloaded, what a drawing in a row shows."""

import base64
import gzip
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import write_study

from workflow.reporting import (
    answer,
    chart,
    corrections,
    downloads,
    failures,
    page,
    provenance,
    ranking,
    wording,
)
from workflow.reporting.drawn import BELOW, LEFT, MARGIN, PLOT, interval_bar, lines
from workflow.reporting.formula import compared
from workflow.reporting.study_tables import Study, read_study
from workflow.reporting.style import VERMILION

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


@pytest.fixture(scope="module")
def study(study_dir: Path) -> Study:
    return read_study(study_dir)


# The first screen


def test_safe_losses_are_those_without_any_broken_run(study: Study) -> None:
    assert answer.safe(study) == ["dice_ce", "dice", "generalized_dice"]
    told = {entry.about: entry.told for entry in answer.answers(study, [])}
    assert told["Safe here"].startswith("3 of 6 losses kept every class in every run on phantom")
    assert "Preliminary" not in told


def test_a_loss_is_told_as_broken_by_what_most_of_its_runs_lost(study: Study) -> None:
    told = {entry.about: entry.told for entry in answer.answers(study, [])}["Collapsed"]
    assert "1 loss learnt nothing" in told and "Generalized Dice graph (published)" in told
    # of Combo's three runs one diverged and one failed: one of two that have a score
    assert "1 loss lost a class in most runs: Cross entropy." in told
    assert "1 loss lost a class in some runs: Combo (published)." in told


def test_tiles_count_the_runs_that_kept_a_class(study: Study) -> None:
    rows = {row["loss"]: row for row in answer.glance(study)}
    assert [row["loss"] for row in answer.glance(study)] == study.losses
    assert rows["dice"]["kept"] == dict.fromkeys(study.classes, 3)
    assert rows["cross_entropy"]["kept"][study.classes[-1]] == 0
    assert rows["cross_entropy"]["tones"][study.classes[0]] == "kept"
    assert rows["cross_entropy"]["tones"][study.classes[-1]] == "lost"
    combo = rows["published_combo"]
    assert combo["runs"] == 2 and set(combo["tones"].values()) == {"mixed"}


# What is missing and what failed


def test_runs_that_the_study_asks_for_and_lacks_are_named(study: Study, study_dir: Path) -> None:
    assert failures.missing(study) == []
    runs = study.runs[(study.runs["loss"] != "dice") & (study.runs["seed"] != 2)]
    less = read_study(study_dir)
    less.runs = runs.reset_index(drop=True)
    gaps = failures.missing(less)
    assert failures.Missing("dice", (0, 1, 2)) in gaps
    assert failures.Missing("dice_ce", (2,)) in gaps
    assert sum(len(gap.seeds) for gap in gaps) == 8
    warned = failures.warnings(less, gaps)[0]
    assert (
        warned == "8 runs of the study, of 6 losses, left no result yet; 1 of these lack every run."
    )
    assert answer.answers(less, gaps)[0].told.startswith("8 runs of the study are missing")


def test_warning_where_losses_did_not_start_alike(study_dir: Path) -> None:
    study = read_study(study_dir)
    study.runs["initial_weights_sha256"] = study.runs["seed"].map("{:064x}".format)
    assert not any("same" in sentence for sentence in failures.warnings(study, []))
    digests = [row["initial_weights_sha256"] for row in provenance.seeds(study)]
    assert digests == [f"{seed:064x}" for seed in range(3)]
    study.runs.loc[study.runs["loss"] == "dice", "initial_weights_sha256"] = "f" * 64
    told = failures.warnings(study, [])[-1]
    assert told == "Not every loss did start from the same weights: seeds 0, 1 and 2."
    assert {row["initial_weights_sha256"] for row in provenance.seeds(study)} == {"not the same"}


def test_a_failed_run_is_shown_with_the_end_of_its_log(study: Study, tmp_path: Path) -> None:
    failed = study.runs[study.runs["status"] == "failed"].iloc[0]
    logs = tmp_path / "train" / str(failed["dataset"])
    logs.mkdir(parents=True)
    name = f"{failed['loss']}-lr-{failed['learning_rate']}-seed-{failed['seed']}.log"
    (logs / name).write_text("\n".join(f"line {number}" for number in range(100)))
    other = f"{failed['loss']}-lr-0.77-seed-{failed['seed']}.log"
    (logs / other).write_text("of another learning rate")
    rows = failures.troubled(study, tmp_path)
    assert [row["outcome"] for row in rows][:2] == ["failed", "diverged"]
    found = rows[0]["excerpt"].splitlines()
    assert found[-1] == "line 99" and len(found) == failures.LINES
    assert rows[1]["excerpt"] == ""  # its log is not there


# Tables inside the page


def test_downloads_hold_the_bytes_of_the_tables(study_dir: Path) -> None:
    found = {download.name: download for download in downloads.tables(study_dir)}
    tables = {file.name for file in (study_dir / "tables").glob("*.csv")}
    assert tables <= set(found)
    small = base64.b64decode(found["summary.csv"].link.partition("base64,")[2])
    assert small == (study_dir / "tables" / "summary.csv").read_bytes()
    large = [download for download in found.values() if download.packed]
    assert large and all(download.size > downloads.PLAIN for download in large)
    for download in large:
        content = (study_dir / "tables" / download.name).read_bytes()
        assert gzip.decompress(base64.b64decode(download.packed)) == content


def test_the_largest_table_is_left_out_where_the_page_would_grow_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x" * 3000)
    with gzip.open(tmp_path / "b.csv.gz", "wb") as file:
        file.write(b"y" * 30)
    found = downloads.pack([tmp_path / "a.csv", tmp_path / "b.csv.gz"], budget=2000)
    assert [(d.name, d.size, bool(d.link)) for d in found] == [
        ("a.csv", 3000, False), ("b.csv", 30, True),
    ]  # fmt: skip
    assert not found[0].packed


# Drawings


def test_an_interval_is_cut_at_the_ends_of_its_scale() -> None:
    code = interval_bar(0.5, -3.0, 9.0, tone="best")
    left, right = map(float, re.search(r'"range" x1="([\d.]+)" x2="([\d.]+)"', code).groups())
    scale = re.search(r'"scale" x1="([\d.]+)" x2="([\d.]+)"', code).groups()
    assert (left, right) == tuple(map(float, scale))
    assert float(re.search(r'cx="([\d.]+)"', code).group(1)) == pytest.approx((left + right) / 2)


def test_a_value_without_an_interval_is_a_dot_and_none_is_nothing() -> None:
    assert "range" not in interval_bar(0.5, math.nan, math.nan)
    assert interval_bar(math.nan, 0.0, 1.0) == ""
    assert 'class="zero"' in interval_bar(0.1, 0.0, 0.2, (-1, 1))


def test_words_of_a_plot_cannot_carry_markup() -> None:
    assert "<b>" not in lines([("published", [1.0, 0.5])], '"><b>', ("<b>", "<b>"))


def test_a_plot_names_its_highest_value_zero_and_its_ends() -> None:
    code = lines([("old", [0.0, 1.8e-6]), ("new", [1e-6, 0.0])], "", ("whole", "lost"))
    assert re.findall("<text[^>]*>([^<]*)<", code) == ["2 × 10⁻⁶", "0", "whole", "lost"]
    corners = [point for points in re.findall('points="([^"]*)"', code) for point in points.split()]
    x, y = zip(*(map(float, point.split(",")) for point in corners), strict=True)
    assert min(x) == LEFT and max(y) == PLOT[1] - BELOW and min(y) == MARGIN


# Corrections


def test_symbols_that_only_one_formula_has_are_marked() -> None:
    before, after = compared(r"L = 1 - \frac{1}{V + 10}", r"L = 1 - \frac{1}{V}")
    assert re.findall(r'class="changed">([^<]+)<', before) == ["+", "10"]
    assert "changed" not in after


def test_formulas_that_cannot_be_converted_are_compared_as_source() -> None:
    before, after = compared(r"\left(<b>", "x")
    assert before == r"<code>\left(&lt;b&gt;</code>"
    assert after.startswith("<math") and "changed" not in after


def gallery(falling: tuple[str, ...] = (), **gradients: dict[str, list[float]]) -> pd.DataFrame:
    """Gradients of losses by reference, as the gallery writes them.

    Values answer the course as they should, those of ``falling`` losses the other way.
    """
    return pd.DataFrame([
        {"loss": loss, "course": "shrinks", "reference": reference,
         "error": step / (len(values) - 1), "gradient": x,
         "value": step if (reference == "present") != (loss in falling) else -step}
        for loss, curves in gradients.items()
        for reference, values in curves.items()
        for step, x in enumerate(values)
    ])  # fmt: skip


GRADIENTS = {
    "old": {"present": [2.0, 4.0, 1.0], "absent": [0.0, 0.0, 0.0]},
    "new": {"present": [4.0, 2.0, 0.0], "absent": [1.0, 2.0, 3.0]},
}


def test_gradients_are_compared_at_their_largest() -> None:
    table = gallery(**GRADIENTS)
    told = corrections.gradient(table, "old", "new")["told"]
    assert told[0] == (
        "Where the structure is in the image, the largest gradients of both losses are equal."
    )
    assert told[1].endswith("the published loss has no gradient.")
    assert "25 % of the published" in told[2] and "0 % of the corrected" in told[2]
    table.loc[(table["loss"] == "old") & (table["reference"] == "present"), "gradient"] *= 3e-6
    assert "3 × 10⁻⁶ times" in corrections.gradient(table, "old", "new")["told"][0]
    assert corrections.gradient(table, "old", "another") is None
    assert corrections.gradient(pd.DataFrame(), "old", "new") is None


def test_a_loss_that_pulls_the_wrong_way_is_told_so_however_hard_it_pulls() -> None:
    told = corrections.gradient(gallery(("old",), **GRADIENTS), "old", "new")["told"]
    assert "the published loss pulls the wrong way (its value falls as" in told[0]
    assert "the published loss pulls the wrong way (its value rises as" in told[1]
    assert "corrected loss pulls" not in " ".join(told)
    assert "wrong" not in " ".join(corrections.gradient(gallery(**GRADIENTS), "old", "new")["told"])


def test_the_published_combo_of_the_reference_pulls_the_wrong_way() -> None:
    table = pd.read_csv(REFERENCE / "losses" / "gallery.csv")
    told = corrections.gradient(table, "published_combo", "combo")["told"]
    assert all("published loss pulls the wrong way" in sentence for sentence in told[:2])
    told = corrections.gradient(table, "published_dice_flat", "dice")["told"]
    assert "wrong" not in " ".join(told)


def test_what_differs_beside_the_defect_is_named_and_its_gradients_are_not_compared(
    study_dir: Path,
) -> None:
    study = read_study(study_dir)
    table = gallery(("published_combo",), **{
        "published_combo": GRADIENTS["old"], "dice_ce": GRADIENTS["new"]
    })  # fmt: skip
    cards = {card["label"]: card for card in study.cards}
    pair = "published_combo", "dice_ce"
    found = corrections.card(study, *pair, table)
    assert found["also"] == [] and "times" not in str(found["words"])
    assert "largest gradient" in found["gradient"]["told"][0]
    for label, alpha in (("published_combo", 0.5), ("dice_ce", None)):
        cards[label]["options"] = {"alpha": alpha, "batch": False, f"own_{label}": 1}
    found = corrections.card(study, *pair, table)
    assert found["also"] == ["alpha"] and ("Option alpha", "0.5", "none") in found["words"]
    told = " ".join(found["gradient"]["told"])
    assert "largest" not in told and "alpha differs too" in told
    assert "wrong way" in told  # which the option does not decide
    for label in pair:  # the same for both, and not what the gallery was made with
        cards[label]["options"] = {"alpha": 0.9, "batch": False}
    found = corrections.card(study, *pair, table)
    told = " ".join(found["gradient"]["told"])
    assert found["also"] == [] and "largest" not in told and "other options" in told


def test_an_interval_without_zero_that_holm_leaves_open_is_told_as_that(study_dir: Path) -> None:
    study = read_study(study_dir)
    pair = study.pairs()[0]
    rows = (study.comparisons["contrast"] == "correction") & (
        study.comparisons["endpoint"] == "mean_dice"
    )
    study.comparisons.loc[rows, ["difference", "low", "high", "p_holm"]] = [0.44, 0.19, 0.68, 0.064]
    told = corrections.measured(study, *pair)
    assert told.endswith("after Holm's correction (the interval is of this pair alone).")
    study.comparisons.loc[rows, "low"] = -0.1
    assert "Holm" not in corrections.measured(study, *pair)


def test_every_pair_has_a_card_with_the_gain_of_the_table(study: Study) -> None:
    cards = corrections.pairs(study, pd.DataFrame())
    assert [(c["published"]["loss"], c["corrected"]["loss"]) for c in cards] == study.pairs()
    for card in cards:
        found = study.contrast("correction", card["corrected"]["loss"], card["published"]["loss"],
                               "mean_dice")  # fmt: skip
        assert f"{abs(found['difference']):.2f}" in card["told"]


def test_the_committed_gallery_knows_the_pairs_of_the_reference() -> None:
    reference = read_study(REFERENCE / "default")
    table = pd.read_csv(REFERENCE / "losses" / "gallery.csv")
    cards = corrections.pairs(reference, table)
    assert cards and all(card["gradient"] for card in cards)


# One rate for all


def test_the_fixed_rate_is_shown_only_beside_the_same_cases_at_rates_of_their_own(
    study: Study, tmp_path: Path
) -> None:
    fixed = read_study(write_study(tmp_path / "fixed", seeds=3))
    assert ranking.at_one_rate(study, fixed)
    assert not ranking.at_one_rate(fixed, fixed)  # it has one rate itself
    assert not ranking.at_one_rate(study, study)
    rows = {row["loss"]: row for row in ranking.rows(study, fixed)}
    assert rows["dice"]["fixed"]["mean_dice"] == fixed.row("dice")["mean_dice"]
    assert "peak learning rate of 0.003" in ranking.fixed_notes(study, fixed)[0]
    fixed.config["splits"] = {"train": 0.5}
    assert not ranking.at_one_rate(study, fixed)


def test_kinds_tell_published_corrected_and_neither_apart(study: Study) -> None:
    kinds = {row["loss"]: row["kind"] for row in ranking.rows(study, None)}
    assert kinds["published_combo"] == "published"
    assert kinds["dice_ce"] == kinds["generalized_dice"] == "corrected"
    assert kinds["dice"] == "other" and kinds["all_background"] == "floor"


@pytest.mark.parametrize(
    ("rates", "tuned", "told"),
    [
        ([0.003, 0.003], False, "at a peak learning rate of 0.003"),
        ([0.001, 0.03], True, "at a peak learning rate of its own (0.001 to 0.03), chosen on "
         "validation from the same grid for each loss"),
        ([0.001, 0.03], False, "at a peak learning rate of its own (0.001 to 0.03), given in the "
         "configuration and not tuned in this study"),
        ([], False, ""),
    ],
)  # fmt: skip
def test_only_rates_that_the_study_tuned_are_told_as_chosen_by_it(
    rates: list[float], tuned: bool, told: str
) -> None:
    assert wording.learning_rates(pd.DataFrame({"learning_rate": rates}), tuned) == told


@pytest.mark.parametrize(
    ("value", "told"), [(4662203.34, "4,662,203"), (99.94, "99.9"), (0.0, "0.0"), (math.nan, "–")]
)
def test_a_large_volume_has_no_digit_behind_its_point(value: float, told: str) -> None:
    assert page._volume(value) == told


# The chart


def test_curves_are_those_of_the_table(study: Study) -> None:
    found = chart.curves({"made_up": study, "empty": Study("empty")}, study.losses)
    assert [loss["label"] for loss in found["losses"]] == study.losses
    assert [entry["name"] for entry in found["studies"]] == ["made_up"]
    runs = found["studies"][0]["runs"]
    run = runs[0]
    label, name = study.losses[run["loss"]], study.classes[0]
    rows = study.curves[
        (study.curves["loss"] == label) & (study.curves["seed"] == run["seed"])
        & (study.curves["quantity"] == "dice") & (study.curves["class"] == name)
    ].sort_values("step")  # fmt: skip
    assert run["steps"] == rows["step"].to_list()
    assert run["dice"][name] == pytest.approx(rows["value"].to_list(), abs=5e-5)
    lost = {(r["loss"], r["seed"]): r["lost"] for r in runs}
    assert lost[study.losses.index("cross_entropy"), 0] == [study.classes[-1]]
    assert chart.curves({"empty": Study("empty")}, []) == {}
    assert VERMILION not in found["colours"] and "" in found["colours"]  # kept for collapse


def test_the_reference_the_best_and_the_pairs_of_generalized_dice_are_drawn_first(
    study: Study,
) -> None:
    shown = chart.first_shown([study], study.losses)
    assert shown[0] == study.losses[0] and study.reference_loss in shown
    assert {"generalized_dice", "published_generalized_dice_graph"} <= set(shown)


def test_the_library_is_packed_whole_and_asks_for_nothing() -> None:
    code = gzip.decompress(base64.b64decode(chart.library()["packed"])).decode()
    assert "Copyright (c) Anaconda, Inc., and Bokeh Contributors" in code
    assert len(chart.library()["packed"]) < 1_000_000


# Provenance


def test_rerun_names_the_commit_and_the_resolved_study(study: Study) -> None:
    assert provenance.rerun(study.name, study.environment) == [
        "git checkout 0a1b2c3", f"snakemake --cores all --configfile {study.name}.yaml",
    ]  # fmt: skip
    odd = Study("a b", environment={"commit": "unknown; rm"})
    assert provenance.rerun(odd.name, odd.environment) == [
        "snakemake --cores all --configfile 'a b.yaml'"
    ]


def test_times_are_those_of_the_runs(study: Study) -> None:
    hours = study.runs["seconds"].sum() / 3600
    assert provenance.times(study).startswith(f"{hours:.1f} hours of runs in all")
