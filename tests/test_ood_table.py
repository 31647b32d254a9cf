"""The table of several comparisons: text, JSON and picture."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as matplotlib_image
from ood_runs import GREY, save_run, untrained

from glow_jax.data import InMemory
from glow_jax.ood.comparison import Judge, Measured
from glow_jax.ood.images import Images
from glow_jax.ood.metrics import detection
from glow_jax.ood.plots import save_pairs
from glow_jax.ood.results import Comparison
from glow_jax.ood.scores import score_table
from glow_jax.ood.table import pair_rows, pairs_json

REPOSITORY = Path(__file__).resolve().parents[1]


def measured(name: str, bits: float, png: float) -> Measured:
    random = np.random.default_rng(len(name))
    images = InMemory(np.zeros((30, 8, 8, 1), np.uint8), np.empty((30, 0), np.int32))
    columns = {"bits_per_dim": random.normal(bits, 1, 30), "png": random.normal(png, 1, 30)}
    return Measured(Images(name, "test", images), columns)


@pytest.fixture(scope="module")
def comparisons() -> list[Comparison]:
    table = score_table(GREY)
    judge = Judge([table["likelihood"], table["png"]], None)
    bits_alone = Judge([table["likelihood"]], None)
    clothes, digits, noise = (
        measured("clothes", 3, 5),
        measured("digits", 2, 2),
        measured("n", 9, 9),
    )
    inside = judge.judge(clothes)
    return [
        judge.compare(inside, judge.judge(digits)),
        bits_alone.compare(inside, bits_alone.judge(noise)),
    ]


def test_rows_are_scores_and_columns_are_pairs(comparisons: list[Comparison]) -> None:
    head, likelihood, png = pair_rows(comparisons)
    assert list(head) == ["AUROC, in / out", "clothes / digits", "clothes / n", "worst"]
    auroc = comparisons[0].scores["likelihood"].detection.auroc
    assert likelihood[1] == f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]"
    assert auroc.value < 0.5 < comparisons[1].scores["likelihood"].detection.auroc.value
    assert likelihood[3] == "clothes / digits"
    assert (png[0], png[2], png[3]) == ("PNG level 9 alone, no flow", "", "clothes / digits")


def test_json_has_the_table_and_all_figures(comparisons: list[Comparison]) -> None:
    plain = json.loads(json.dumps(pairs_json(comparisons)))
    assert plain["pairs"] == ["clothes / digits", "clothes / n"]
    assert plain["auroc"]["png"]["pairs"][1] is None
    first = plain["comparisons"][0]["scores"]["likelihood"]
    assert plain["auroc"]["likelihood"]["pairs"][0] == first["auroc"]
    sets = measured("clothes", 3, 5), measured("digits", 2, 2)
    expected = detection(*(-one.columns["bits_per_dim"] for one in sets))
    assert first["aupr_out"]["value"] == expected.aupr_out.value
    assert first["fpr95_out"]["low"] == expected.fpr95_out.low


def test_the_picture_has_a_colour_for_each_figure(
    comparisons: list[Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.text", lambda *arguments, **_: drawn.append(arguments[1:])
    )
    save_pairs(tmp_path / "pairs.png", comparisons)
    shown = [("likelihood", 0), ("likelihood", 1), ("png", 0)]
    values = [comparisons[pair].scores[name].detection.auroc.value for name, pair in shown]
    assert [float(text[2]) for text in drawn] == pytest.approx(values, abs=5e-4)
    assert [text[:2] for text in drawn] == [(0, 0), (1, 0), (0, 1)]
    assert matplotlib_image.imread(tmp_path / "pairs.png")[..., :3].std() > 0.1


@pytest.mark.slow
def test_the_command_makes_one_table_of_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], randomise
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    ood_pairs = importlib.import_module("ood_pairs")
    runs = [save_run(tmp_path / "one", untrained())]
    runs.append(save_run(tmp_path / "two", randomise(untrained(), seed=2, scale=0.1)))
    flags = ["--ood_images", "40", "--scores", "likelihood", "png"]
    flags += ["--output", str(tmp_path / "table.json")]
    pairs = [f"{runs[0]}=noise,digits,constant", f"{runs[1]}=blurred:1"]
    monkeypatch.setattr(sys, "argv", ["ood_pairs.py", *pairs, *flags])
    ood_pairs.main()
    said = capsys.readouterr()
    assert said.err.count("note: digits are the run's own test images") == 1
    plain = json.loads((tmp_path / "table.json").read_text())
    assert plain["pairs"] == ["digits / noise", "digits / constant", "digits / blurred:1"]
    assert {one["in_distribution"]["images"] for one in plain["comparisons"]} == {40}
    assert plain["auroc"]["png"]["pairs"][0]["value"] > 0.99
    assert plain["auroc"]["png"]["pairs"][1]["value"] == 0
    assert (tmp_path / "table.png").stat().st_size > 1000
    monkeypatch.setattr(sys, "argv", ["ood_pairs.py", str(runs[0]), *flags])
    with pytest.raises(SystemExit):
        ood_pairs.main()
    assert "names no data set: give RUN=SET,SET,..." in capsys.readouterr().err
