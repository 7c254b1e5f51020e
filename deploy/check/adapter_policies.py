"""The rules of the Prometheus adapter, which are in no composition. A policy yields a text for each thing that is wrong."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = "deploy/kubernetes/components/autoscaling-on-load/prometheus-adapter.yaml"
METRICS = "src/observe/metrics"


def read():
    """The rules and the sources that they must agree with."""
    sources = [file.read_text().split("#[cfg(test)]")[0] for file in sorted((ROOT / METRICS).glob("*.rs"))]
    return {ADAPTER: (ROOT / ADAPTER).read_text(), METRICS: "\n".join(sources)}


def rules(texts):
    """Each rule with its kind: `custom` or `external`."""
    return [(kind, rule) for kind, of_kind in yaml.safe_load(texts[ADAPTER])["rules"].items() for rule in of_kind]


def _query(kind, rule):
    """What the adapter asks Prometheus, when it is asked for a metric of the namespace dms."""
    fields = {"Series": rule["seriesQuery"].split("{")[0]}
    # External metrics are of no object, and grouped by none.
    fields |= {"LabelMatchers": 'namespace="dms"', "GroupBy": ""} if kind == "external" else {
        "LabelMatchers": 'namespace="dms",pod=~"dms-a|dms-b"', "GroupBy": "pod"}
    return re.sub(r"<<\.(\w+)>>", lambda field: fields[field[1]], rule["metricsQuery"])


def _is_list(text, item):
    return all(re.fullmatch(item, part.strip()) for part in text.split(","))


def queries_are_well_formed(texts):
    """As far as that shows without a parser: brackets, labels to group by, and matchers."""
    for kind, rule in rules(texts):
        query = _query(kind, rule)
        bare, previous = re.sub(r'"[^"]*"', '""', query), None
        if not all(_is_list(labels, r"[a-z_]\w*") for labels in re.findall(r"\b(?:by|without|on|ignoring) *\(([^()]*)\)", bare)):
            yield f"{rule['name']['as']}: groups by a label without a name: {query}"
        if not all(_is_list(matchers, r'[a-z_]\w*(=|!=|=~|!~)""') for matchers in re.findall(r"{([^{}]*)}", bare)):
            yield f"{rule['name']['as']}: selects by what is no label: {query}"
        while bare != previous:
            bare, previous = re.sub(r"\([^(){}\[\]]*\)|{[^(){}\[\]]*}|\[\w+\]", "", bare), bare
        if re.search(r"[(){}\[\]<>]{2}|[(){}\[\]]", bare):
            yield f"{rule['name']['as']}: brackets without a counterpart: {query}"


def external_metrics_are_never_nothing(texts):
    """Nothing is an error to a HorizontalPodAutoscaler, and while there is one it takes no replica away."""
    for kind, rule in rules(texts):
        if kind == "external" and not _query(kind, rule).rstrip().endswith("or vector(0)"):
            yield f"{rule['name']['as']}: is nothing where no group is"


def metrics_are_of_the_service(texts):
    own = set(re.findall(r'"([a-z_]+)"', texts[METRICS]))
    for _, rule in rules(texts):
        for name in re.findall(r"\bdms_([a-z_]+)", rule["seriesQuery"] + rule["metricsQuery"]):
            if name.removesuffix("_total") not in own:
                yield f"{rule['name']['as']}: src/observe/metrics has no {name}"


POLICIES = [queries_are_well_formed, external_metrics_are_never_nothing, metrics_are_of_the_service]
# What is replaced in which file, and the policy that must say so.
FAULTS = [
    (queries_are_well_formed, ADAPTER, "max by (project, queue", "max by (<<.GroupBy>>, project, queue"),
    (queries_are_well_formed, ADAPTER, "sum(rate(", "sum((rate("),
    (queries_are_well_formed, ADAPTER, "{<<.LabelMatchers>>}", "{<<.GroupBy>>}"),
    (external_metrics_are_never_nothing, ADAPTER, "or vector(0)", ""),
    (metrics_are_of_the_service, ADAPTER, "dms_calls_total", "dms_requests_total"),
    (metrics_are_of_the_service, METRICS, "group_in_flight_messages", "group_leased_messages"),
]
