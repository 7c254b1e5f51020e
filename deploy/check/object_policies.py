"""What objects must have of each other. A policy yields a text for each thing that is wrong."""

import re
from pathlib import Path

from objects import (CLUSTER_WIDE, at, containers, find, is_dms, name_of, of_kind, pods, port_names, selector_selects,
                     selects, settings)

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Made by whoever installs, or by the operator of Postgres.
SECRETS_OF_OTHERS = {"dms-database", "dms-tokens", "dms-aksk", "dms-public-tls", "dms-postgres-app", "dms-postgres-ca"}
# Where names are resolved: pods of this namespace, a cache on the node, or Cloud DNS of GKE.
RESOLVERS = {"kube-system", "169.254.20.10/32", "169.254.169.254/32"}


def settings_exist(objects):
    known = set()
    for file in (SOURCE / "config").glob("*.rs"):
        known |= set(re.findall(r'env = "([A-Z_]+)"', file.read_text()))
    for workload, pod, _ in pods(objects):
        for container in filter(is_dms, containers(pod)):
            used = {setting for setting in settings(objects, container) if setting.startswith("DMS_")}
            for setting in sorted(used - known):
                yield f"{name_of(workload)}: src/config knows no {setting}"


def callers_must_prove_who_they_are(objects):
    for workload, pod, _ in pods(objects):
        for container in filter(is_dms, containers(pod, with_init=False)):
            values = settings(objects, container)
            if container.get("args") == ["serve"] and values.get("DMS_AUTH", "none") == "none":
                yield f"{name_of(workload)}: DMS_AUTH is not set, or none"


def files_of_settings_are_mounted(objects):
    for workload, pod, _ in pods(objects):
        for container in containers(pod):
            mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if any("subPath" in mount for mount in container.get("volumeMounts", [])):
                yield f"{name_of(workload)}: a file mounted by subPath never changes"
            # `dms migrate` reads nothing but what leads to the database.
            read = "PGSSL" if container.get("args") == ["migrate"] else "DMS_|PGSSL"
            for setting, value in settings(objects, container).items():
                if re.match(read, setting) and (value or "").startswith("/"):
                    if str(Path(value).parent) not in mounts:
                        yield f"{name_of(workload)}: {setting}={value} is in no volume"


def what_is_named_is_there(objects):
    made = {thing["metadata"]["name"] for thing in of_kind(objects, "Secret")}
    made |= {at(thing, "spec", "secretName") for thing in of_kind(objects, "Certificate")}
    for workload, pod, _ in pods(objects):
        volumes = pod.get("volumes", [])
        everything = containers(pod)
        variables = [variable for container in everything for variable in container.get("env", [])]
        sources = [source for container in everything for source in container.get("envFrom", [])]
        secrets = {at(volume, "secret", "secretName") for volume in volumes}
        secrets |= {at(variable, "valueFrom", "secretKeyRef", "name") for variable in variables}
        for secret in sorted(secrets - {None} - made - SECRETS_OF_OTHERS):
            yield f"{name_of(workload)}: nobody makes the Secret {secret}"
        maps = {at(source, "configMapRef", "name") for source in sources}
        maps |= {at(volume, "configMap", "name") for volume in volumes}
        for settings_map in sorted(maps - {None}):
            if not find(objects, "ConfigMap", settings_map):
                yield f"{name_of(workload)}: there is no ConfigMap {settings_map}"
        account = pod.get("serviceAccountName")
        if account and not find(objects, "ServiceAccount", account):
            yield f"{name_of(workload)}: there is no ServiceAccount {account}"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if not find(objects, target["kind"], target["name"]):
            yield f"{name_of(scaler)}: there is no {target['kind']} {target['name']}"


def services_reach_pods(objects):
    for service in of_kind(objects, "Service"):
        reached = [pod for _, pod, labels in pods(objects) if selects(service["spec"]["selector"], labels)]
        if not reached:
            yield f"{name_of(service)}: selects no pods"
        for port in service["spec"]["ports"]:
            if any(port.get("targetPort", port["port"]) not in port_names(pod) for pod in reached):
                yield f"{name_of(service)}: its pods do not declare the port {port['name']}"


