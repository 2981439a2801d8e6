"""The page of `redense report`, in a real browser: it is drawn, offline, honest about its numbers
and safe to open."""

import csv
import html
import json
import re
import shlex
import shutil
import statistics
import sys
import types
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import chromium
import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait
from study_folder import LAYERS, MOMENTS, make_record, write_run, write_study

from redense import dsd
from redense.recipes.report import sections
from redense.report import page as report_module
from redense.report.page import report
from redense.runs.record import overlap
from redense.runs.sections import Section, Text
from redense.study.methods import METHODS, build_methods
from redense.study.summary import summarize_records
from redense.tensors.packing import pack

LOSSES = ("curve-1", "curve-2")  # validation and training loss
HOSTILE = """<img src=x onerror="alert(1)"></script><b>'&"{{7*7}}%{x}</b>"""


class Browser:
    """A headless Chromium that notes what it is told on the console and what it asks the network
    for."""

    def __init__(self, profile):
        self.shown = None
        self.driver = chromium.start(profile)

    def show(self, page):
        """A page that several tests share: each leaves it as it found it."""
        if self.shown != page:
            self.open(page)
            self.shown = page
        return self

    def open(self, page, width=1280):
        """A page afresh, in light colours."""
        self.shown = None
        chromium.set_window(self.driver, width)
        self.requests()
        self.driver.get(page.as_uri())
        WebDriverWait(self.driver, 60, 0.05).until(
            lambda _: self.run("return 'drawn' in document.documentElement.dataset")
        )
        return self

    def prefer(self, scheme):
        """Dark or light, as the user's system would say."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def console(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses asked for since the last call, but those of the page itself and of what lies
        inside it."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        sent = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]

    def traces(self, plot):
        """A drawn plot's traces as Plotly holds them."""
        script = (
            "return document.getElementById(arguments[0]).data.map(t => ({...t, visible: "
            "t.visible !== false}))"
        )
        return self.run(script, plot)

    def rows(self, table):
        """A table's body: a list of texts a row."""
        script = """return [...document.getElementById(arguments[0]).tBodies[0].rows]
            .map(row => [...row.cells].map(cell => cell.textContent.trim()))"""
        return self.run(script, table)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("studies") / "real", seeds=9)


@pytest.fixture(scope="module")
def page(study):
    return report([study])


