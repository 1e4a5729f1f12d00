"""What /metrics says, read by Prometheus' promtool and by its Python client's parser."""

import os
import subprocess
import unittest

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from serving import PATIENCE, running, until

PROMTOOL = os.environ["PROMTOOL"]
# As Prometheus asks.
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"


def promtool(text):
    """Exit code of `promtool check metrics`, and what it said."""
    command = [PROMTOOL, "check", "metrics"]
    ran = subprocess.run(command, input=text, capture_output=True, timeout=PATIENCE)
    return ran.returncode, (ran.stdout + ran.stderr).decode()


def names(text, parser):
    """Name and labels of all samples."""
    families = parser(text.decode())
    return {(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples}


class Metrics(unittest.TestCase):
    def setUp(self):
        self.node = running()

    def test_promtool_finds_nothing_wrong_in_a_scrape_of_a_node_that_rolls_out(self):
        kind, text = self.node.get("/metrics")
        self.assertEqual(kind, "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(promtool(text), (0, ""))
        for name in [b"execution_duration_seconds", b"execution_phase_seconds", b"rollout_phase", b"messages_total"]:
            self.assertIn(b"# TYPE bulkhead_" + name + b" ", text)

    def test_promtool_refuses_a_scrape_with_one_fault(self):
        """Or the test above would say nothing."""
        _, text = self.node.get("/metrics")
        total, line = b"# HELP bulkhead_messages_total ", b"\nbulkhead_ready "
        self.assertIn(line, text)
        faults = {
            "no number": text.replace(line, line + b"one"),
            "no help": b"".join(said for said in text.splitlines(True) if not said.startswith(total)),
            "a counter without _total": text + b"# HELP bulkhead_x X.\n# TYPE bulkhead_x counter\nbulkhead_x 1\n",
        }
        for fault, broken in faults.items():
            with self.subTest(fault):
                self.assertNotEqual(promtool(broken)[0], 0)

    def test_a_strict_parser_of_openmetrics_finds_the_same_samples(self):
        kind, text = self.node.get("/metrics", accept=OPENMETRICS)
        self.assertEqual(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        same = until("no new sample between two scrapes", lambda: self.both())
        self.assertGreater(len(same), 100)
        with self.assertRaises(ValueError):
            names(text.replace(b"# EOF\n", b""), openmetrics)

    def both(self):
        one = names(self.node.get("/metrics")[1], plain)
        other = names(self.node.get("/metrics", accept=OPENMETRICS)[1], openmetrics)
        return one if one == other else None
