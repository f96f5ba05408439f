"""Evaluates every query of a Grafana dashboard against a Prometheus that has scraped agents.

Usage: dashboard.py DASHBOARD PROMETHEUS. Each query must be accepted and give at least one sample, except those about
things that do not happen while nothing goes wrong. Prints what is wrong; exit 0 if nothing is.
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

VARIABLES = {"$instance": ".+", "$__rate_interval": "1m"}
MAY_BE_EMPTY = ['result!="ok"']


def queries(panel):
    for target in panel.get("targets", []):
        yield panel["title"], target["expr"]
    for inner in panel.get("panels", []):
        yield from queries(inner)


def samples(server, query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    address = f"{server}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(address) as answer:
            return len(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as error:
        return error.read().decode()


def main(path, server):
    with open(path) as file:
        dashboard = json.load(file)
    asked = [query for panel in dashboard["panels"] for query in queries(panel)]
    wrong = 0 if asked else 1
    for title, query in asked:
        found = samples(server, query)
        empty = found == 0 and not any(part in query for part in MAY_BE_EMPTY)
        if isinstance(found, str) or empty:
            print(f"{title}: {query}: {found or 'no sample'}")
            wrong += 1
    print(f"{len(asked)} queries")
    return wrong > 0


sys.exit(main(*sys.argv[1:]))
