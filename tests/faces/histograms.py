"""Histograms that a node writes, read by HdrHistogram's reader for Python, which shares no code with it."""

import base64
import contextlib
import json
import math
import subprocess
import time
import unittest

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from serving import PATIENCE, PROGRAM, running, until

# The node's own: 1 ns to 60 s, three digits.
LOWEST, HIGHEST, DIGITS = 1, 60_000_000_000, 3
# How long two equal answers are waited for, seconds; a slow machine may never have them.
STILL = 20
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def read(path):
    """The histograms of a log by tag, all intervals of a tag added up, and how many intervals there were."""
    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST, HIGHEST, DIGITS))
    series, intervals = {}, 0
    with contextlib.closing(reader):
        while (interval := reader.get_next_interval_histogram()) is not None:
            intervals += 1
            tag = interval.get_tag()
            if tag in series:
                series[tag].add(interval)
            else:
                series[tag] = interval
    return series, intervals


def whole_lines(log, copy):
    """Copies what is whole of a log that is still written: up to its last newline."""
    copy.write_bytes(log.read_bytes().rpartition(b"\n")[0] + b"\n")
    return copy


def steps(histogram):
    """For each value that was measured, as the reader counts: how many are no greater, and the value."""
    return [
        (step.total_count_to_this_value, histogram.get_highest_equivalent_value(step.value_iterated_to))
        for step in histogram.get_recorded_iterator()
    ]


def step_of(all_steps, rank):
    """The step that has the measurement with this rank, from 1."""
    return next(step for step in all_steps if step[0] >= rank)


def summary(histogram):
    """Count, quantiles and maximum, in the form of the node's JSON."""
    count, found = histogram.get_total_count(), steps(histogram)
    quantiles = {word: step_of(found, math.ceil(q * count))[1] for word, q in QUANTILES.items()}
    return {"count": count, **quantiles, "max": histogram.get_max_value()}


def without_curve(series):
    return {word: value for word, value in series.items() if word != "curve"}


def parsed(hgrm):
    """Rows of a percentile text (value, percentile, count), and the words and numbers of its foot."""
    lines = [line for line in hgrm.splitlines() if line.strip()][1:]
    rows = [line.split() for line in lines if not line.startswith("#")]
    foot = [part.split("=") for line in lines if line.startswith("#[") for part in line[2:-1].split(",")]
    return (
        [(float(value), float(percentile), int(count)) for value, percentile, count, *_ in rows],
        {word.strip(): float(number) for word, number in foot},
    )


class Exports(unittest.TestCase):
    """What a running node gives by HTTP."""

    def read_still(self, mode, kind, *forms):
        """Exports, and the node's own figures before and after: equal, unless the machine is too slow for that."""
        node = running()

        def own():
            return node.json("/v1/latencies")["merged"]["kinds"][kind][mode]

        deadline = time.monotonic() + STILL
        while True:
            before = own()
            exports = [node.get(f"/v1/hist?mode={mode}&kind={kind}&format={form}")[1] for form in forms]
            after = own()
            if before == after or time.monotonic() > deadline:
                return (*exports, (before, after))

    def own_or_between(self, histogram, answers):
        """The node's own figures where its two answers are equal. Otherwise the reader's, which have to be between them."""
        before, after = map(without_curve, answers)
        if before == after:
            return before
        found = summary(histogram)
        for word in ["count", "max"]:
            self.assertLessEqual(before[word], found[word])
            self.assertLessEqual(found[word], after[word])
        return found

    def each(self):
        """Modes and kinds of which something was measured; both modes and both runs of shadow are among them."""
        kinds = running().json("/v1/latencies")["merged"]["kinds"]
        found = [(mode, kind) for kind, modes in kinds.items() for mode, series in modes.items() if series]
        for mode in ["in-process", "sandboxed", "shadow-control", "shadow-candidate"]:
            self.assertIn((mode, "update"), found)
        return found

    def test_an_exported_hlog_opens_with_its_tag_and_has_the_counts_and_quantiles_of_the_nodes_own_answer(self):
        for mode, kind in self.each():
            with self.subTest(mode=mode, kind=kind):
                export, answers = self.read_still(mode, kind, "hlog")
                path = running().folder / "export.hlog"
                path.write_bytes(export)
                series, _ = read(path)
                self.assertEqual(set(series), {f"{mode}.{kind}"})
                (histogram,) = series.values()
                self.assertEqual(summary(histogram), self.own_or_between(histogram, answers))

    def test_the_readers_own_percentiles_are_those_of_the_answer_or_one_measurement_below(self):
        """Its rank is the nearest one, the node's the first that reaches the quantile."""
        for mode, kind in self.each():
            export, answers = self.read_still(mode, kind, "v2")
            histogram = HdrHistogram(LOWEST, HIGHEST, DIGITS)
            histogram.decode_and_add(base64.b64encode(export))
            own = self.own_or_between(histogram, answers)
            self.assertEqual(histogram.get_total_count(), own["count"])
            found = steps(histogram)
            for word, q in QUANTILES.items():
                with self.subTest(mode=mode, kind=kind, quantile=word):
                    below = step_of(found, max(1, math.ceil(q * own["count"]) - 1))[1]
                    self.assertIn(histogram.get_value_at_percentile(100 * q), [below, own[word]])

    def test_an_exported_hgrm_has_the_values_and_counts_that_the_reader_finds_in_the_hlog(self):
        for mode, kind in [("in-process", "update"), ("sandboxed", "update")]:
            with self.subTest(mode=mode, kind=kind):
                hgrm, hlog, answers = self.read_still(mode, kind, "hgrm", "hlog")
                path = running().folder / "export.hlog"
                path.write_bytes(hlog)
                histogram = read(path)[0][f"{mode}.{kind}"]
                found, rows, foot = steps(histogram), *parsed(hgrm.decode())
                self.assertGreater(len(rows), 10)
                own = self.own_or_between(histogram, answers)
                self.assertEqual(rows[-1][1:], (1.0, foot["Total count"]))
                if answers[0] != answers[1]:
                    # The two forms are of two moments.
                    self.assertLessEqual(answers[0]["count"], foot["Total count"])
                    self.assertLessEqual(foot["Total count"], own["count"])
                    continue
                for value, percentile, count in rows:
                    # Where a percentile falls between two measurements, either is right.
                    exact = percentile * own["count"]
                    ranks = {max(1, math.ceil(exact - 1e-6)), min(own["count"], math.floor(exact + 1e-6) + 1)}
                    right = [(upto, round(nanoseconds / 1e6, 3)) for upto, nanoseconds in (step_of(found, rank) for rank in ranks)]
                    self.assertIn((count, value), right, percentile)
                self.assertEqual(foot["Total count"], own["count"])
                self.assertAlmostEqual(foot["Max"], own["max"] / 1e6, delta=0.0006)
                # The reader takes the end of each step for its mean, the node the middle.
                self.assertAlmostEqual(foot["Mean"], histogram.get_mean_value() / 1e6, delta=0.002 * foot["Mean"] + 0.001)


