"""The admin port: who reaches it, and what is read there. A policy yields a text for each thing that is wrong."""

import adapter_policies
from objects import at, containers, find, is_dms, name_of, of_kind, pods, port_names, selector_selects, settings


def _is_admin(port):
    return port in ("admin", 9464)


def admin_port_is_the_setting(objects):
    for workload, pod, _ in pods(objects):
        for container in filter(is_dms, containers(pod, with_init=False)):
            listens = settings(objects, container).get("DMS_ADMIN_ADDR")
            declared = [port["containerPort"] for port in container.get("ports", []) if port.get("name") == "admin"]
            if [f"0.0.0.0:{port}" for port in declared] != ([listens] if listens else []):
                yield f"{name_of(workload)}: DMS_ADMIN_ADDR is {listens}, and the port admin is {declared}"


def only_monitoring_reaches_admin(objects):
    """Whoever reaches it can change what is logged: pods of one kind in one namespace that are named, and no Service."""
    for service in of_kind(objects, "Service"):
        if any(_is_admin(port.get("targetPort", port["port"])) for port in service["spec"]["ports"]):
            yield f"{name_of(service)}: leads to the admin port"
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            ports = rule.get("ports") or [{}]
            if not any("port" not in port or "endPort" in port or _is_admin(port["port"]) for port in ports):
                continue
            for peer in rule.get("from") or [{}]:
                if not at(peer, "namespaceSelector", "matchLabels") or not at(peer, "podSelector", "matchLabels"):
                    yield f"{name_of(policy)}: lets more than pods that are named reach the admin port"


def monitors_find_pods(objects):
    """Each finds pods with its ports; that of the gateway only where the component is that runs one."""
    for monitor in of_kind(objects, "PodMonitor"):
        selector = monitor["spec"]["selector"]
        # Pods that an operator makes are not among the objects.
        if "cnpg.io/cluster" in selector["matchLabels"]:
            continue
        if monitor["metadata"]["name"] == "dms-gateway" and not find(objects, "Deployment", "dms-gateway"):
            continue
        reached = [pod for _, pod, labels in pods(objects) if selector_selects(selector, labels)]
        wanted = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        if not reached or any(not wanted <= port_names(pod) for pod in reached):
            yield f"{name_of(monitor)}: no pods with the ports {sorted(wanted)}"


def metrics_exist(objects):
    """What is scaled by is a metric that the adapter makes."""
    made = {rule["name"]["as"] for _, rule in adapter_policies.rules(adapter_policies.read())}
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            name = at(metric, metric["type"].lower(), "metric", "name")
            if name and name not in made:
                yield f"{name_of(scaler)}: the Prometheus adapter makes no {name}"


POLICIES = [admin_port_is_the_setting, only_monitoring_reaches_admin, monitors_find_pods, metrics_exist]
