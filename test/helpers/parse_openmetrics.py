"""Parses an OpenMetrics page from standard input with prometheus_client's strict parser.

Prints one JSON document: {"families": [{name, type, unit, help, samples: [{name, labels, value,
exemplar: {labels, value, timestamp} | null}]}]}. It fails with the parser's error when the page is
not OpenMetrics. With --text the page is Prometheus text 0.0.4, and so is the parser.
"""

import json
import sys

from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as open_parser


def exemplar_of(sample):
    if sample.exemplar is None:
        return None
    found = sample.exemplar
    timestamp = None if found.timestamp is None else float(found.timestamp)
    return {"labels": found.labels, "value": found.value, "timestamp": timestamp}


def main() -> None:
    families = []
    parser = text_parser if "--text" in sys.argv else open_parser
    for family in parser.text_string_to_metric_families(sys.stdin.read()):
        samples = [
            {"name": s.name, "labels": s.labels, "value": s.value, "exemplar": exemplar_of(s)}
            for s in family.samples
        ]
        families.append(
            {
                "name": family.name,
                "type": family.type,
                "unit": family.unit,
                "help": family.documentation,
                "samples": samples,
            }
        )
    json.dump({"families": families}, sys.stdout)


if __name__ == "__main__":
    main()