class Logs(unittest.TestCase):
    """Files that the programs leave."""

    def test_the_log_of_a_rollouts_step_opens_and_has_the_messages_that_compare_counts(self):
        log = running().folder / "state/trials/faces/1-0-001.hlog"
        series, intervals = read(log)
        self.assertGreater(intervals, len(series))
        self.assertEqual({tag.split(".")[0] for tag in series}, {"shadow-control", "shadow-candidate"})
        command = [PROGRAM, "compare", str(log), "--control", "shadow-control", "--candidate", "shadow-candidate"]
        limits = ["--block", "1s", "--kind", "update", "--limit", "p50=500", "--json"]
        ran = subprocess.run([*command, *limits], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(ran.stderr, "")
        compared = json.loads(ran.stdout)
        counts = {side: series[f"shadow-{side}.update"].get_total_count() for side in ["control", "candidate"]}
        samples = compared["guards"][0]["samples"]
        if compared["series"][0]["blocks_left_out"] == 0:
            self.assertEqual(samples, counts)
        else:
            # A busy machine stretches an interval beyond its block.
            for side, count in counts.items():
                self.assertGreater(samples[side], 0, compared)
                self.assertLessEqual(samples[side], count, compared)
        # A log that is still written to opens as well.
        log, copy = running().folder / "state/trials/faces/1-1-001.hlog", running().folder / "so-far.hlog"
        both = {"in-process.update", "sandboxed.update"}
        until("both modes are in the log", lambda: both <= set(read(whole_lines(log, copy))[0]))

    def test_the_demos_log_opens_and_has_the_counts_and_quantiles_that_the_demo_reports(self):
        log = running().folder / "demo.hlog"
        command = [PROGRAM, "demo", "--quick", "--json", "--hlog", str(log)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        report = json.loads(ran.stdout)["executions_ns"]
        own = {
            f"{mode}.{row['kind']}": row[mode]
            for part in ["modes", "shadow"]
            for row in report[part]
            for mode in row
            if mode not in ("kind", "ratio") and row[mode]
        }
        series, intervals = read(log)
        self.assertGreater(intervals, len(series))
        self.assertEqual({tag: summary(one) for tag, one in series.items()}, own)

    def test_one_count_more_in_a_log_is_noticed(self):
        """Or the tests above would say nothing."""
        node = running()
        path = node.folder / "export.hlog"
        path.write_bytes(node.get("/v1/hist?mode=sandboxed&kind=update&format=hlog")[1])
        histogram = read(path)[0]["sandboxed.update"]
        before = summary(histogram)
        histogram.record_value(before["p50"])
        self.assertNotEqual(summary(histogram), before)
        path.write_text(path.read_text().replace("Tag=sandboxed.", "Tag=in-process."))
        self.assertEqual(set(read(path)[0]), {"in-process.update"})