def records_of(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*--*/record.json"))]


def scores_of(folder, split="test", metric="top1"):
    found = {}
    for record in records_of(folder):
        found.setdefault(record["method"], {})[record["seed"]] = record[split][metric]
    return found


def number(text):
    return float(text.replace("−", "-").replace(",", "").split()[0])


class Outline(HTMLParser):
    """The levels of a page's headings in order, its ids, and whether its elements are closed."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.ids = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.ids += [value for name, value in attrs if name == "id"]


# the study's page


def test_the_page_loads_without_a_console_message_or_a_network_request(browser, page):
    browser.open(page)
    assert browser.console() == []
    assert browser.requests() == [page.as_uri()]


def test_every_plot_is_drawn(browser, page):
    browser.show(page)
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    drawn = (
        "return [...document.querySelectorAll('.plot')].map(p => [p.id, "
        "p.querySelectorAll('svg.main-svg').length])"
    )
    WebDriverWait(browser.driver, 10).until(lambda _: all(count for _, count in browser.run(drawn)))
    plots = dict(browser.run(drawn))
    names = ("cost", "forest", "beside", "score", *LOSSES, "histograms", "overlap")
    assert plots.keys() == {f"g0-{name}" for name in names}
    browser.run("document.querySelectorAll('details').forEach(one => one.open = false)")
    assert browser.console() == []


def test_the_verdict_answers_the_pages_question_first(browser, page, study):
    browser.show(page)
    summary = summarize_records(records_of(study))
    assert browser.text("h1") == "Does dense-sparse-dense training help?"
    said = " ".join(browser.find("article section")[0].text.split())
    assert said.startswith(f"The verdict {summary.verdicts['dsd'].short_answer}. Over 9 seeds")
    for name in ("dsd", "dsdsd"):
        assert said.count(f"{summary.verdicts[name].short_answer}. ") == 1
        assert said.count(summary.verdicts[name].reason[1:]) == 1
    assert said.count(summary.choice.sentence) == 1


def test_effect_stands_against_cost_for_every_method(browser, page, study):
    browser.show(page)
    scores = scores_of(study)
    costs = {record["method"]: record["cost"]["epochs"] for record in records_of(study)}
    traces = {trace["name"]: trace for trace in browser.traces("g0-cost")}
    assert traces.keys() == scores.keys()
    for name, trace in traces.items():
        assert trace["y"] == pytest.approx([statistics.fmean(scores[name].values())])
        assert trace["x"][0] == pytest.approx(costs[name], abs=2)
    script = "return document.getElementById('g0-cost').layout.annotations.map(a => [a.text, a.y])"
    names = dict(browser.run(script))
    assert names.keys() == scores.keys()
    side_by_side = sorted(names[name] for name in names if costs[name] == 20)
    gaps = [b - a for a, b in pairwise(side_by_side)]
    low, high = browser.run("return document.getElementById('g0-cost').layout.yaxis.range")
    assert min(gaps) > 0.05 * (high - low)  # names that can be read


def test_the_loss_stands_beside_the_metric(browser, page, study):
    browser.show(page)
    rows = {name: (mean, difference) for name, mean, difference, _ in browser.rows("g0-other-0")}
    assert browser.text("#g0-other-0 caption") == "test loss, not judged"
    assert rows["dsd"] == ("0.3500", "+0.000")
    assert rows["lower_lr"][1] == "–"


def test_numbers_can_be_read_by_a_machine(browser, page, study):
    browser.show(page)
    (numbers,) = json.loads(browser.text("#numbers"))
    scores = scores_of(study)
    paired = [scores["dsd"][seed] - scores["lower_lr"][seed] for seed in range(9)]
    mine = numbers["comparison"]["methods"]["dsd"]
    assert mine["mean"] == pytest.approx(statistics.fmean(scores["dsd"].values()))
    assert mine["minus_control"]["mean"] == pytest.approx(statistics.fmean(paired))
    assert numbers["comparison"]["pick"] in scores
    with (study / "study.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(numbers["runs"]) == 72
    for row in rows:
        assert float(row["test_top1"]) == scores[row["method"]][int(row["seed"])]


def test_the_forest_plot_shows_the_paired_differences_of_the_records(browser, page, study):
    browser.show(page)
    scores = scores_of(study)
    traces = {trace["name"]: trace for trace in browser.traces("g0-forest") if trace.get("name")}
    seeds = {
        trace["y"][0]: trace["x"] for trace in browser.traces("g0-forest") if not trace.get("name")
    }
    assert traces.keys() == seeds.keys() == scores.keys() - {"lower_lr", "dense"}
    for name, trace in traces.items():
        paired = [scores[name][seed] - scores["lower_lr"][seed] for seed in range(9)]
        half = 2.306004135 * statistics.stdev(paired) / 3  # t, 8 degrees of freedom
        assert seeds[name] == pytest.approx(paired)
        assert trace["x"][0] == pytest.approx(statistics.fmean(paired))
        assert trace["error_x"]["array"][0] == pytest.approx(half)
        assert trace["error_x"]["arrayminus"][0] == pytest.approx(half)


def test_the_tables_hold_the_numbers_of_the_records(browser, page, study):
    browser.show(page)
    scores, records = scores_of(study), {(r["method"], r["seed"]): r for r in records_of(study)}
    for cell, epochs, seeds, mean, sd, difference, *_ in browser.rows("g0-scores"):
        name = next(name for name in scores if cell == name + METHODS[name].title)
        mine = list(scores[name].values())
        assert (number(epochs), int(seeds)) == (records[name, 0]["cost"]["epochs"], len(mine))
        assert (mean, sd) == (f"{statistics.fmean(mine):.3f}", f"{statistics.stdev(mine):.3f}")
        if name != "lower_lr":
            paired = [scores[name][seed] - scores["lower_lr"][seed] for seed in range(9)]
            assert difference == f"{statistics.fmean(paired):+.3f}".replace("-", "−")
    rows = browser.rows("g0-runs")
    assert len(rows) == len(records)
    for name, seed, test, valid, test_loss, valid_loss, seconds, epochs, examples in rows:
        record = records[name, int(seed)]
        assert (test, valid) == (f"{record['test']['top1']:.3f}", f"{record['valid']['top1']:.3f}")
        assert (test_loss, valid_loss) == ("0.3500", f"{record['valid']['loss']:.4f}")
        assert seconds == f"{record['seconds']:,.1f}"
        assert (number(epochs), number(examples)) == (
            record["cost"]["epochs"],
            record["cost"]["examples"],
        )


def test_the_curves_are_the_mean_of_the_histories_in_a_band_of_one_sd(browser, page, study):
    browser.show(page)
    histories = [record["history"] for record in records_of(study) if record["method"] == "dsd"]
    for plot, key in (
        ("score", "valid_top1"),
        ("curve-1", "valid_loss"),
        ("curve-2", "train_loss"),
    ):
        band, line = (trace for trace in browser.traces(f"g0-{plot}") if trace["meta"] == "dsd")
        columns = [[row[key] for row in rows] for rows in zip(*histories, strict=True)]
        assert line["x"] == list(range(1, 21))
        assert line["y"] == pytest.approx([statistics.fmean(column) for column in columns])
        upper = [statistics.fmean(column) + statistics.stdev(column) for column in columns]
        assert band["y"][:20] == pytest.approx(upper)


def test_the_page_says_that_an_averaged_methods_curve_is_not_its_score(page, tmp_path):
    assert "before they are averaged" in page.read_text()
    other = write_study(tmp_path / "other", ("dense", "lower_lr", "dsd"), seeds=2)
    assert "before they are averaged" not in report([other]).read_text()


def test_the_sparse_phase_is_shaded_from_its_first_epoch_to_its_last(browser, page):
    browser.show(page)
    shapes = browser.run(
        "return document.getElementById('g0-score').layout.shapes.filter(s => s.type === 'rect')"
    )
    assert [(shape["x0"], shape["x1"]) for shape in shapes] == [(8.5, 14.5)]


def test_growth_and_overlap_are_means_over_seeds(browser, page, study):
    browser.show(page)
    mine = [record for record in records_of(study) if record["method"] == "dsdsd"]
    grown = [row for row in browser.rows("g0-released") if row[0] == "dsdsd"]
    assert [row[1] for row in grown] == ["sparse 1 → redense 1", "sparse 2 → redense 2"]
    ratios = [
        one["released"][1]["mean_released"] / one["released"][1]["mean_survivors"] for one in mine
    ]
    assert number(grown[1][6]) == pytest.approx(100 * statistics.fmean(ratios), abs=0.051)
    (trace,) = browser.traces("g0-overlap")
    layers = [record["mask_overlap"][0]["layers"] for record in mine]
    assert trace["y"] == list(LAYERS)
    assert trace["x"] == pytest.approx(
        [statistics.fmean(one[name] for one in layers) for name in LAYERS]
    )
    assert browser.rows("g0-overlaps")[0][5] == "17.6 %"  # 0.3 * 0.3 / (0.3 + 0.3 - 0.3 * 0.3)


def test_a_method_can_be_switched_off_and_on_in_all_curves(browser, page):
    browser.show(page)
    button = next(one for one in browser.find(".legend button") if one.text == "dsd")

    def visible(plot):
        return {trace["meta"] for trace in browser.traces(plot) if trace["visible"]}

    everyone = visible("g0-score")
    assert "dsd" in everyone
    for expected, pressed in ((everyone - {"dsd"}, "false"), (everyone, "true")):
        browser.run("arguments[0].click()", button)
        assert button.get_attribute("aria-pressed") == pressed
        assert {*map(frozenset, map(visible, ("g0-score", "g0-curve-1", "g0-curve-2")))} == {
            frozenset(expected)
        }


def test_the_close_up_can_be_left_for_the_whole_range(browser, page, study):
    browser.show(page)
    lowest = min(row["valid_top1"] for record in records_of(study) for row in record["history"])
    span = "return document.getElementById('g0-score').layout.yaxis.range"
    assert browser.run(span)[0] > lowest
    browser.run("document.querySelector('.range input').click()")
    assert browser.run(span)[0] < lowest
    browser.run("document.querySelector('.range input').click()")
    assert browser.run(span)[0] > lowest


def test_the_histograms_of_every_layer_are_those_of_the_file(browser, page, study):
    browser.show(page)
    layers = json.loads((study / "random_dsd--0" / "histograms.json").read_text())
    Select(browser.find("#g0-run")[0]).select_by_value("random_dsd, seed 0")
    assert (
        browser.run("return document.getElementById('g0-layer').value") == "hidden.weight"
    )  # the largest
    for name in LAYERS:
        Select(browser.find("#g0-layer")[0]).select_by_value(name)
        traces = browser.traces("g0-histograms")
        assert [trace["name"] for trace in traces] == list(MOMENTS)
        for trace in traces:
            counts = layers[name]["moments"][trace["name"]]
            assert trace["customdata"] == counts
            assert trace["y"] == pytest.approx(
                [count / layers[name]["weights"] for count in counts]
            )


def test_the_runs_can_be_sorted_both_ways(browser, page):
    browser.show(page)
    heading = browser.find("#g0-runs thead th")[2]
    for direction, sign in (("ascending", 1), ("descending", -1)):
        browser.run("arguments[0].querySelector('button').click()", heading)
        column = [sign * number(row[2]) for row in browser.rows("g0-runs")]
        assert column == sorted(column)
        assert heading.get_attribute("aria-sort") == direction


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desk_and_follows_the_scheme(browser, page, width):
    browser.open(page, width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    widest = (
        "return Math.max(...[...document.querySelectorAll('.plot svg')].map(s => "
        "s.getBoundingClientRect().right))"
    )
    assert browser.run(widest) <= width
    lines = set()
    for scheme, paper, ink in (
        ("light", "rgb(253, 252, 250)", "rgb(29, 33, 38)"),
        ("dark", "rgb(22, 24, 28)", "rgb(233, 230, 224)"),
    ):
        browser.prefer(scheme)
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == paper
        label = "return getComputedStyle(document.querySelector('#g0-forest .ytick text')).fill"
        WebDriverWait(browser.driver, 10, 0.05).until(
            lambda _, ink=ink, label=label: browser.run(label) == ink
        )
        lines.add(browser.traces("g0-score")[-1]["line"]["color"])
    assert len(lines) == 2


def test_colours_stand_out_from_the_paper_in_both_schemes(browser, page):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    browser.show(page)
    for scheme in ("dark", "light"):
        browser.prefer(scheme)
        script = (
            "return getComputedStyle(document.documentElement).getPropertyValue('--' + "
            "arguments[0]).trim()"
        )
        paper = luminance(browser.run(script, "paper"))
        for name, least in (
            {"ink": 7, "muted": 4.5, "accent": 4.5} | {f"c{i}": 3 for i in range(8)}
        ).items():
            light, dark = sorted((luminance(browser.run(script, name)), paper), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (scheme, name)


def test_print_is_light_and_shows_what_is_folded(browser, page):
    browser.show(page).prefer("dark")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return [...document.querySelectorAll('details')].every(one => one.open)")
    colour = "return getComputedStyle(document.querySelector('#g0-beside .ytick text')).fill"
    assert browser.run(colour) == "rgb(29, 33, 38)"
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert not browser.run("return [...document.querySelectorAll('details')].some(one => one.open)")
    browser.prefer("light")


def test_nothing_is_cut_without_a_hint(browser, page):
    wide = """return [...document.querySelectorAll('table')]
        .filter(t => t.offsetParent && t.getBoundingClientRect().right > innerWidth)
        .filter(t => !t.closest('.scroll')).length"""
    browser.open(page, 390)
    assert browser.run(wide) == 0
    assert "72 rows, scroll for all" in browser.text("#g0-runs caption")
    browser.open(page, 680)  # an A4 page between its margins
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.run("dispatchEvent(new Event('beforeprint'))")
    cut = """return [...document.querySelectorAll('.scroll')].filter(box =>
        box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > innerWidth).length"""
    assert browser.run(cut) == 0
    assert not browser.find("#g0-runs .many")[0].is_displayed()
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_headings_descend_one_by_one_and_no_id_comes_twice(page, study, tmp_path):
    other = write_study(tmp_path / "other", ("dense", "lower_lr", "dsd"), seeds=2, name="mnist")
    for text in (page.read_text(), report([study, other], tmp_path / "two.html").read_text()):
        outline = Outline(text)
        assert outline.levels[0] == 1
        assert outline.levels.count(1) == 1
        assert all(b - a <= 1 for a, b in zip(outline.levels, outline.levels[1:], strict=False))
        assert len(outline.ids) == len(set(outline.ids))


def test_every_plot_has_a_name_and_a_table(page):
    text = page.read_text()
    plots = re.findall(r'<div class="plot"[^>]*>', text)
    assert len(plots) == 8
    assert all(re.search(r'role="img" aria-label="[^"]+"', plot) for plot in plots)
    assert text.count("<table") >= 8


def test_the_page_stays_below_six_megabytes_with_a_hundred_layers(tmp_path):
    folder = write_study(tmp_path / "deep", seeds=6, sparsities=(0.2, 0.5))
    layer = json.loads((folder / "dsd@0.2--0" / "histograms.json").read_text())["hidden.weight"]
    for file in folder.glob("*--*/histograms.json"):
        file.write_text(json.dumps({f"blocks.{number}.weight": layer for number in range(100)}))
    assert report([folder]).stat().st_size < 6e6


# other pages


def test_a_study_with_too_few_seeds_says_so_and_gives_no_verdict(tmp_path):
    text = report(
        [write_study(tmp_path / "few", ("dense", "lower_lr", "dsd"), seeds=3)]
    ).read_text()
    assert "Too few seeds (3)" in text
    assert "it takes at least 7 seeds" in text


def test_a_study_of_one_seed_says_why_there_is_no_verdict(browser, tmp_path):
    folder = write_study(tmp_path / "one", ("dense", "lower_lr", "dsd"), seeds=1)
    browser.open(report([folder]))
    assert "No verdict: " in browser.text(".verdict")
    assert "at least 2 are needed" in browser.text(".verdict")
    assert browser.traces("g0-score")
    assert not browser.find("#g0-forest")
    assert browser.console() == []


def test_where_lower_is_better_the_better_side_is_the_left(browser, tmp_path):
    folder = write_study(
        tmp_path / "wer",
        ("dense", "lower_lr", "dsd"),
        seeds=7,
        metric="wer",
        higher=False,
        unit="%",
    )
    browser.open(report([folder]))
    scores = scores_of(folder, metric="wer")
    (mean,) = [trace for trace in browser.traces("g0-forest") if trace.get("name") == "dsd"]
    assert mean["x"][0] == pytest.approx(
        statistics.fmean(scores["dsd"][s] - scores["lower_lr"][s] for s in range(7))
    )
    notes = browser.run(
        "return document.getElementById('g0-forest').layout.annotations.map(a => [a.text, a.x])"
    )
    assert notes == [["worse →", 1], ["← better", 0]]
    assert "Lower is better." in browser.text("article")
    (dsd_row,) = [
        row for row in browser.rows("g0-differences") if row[0] == "dsddense-sparse-dense"
    ]
    assert number(dsd_row[1]) < 0  # the dense net errs more
    assert dsd_row[4] == "100 % of seeds"


def test_a_single_run_shows_its_result_curves_histograms_and_record(browser, tmp_path):
    plan = dsd(4, 2, 2, 0.5, decay="cosine")
    folder = write_run(tmp_path / "images-1", record := make_record("dsd", 3, plan))
    browser.open(report([folder]))
    assert browser.console() == []
    assert f"test top1 {record['test']['top1']:.4g} points" in browser.text(".verdict")
    assert "One run cannot say whether dense-sparse-dense helps" in browser.text(".verdict")
    assert browser.traces("g0-score")[0]["y"] == pytest.approx(
        [row["valid_top1"] for row in record["history"]]
    )
    assert len(browser.traces("g0-histograms")) == 5
    assert len(browser.rows("g0-runs")) == 1
    assert not browser.find("#g0-forest")
    assert not browser.find("pre")
    assert "The command was not stored when this run began" in browser.text("article")


def test_single_runs_of_one_task_are_shown_together_and_others_apart(browser, tmp_path):
    plan = dsd(4, 2, 2, 0.5)
    folders = [write_run(tmp_path / f"images-{n}", make_record("dsd", 0, plan)) for n in (1, 2)]
    third = make_record("dsd", 0, plan)
    third["data"]["sha256"] = "other"
    folders.append(write_run(tmp_path / "images-3", third))
    browser.open(report(folders, tmp_path / "page.html"))
    assert len(browser.find("article")) == 2
    assert {trace["meta"] for trace in browser.traces("g0-score")} == {
        str(folder) for folder in folders[:2]
    }
    assert browser.console() == []


def test_several_studies_share_a_page_and_its_contents_name_them(browser, study, tmp_path):
    other = write_study(tmp_path / "other", ("dense", "lower_lr", "dsd"), seeds=3, name="mnist")
    browser.open(report([study, other], tmp_path / "both.html"))
    assert [link.text for link in browser.find("nav a")] == ["real", "other"]
    assert (len(browser.rows("g0-runs")), len(browser.rows("g1-runs"))) == (72, 9)
    browser.run("document.querySelector('#g1 .legend button').click()")
    assert all(trace["visible"] for trace in browser.traces("g0-score"))
    assert not all(trace["visible"] for trace in browser.traces("g1-score"))
    assert browser.console() == []


def test_several_sparsities_are_told_apart_by_their_dashes(browser, tmp_path):
    folder = write_study(
        tmp_path / "levels", ("dense", "lower_lr", "dsd"), seeds=2, sparsities=(0.3, 0.5)
    )
    browser.open(report([folder]))
    lines = {
        t["name"]: t["line"]
        for t in browser.traces("g0-score")
        if t.get("name", "").startswith("dsd@")
    }
    assert lines.keys() == {"dsd@0.3", "dsd@0.5"}
    assert lines["dsd@0.3"]["color"] == lines["dsd@0.5"]["color"]
    assert lines["dsd@0.3"]["dash"] != lines["dsd@0.5"]["dash"]


def test_without_histograms_growth_and_overlap_that_section_is_left_out(browser, tmp_path):
    folder = write_study(tmp_path / "bare", ("dense", "lower_lr", "dsd"), seeds=2)
    for file in folder.glob("*/record.json"):
        record = json.loads(file.read_text())
        del record["mask_overlap"], record["released"]
        file.write_text(json.dumps(record))
    for file in folder.glob("*/histograms.json"):
        file.unlink()
    browser.open(report([folder]))
    assert browser.console() == []
    assert "What happened to the weights" not in browser.text("main")
    assert browser.traces("g0-score")


def test_a_diverged_run_leaves_the_page_readable(browser, tmp_path):
    folder = write_study(tmp_path / "nan", ("dense", "lower_lr", "dsd"), seeds=2)
    file = folder / "dsd--0" / "record.json"
    record = json.loads(file.read_text())
    record["history"][3]["valid_loss"] = record["test"]["top1"] = float("nan")
    file.write_text(json.dumps(record))
    browser.open(report([folder]))
    assert browser.console() == []
    assert "the score is nan" in browser.text(".verdict")


def test_failed_runs_are_named_with_their_error(tmp_path):
    folder = write_study(tmp_path / "failed", ("dense", "lower_lr", "dsd"), seeds=2)
    shutil.rmtree(folder / "dsd--1")
    (folder / "dsd--1").mkdir()
    (folder / "dsd--1" / "error.txt").write_text("Traceback ...\nRuntimeError: <out of memory>\n")
    text = report([folder]).read_text()
    assert "<b>dsd--1</b>: RuntimeError: &lt;out of memory&gt;" in text


def test_hostile_names_are_shown_and_never_obeyed(browser, tmp_path):
    record = make_record(HOSTILE, 0, dsd(2, 2, 2, 0.5))
    for phase, planned in zip(record["phases"], record["plan"], strict=True):
        phase["name"] = planned["name"] = f"{HOSTILE} {planned['name']}"
    for row in record["history"]:
        row["phase"] = HOSTILE
    record["released"][0] |= {"phase": HOSTILE, "until": HOSTILE}
    record["data"] |= {"name": HOSTILE, "sha256": HOSTILE}
    record |= {
        "commit": HOSTILE,
        "options": {HOSTILE: HOSTILE},
        "metric": record["metric"] | {"unit": HOSTILE},
    }
    run = write_run(tmp_path / "run", record)
    (run / "histograms.json").write_text(
        (run / "histograms.json").read_text().replace("hidden.weight", json.dumps(HOSTILE)[1:-1])
    )
    browser.open(report([run], tmp_path / "page.html"))
    assert browser.console() == []
    assert browser.requests() == [(tmp_path / "page.html").as_uri()]
    assert not browser.find("main img, main script, main b b")
    assert HOSTILE in browser.text("h1")
    assert HOSTILE in browser.text("dl")
    assert HOSTILE in browser.run(
        "return [...document.getElementById('g0-layer').options].map(o => o.value)"
    )
    assert HOSTILE in browser.find("#g0-score .ytitle")[0].text


def test_what_runs_have_to_show_is_shown_within_reason(tmp_path, monkeypatch):
    def shown(run):
        return [Section("Worst mistakes", [Text(f"of {run.name}")])]

    folder = write_study(tmp_path / "extra", ("dense", "lower_lr", "dsd"), seeds=2)
    text = report([folder], sections=shown).read_text()
    assert re.findall(r"<p>of ([^<]+)</p>", text) == ["dense--0", "lower_lr--0", "dsd--0"]
    monkeypatch.setattr(report_module, "_EXTRA_BYTES", 30)
    text = report([folder], sections=shown).read_text()
    assert text.count("Worst mistakes") == 1
    assert text.count("Examples left out") == 2
    assert f"<code>redense report {folder / 'dsd--0'}</code> shows them" in text


def test_a_recipes_runs_show_what_its_report_module_says(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", make_record("dsd", 0, dsd(2, 1, 1, 0.5)))
    assert sections(run) == []
    own = types.ModuleType("redense.recipes.images.report")
    own.__spec__ = types.SimpleNamespace(name=own.__name__)
    own.sections = lambda folder: [Section(folder.name, [])]
    monkeypatch.setitem(sys.modules, own.__name__, own)
    assert sections(run) == [Section("run", [])]
    record = make_record("dsd", 0, dsd(2, 1, 1, 0.5)) | {"recipe": "", "function": "mine:train"}
    assert sections(write_run(tmp_path / "function", record)) == []


# the masks of two passes


def test_overlap_is_intersection_over_union_of_the_held_weights():
    def checkpoint(**masks):
        packed = {
            f"model.{name}": pack(torch.tensor(mask, dtype=torch.bool))
            for name, mask in masks.items()
        }
        weights = {f"model.{name}": torch.zeros(len(mask)) for name, mask in masks.items()}
        return {"callbacks": {"DSDCallback": {"masks": packed}}, "state_dict": weights}

    first = checkpoint(a=[0, 0, 1, 1], b=[0, 1, 1, 1], c=[1, 1, 1, 1], d=[0, 0])
    second = checkpoint(a=[0, 1, 0, 1], b=[0, 1, 1, 1], c=[1, 1, 1, 1])
    assert overlap(first, second) == {
        "a": 1 / 3,
        "b": 1.0,
    }  # nobody holds a weight of c, the second does not know d


# the command


def test_the_command_is_the_one_that_was_stored(tmp_path):
    words = ["redense", "train", "images", "--data", "my pictures", "--include", "a.*,b.*"]
    words += ["--exclude", "classifier.*", "--train-images", "500"]
    record = make_record("dsd", 0, dsd(2, 1, 1, 0.5))
    run = write_run(tmp_path / "run", record)
    (run / "config.json").write_text(json.dumps({"recipe": "images", "command": words}))
    text = report([run]).read_text()
    command = html.unescape(re.search(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.S)[1])
    assert max(map(len, command.splitlines())) <= 78
    assert shlex.split(command.replace("\\\n", "")) == words


def test_a_study_without_its_command_says_so(page, study, tmp_path):
    assert "The command was not stored when these runs began" in page.read_text()
    folder = write_study(tmp_path / "stored", ("dense", "lower_lr", "dsd"), seeds=2)
    config = json.loads((folder / "study.json").read_text())
    words = ["redense", "prove", "images", "--seeds", "2"]
    (folder / "study.json").write_text(json.dumps(config | {"command": words}))
    assert "<code>redense prove images --seeds 2</code>" in report([folder]).read_text()


@pytest.mark.parametrize("recipe", ["images", "captions", "speech"])
def test_studies_of_older_versions_are_still_reported(tmp_path, recipe):
    results = Path(__file__).parents[2] / "results"
    page = report([results / recipe], tmp_path / f"{recipe}.html", sections=sections)
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<b>Does dense-sparse-dense (dsd" in text
    assert "No verdict" not in text


# the records of a user's own function


def write_function_study(folder, seeds=7, history=True):
    """What `redense.prove` writes: no recipe, scores under the user's names, no unit."""
    plan = dsd(4, 2, 2, 0.5)
    for label, method in build_methods(("dense", "lower_lr", "dsd"), {"": plan}).items():
        for seed in range(seeds):
            record = make_record(label, seed, method.plan, metric="accuracy", unit="")
            rows = [
                {
                    "epoch": row["epoch"],
                    "phase": row["phase"],
                    "rate": 0.1,
                    "sparsity": row["sparsity"],
                    "loss": row["train_loss"],
                    "accuracy": row["valid_accuracy"],
                    "seconds": row["seconds"],
                }
                for row in record["history"]
            ]
            for phase in record["phases"]:
                phase["rate"] = phase.pop("lr")
                del phase["train_loss"]
            record |= {
                "recipe": "",
                "function": "mine:train",
                "data": {"name": "mine:train", "sizes": {}, "sha256": "ab" * 32},
                "options": {},
                "cost": {"epochs": len(method.plan), "examples": None},
                "history": rows if history else [],
                "branched": history,
            }
            if not history:
                record |= {"phases": [], "released": [], "mask_overlap": [], "test": {}}
            write_run(folder / f"{label}--{seed}", record, histograms=False)
    return folder


def test_a_study_of_a_users_function_has_the_whole_page(browser, tmp_path):
    folder = write_function_study(tmp_path / "mine")
    browser.open(report([folder]))
    assert browser.console() == []
    assert "mine:train · 3 methods · 7 seeds · 21 runs" in browser.text("header")
    assert (
        browser.text(".verdict").split("?")[0].endswith("Does dense-sparse-dense (dsd) help here")
    )
    assert browser.find("#g0-score .ytitle")[0].text == "accuracy"
    assert browser.find("#g0-curve-1 .ytitle")[0].text == "loss"
    assert browser.find("#g0-forest .xtitle")[0].text == "test accuracy minus lower_lr’s"
    assert len(browser.rows("g0-runs")) == 21
    assert "examples" not in browser.text("#g0-runs thead")
    assert "its source’s sha256" in browser.text("dl")
    assert "None" not in browser.text("main")


def test_a_function_with_a_loop_of_its_own_is_reported_without_curves(browser, tmp_path):
    folder = write_function_study(tmp_path / "mine", history=False)
    browser.open(report([folder]))
    assert browser.console() == []
    assert not browser.find(".curves")
    assert browser.traces("g0-cost")
    single = report([folder / "dsd--0"]).read_text()
    assert "<code>redense prove mine:train</code>" in single


def test_a_network_that_came_trained_is_the_baseline_at_no_epochs(tmp_path):
    methods = build_methods(("dense", "lower_lr", "dsd"), {"": dsd(0, 3, 3, 0.5)})
    for label, method in methods.items():
        for seed in range(7):
            record = make_record(label, seed, dsd(2, 3, 3, 0.5))
            record |= {"plan": method.plan.to_records(), "history": [], "phases": []}
            record["cost"]["epochs"] = len(method.plan)
            write_run(tmp_path / "study" / f"{label}--{seed}", record, histograms=False)
    text = report([tmp_path / "study"]).read_text()
    assert "no training: the network as it came" in text
    assert "which trains no further, at 6 epochs" in text


def test_the_page_goes_where_it_is_told(redense, study, tmp_path):
    target = tmp_path / "new" / "page.html"
    assert redense("report", study, "--out", target).out.strip() == str(target)
    assert target.read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_named_in_one_line(redense, study, tmp_path):
    (tmp_path / "file").write_text("")
    answer = redense("report", study, "--out", tmp_path / "file" / "page.html")
    assert answer.code == 2
    assert "page.html" in answer.err
    assert "choose another --out" in answer.err
    assert answer.err.count("\n") == 1


def test_what_is_no_run_or_study_is_refused_in_one_line(redense, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "record.json").write_text('{"recipe": "images"}')
    for folder, words in (
        ("", "holds no finished run"),
        ("broken", "not valid JSON"),
        ("other", "other/record.json is no run's record: it has no 'method'"),
    ):
        answer = redense("report", tmp_path / folder)
        assert answer.code == 2
        assert words in answer.err
        assert answer.err.count("\n") == 1


def test_a_study_of_mixed_tasks_is_refused(redense, tmp_path):
    folder = write_study(tmp_path / "mixed", ("dense", "lower_lr", "dsd"), seeds=2)
    record = make_record("dsd", 5, dsd(8, 6, 6))
    record["data"]["sha256"] = "other"
    write_run(folder / "dsd--5", record)
    answer = redense("report", folder)
    assert answer.code == 2
    assert "differ in data" in answer.err
