"""What promtool cannot see: that alerts, their tests, the runbook and the dashboard fit together, and that the component
`monitoring` of deploy/kubernetes has them as they are here.

usage: check.py FILE; writes the expressions of the dashboard to FILE, as recording rules, for promtool to parse.
       check.py --write; makes the files of the component, which kustomize would not take from another folder.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMPONENT = HERE.parent / "kubernetes" / "components" / "monitoring"
RUNBOOK = "deploy/observability/runbook.md"
# Files of rules, and the PrometheusRules that they become. Their tests are in FILE_test.yaml.
RULES = {"alerts.yaml": "dms", "postgres.yaml": "dms-postgres"}
# Metrics of others that alerts and runbook may speak of, as they are in CloudNativePG 1.28 (its exporter and its default queries),
# in the Barman Cloud plugin 0.10 and in kubelets. Those of the service are for tests/it/operations/observability.rs.
OTHERS = {
    "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
    "cnpg_collector_last_available_backup_timestamp",
    "cnpg_collector_pg_wal_archive_status",
    "cnpg_collector_sync_replicas",
    "cnpg_pg_replication_in_recovery",
    "cnpg_pg_replication_slots_pg_wal_lsn_diff",
    "cnpg_pg_replication_streaming_replicas",
    "cnpg_pg_stat_archiver_last_archived_time",
    "cnpg_pg_stat_archiver_last_failed_time",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
}
# What Grafana puts in, and what it could put in.
BUILT_IN = {"__rate_interval": "5m"}
COLUMNS = 24


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def check_alerts(rules, tests, runbook):
    """Each alert is complete, has an entry in the runbook and tests of both kinds, and there is nothing else."""
    blocks = re.split(r"^ +- alert: ", rules, flags=re.MULTILINE)[1:]
    names = [block.split()[0] for block in blocks]
    known = anchors(runbook)
    for name, block in zip(names, blocks):
        if names.count(name) > 1:
            yield f"{name}: there are several alerts of this name"
        if not re.search(r"labels: \{severity: (page|ticket)\}", block):
            yield f"{name}: no severity"
        for annotation in ("summary", "description"):
            if not re.search(rf"^ +{annotation}: \S", block, re.MULTILINE):
                yield f"{name}: no {annotation}"
        if f"runbook: {RUNBOOK}#{name.lower()}\n" not in block:
            yield f"{name}: runbook is not {RUNBOOK}#{name.lower()}"
        if known.count(name.lower()) != 1:
            yield f"{name}: {known.count(name.lower())} headings of {RUNBOOK} have its anchor"
        if not re.search(rf"alertname: {name}\n +eval_time: \w+\n +exp_alerts:\n", tests):
            yield f"{name}: no test in which it fires"
        if not re.search(rf"alertname: {name}, eval_time: \w+, exp_alerts: \[\]", tests):
            yield f"{name}: no test in which it does not"
    for heading in re.findall(r"^#+ (Dms\w+)", runbook, re.MULTILINE):
        if heading not in names:
            yield f"{RUNBOOK}: there is no alert {heading}"
    for name in sorted(set(re.findall(r"\b(?:barman|cnpg|kubelet)_\w+", rules + tests + runbook)) - OTHERS):
        yield f"{name} is not known as a metric of others"


def panels_of(dashboard):
    """All panels, those of collapsed rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions(dashboard):
    """Whatever is asked of Prometheus, and where."""
    for panel in panels_of(dashboard):
        for target in panel.get("targets", []):
            yield f"panel {panel['id']}, {panel['title']}, {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
            yield f"variable {variable['name']}", query[1] if query else variable["query"]["query"]