def _backends(objects):
    for route in of_kind(objects, "HTTPRoute", "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield route, backend["name"], backend["port"]
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield ingress, service["name"], service["port"].get("name", service["port"].get("number"))


def routes_reach_services(objects):
    for route, name, port in _backends(objects):
        ports = at(find(objects, "Service", name), "spec", "ports", default=[])
        if port not in {value for known in ports for value in (known.get("name"), known["port"])}:
            yield f"{name_of(route)}: there is no Service {name} with the port {port}"
    for route in of_kind(objects, "HTTPRoute", "GRPCRoute"):
        for parent in route["spec"]["parentRefs"]:
            gateway = find(objects, "Gateway", parent["name"])
            listeners = {listener["name"]: listener for listener in at(gateway, "spec", "listeners", default=[])}
            hostname = listeners.get(parent["sectionName"], {}).get("hostname")
            if hostname not in route["spec"]["hostnames"]:
                yield f"{name_of(route)}: no listener of {parent['name']} has its name"
    for door, kinds in (("Ingress", ("Ingress",)), ("Gateway", ("HTTPRoute", "GRPCRoute"))):
        behind = {name for route, name, _ in _backends(objects) if route["kind"] in kinds}
        if of_kind(objects, door) and not {"dms-grpc", "dms-rest"} <= behind:
            yield f"only {sorted(behind)} can be reached through {door}"


def something_decides_how_many(objects):
    for deployment in of_kind(objects, "Deployment"):
        scalers = [scaler for scaler in of_kind(objects, "HorizontalPodAutoscaler")
                   if scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]]
        if len(scalers) + ("replicas" in deployment["spec"]) != 1:
            yield f"{name_of(deployment)}: one of replicas and a HorizontalPodAutoscaler must decide"
        for scaler in scalers:
            if scaler["spec"]["minReplicas"] < 2:
                yield f"{name_of(scaler)}: fewer than two replicas"
            if not any(at(metric, "resource", "name") == "cpu" for metric in scaler["spec"]["metrics"]):
                yield f"{name_of(scaler)}: does not look at CPU"


def disruptions_are_bounded(objects):
    for workload, _, labels in pods(objects):
        if workload["kind"] != "Deployment":
            continue
        budgets = [budget for budget in of_kind(objects, "PodDisruptionBudget")
                   if selector_selects(budget["spec"]["selector"], labels)]
        if len(budgets) != 1:
            yield f"{name_of(workload)}: has {len(budgets)} PodDisruptionBudgets"


def the_network_is_closed(objects):
    for workload, pod, labels in pods(objects):
        closed = set()
        for policy in of_kind(objects, "NetworkPolicy"):
            if not selector_selects(policy["spec"]["podSelector"], labels):
                continue
            closed |= set(policy["spec"]["policyTypes"])
            for rule in policy["spec"].get("ingress", []):
                where = f"{name_of(policy)}: a rule for {name_of(workload)}"
                if not rule.get("from") or not rule.get("ports"):
                    yield f"{where} is for everybody, or for every port"
                for port in rule.get("ports", []):
                    # A policy for several workloads may name a port that only some of them have.
                    if isinstance(port["port"], str) and port["port"] not in port_names(pod):
                        yield f"{where} names a port that is not declared"
        if closed != {"Ingress", "Egress"}:
            yield f"{name_of(workload)}: NetworkPolicies close {sorted(closed)}"


def names_can_be_resolved(objects):
    for workload, pod, labels in pods(objects):
        if not any(map(is_dms, containers(pod))):
            continue
        reached = set()
        for policy in of_kind(objects, "NetworkPolicy"):
            if not selector_selects(policy["spec"]["podSelector"], labels):
                continue
            for rule in policy["spec"].get("egress", []):
                ports = {(port.get("port"), port.get("protocol", "TCP")) for port in rule.get("ports", [])}
                if {(53, "UDP"), (53, "TCP")} <= ports:
                    reached |= {at(peer, "ipBlock", "cidr") for peer in rule["to"]}
                    reached |= {at(peer, "namespaceSelector", "matchLabels", "kubernetes.io/metadata.name") for peer in rule["to"]}
        if not RESOLVERS <= reached:
            yield f"{name_of(workload)}: NetworkPolicies keep it from DNS at {sorted(RESOLVERS - reached)}"


def everything_has_one_namespace(objects):
    for thing in objects:
        if thing["kind"] not in CLUSTER_WIDE and at(thing, "metadata", "namespace") != "dms":
            yield f"{name_of(thing)}: is not in the namespace dms"
    namespace = of_kind(objects, "Namespace")
    level = at(*namespace, "metadata", "labels", "pod-security.kubernetes.io/enforce") if len(namespace) == 1 else None
    if level != "restricted":
        yield "there is not one Namespace that enforces the restricted level of pod security"


POLICIES = [
    settings_exist, callers_must_prove_who_they_are, files_of_settings_are_mounted, what_is_named_is_there,
    services_reach_pods, routes_reach_services, something_decides_how_many, disruptions_are_bounded,
    the_network_is_closed, names_can_be_resolved, everything_has_one_namespace,
]
