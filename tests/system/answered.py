"""Whether every operation of an OpenAPI document was really exercised: answered with success at least once.

Usage: answered.py DOCUMENT HAR... Prints each operation that was not; exit 0 if there is none. An operation on an object that
nobody can hold still here is named in UNREACHABLE: what tests/admin asks of it counts.
"""

import json
import re
import sys

METHODS = {"get", "put", "post", "delete", "patch"}
UNREACHABLE = {("GET", "/v1/operations/{id}"), ("DELETE", "/v1/operations/{id}")}


def operations(document):
    for path, item in document["paths"].items():
        shape = re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path)) + r"(\?.*)?$")
        yield from ((method.upper(), path, shape) for method in METHODS & item.keys())


def successes(reports):
    for report in reports:
        with open(report) as file:
            entries = json.load(file)["log"]["entries"]
        for entry in entries:
            if 200 <= entry["response"]["status"] < 300:
                yield entry["request"]["method"], re.sub(r"^https?://[^/]*", "", entry["request"]["url"])


def main(document, *reports):
    with open(document) as file:
        known = list(operations(json.load(file)))
    answered = set(successes(reports))
    missing = [
        f"{method} {path}"
        for method, path, shape in known
        if (method, path) not in UNREACHABLE
        and not any(asked == method and shape.match(target) for asked, target in answered)
    ]
    print("\n".join(missing + [f"{len(known) - len(missing)} of {len(known)} operations were answered with success"]))
    return len(missing) > 0 or not known


sys.exit(main(*sys.argv[1:]))