def check_dashboard(dashboard):
    """Ids are unique, panels do not overlap, nothing names a data source or a variable that is not there."""
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    panels = list(panels_of(dashboard))
    ids = [panel["id"] for panel in panels]
    yield from (f"panel id {one} is used twice" for one in sorted(set(ids)) if ids.count(one) > 1)
    taken = {}
    for panel in panels:
        place, title = panel["gridPos"], panel["title"]
        if place["x"] + place["w"] > COLUMNS:
            yield f"{title}: wider than the page"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if taken.setdefault((x, y), title) != title:
                    yield f"{title}: overlaps {taken[x, y]}"
                    break
        targets = panel.get("targets", [])
        if panel["type"] != "row" and not targets:
            yield f"{title}: asks nothing"
        if len({target["refId"] for target in targets}) < len(targets):
            yield f"{title}: a refId is used twice"
        for one in [panel, *targets]:
            if panel["type"] != "row" and one["datasource"]["uid"] != "${datasource}":
                yield f"{title}: its data source is fixed"
    for where, expression in expressions(dashboard):
        for name in re.findall(r"\$\{?(\w+)", expression):
            if name not in variables and name not in BUILT_IN:
                yield f"{where}: there is no variable {name}"


def as_rules(dashboard):
    """The expressions as a file of recording rules. JSON is YAML."""
    rules = []
    for number, (_, expression) in enumerate(expressions(dashboard)):
        plain = re.sub(r"\$\{?(\w+)\}?", lambda found: BUILT_IN.get(found[1], ".*"), expression)
        rules.append({"record": f"dashboard:{number}", "expr": plain})
    return {"groups": [{"name": "dashboard", "rules": rules}]}


def read(name):
    return (HERE / name).read_text(encoding="utf-8")


def made_of(*names):
    """What stands above files that are made here."""
    return f"# Made by `python3 deploy/observability/check.py --write` of {' and '.join(names)} beside it: change those, not this.\n"


def metadata(name, **labels):
    """The same for every object."""
    lines = [f"  name: {name}", "  labels:", "    app.kubernetes.io/name: dms", *(f'    {key}: "{value}"' for key, value in labels.items())]
    return "\n".join(["metadata:", *lines, ""])


def component():
    """The files of the component that are made of those here: text as it is, for there is nothing here that reads YAML."""
    rules = []
    for file, name in RULES.items():
        groups = read(file).partition("\ngroups:\n")[2]
        rules.append(f"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n{metadata(name)}spec:\n  groups:\n{groups}")
    dashboard = "".join(f"    {line}\n" for line in read("dashboard.json").splitlines())
    return {
        "rules.yaml": made_of(*RULES) + "---\n".join(rules),
        "dashboard.yaml": f"{made_of('dashboard.json')}apiVersion: v1\nkind: ConfigMap\n"
                          f"{metadata('dms-dashboard', grafana_dashboard=1)}data:\n  dms.json: |\n{dashboard}",
    }


def check_component(rules):
    """The component has what is here, and monitors that make the jobs which rules ask for."""
    monitors = re.findall(r"^  name: (\S+)", (COMPONENT / "monitors.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    for job in sorted(set(re.findall(r'job=~"\(\.\*/\)\?([\w-]+)"', rules)) - set(monitors)):
        yield f"no PodMonitor of the component makes the job {job}"
    for name, text in component().items():
        path = COMPONENT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{name} of the component is not what is here: run check.py --write"


def main():
    if sys.argv[1] == "--write":
        for name, text in component().items():
            (COMPONENT / name).write_text(text, encoding="utf-8")
        return 0
    rules = "".join(map(read, RULES))
    tests = "".join(read(name.replace(".yaml", "_test.yaml")) for name in RULES)
    dashboard = json.loads(read("dashboard.json"))
    complaints = [*check_alerts(rules, tests, read(f"../../{RUNBOOK}")), *check_dashboard(dashboard), *check_component(rules)]
    for complaint in complaints:
        print(f"{HERE.name}: {complaint}", file=sys.stderr)
    Path(sys.argv[1]).write_text(json.dumps(as_rules(dashboard)), encoding="utf-8")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
