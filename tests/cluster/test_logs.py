"""Logs are lines of JSON."""

import json
import logging

from cluster.logs import JsonLines


def test_a_record_is_one_line_with_its_facts():
    record = logging.LogRecord("amalgam.run", logging.INFO, "x.py", 1, "round %d of 4\nwriting", (2,), None)
    record.facts = {"job": "fusegen", "phase": "ärmel"}
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "info", "event": "round 2 of 4\nwriting", "job": "fusegen", "phase": "ärmel"}
