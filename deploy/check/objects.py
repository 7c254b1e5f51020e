"""Views of rendered objects that several policies need."""

import re

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
CLUSTER_WIDE = {"Namespace"}


def name_of(thing):
    """How a finding calls an object."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def of_kind(objects, *kinds):
    """The objects of these kinds."""
    return [thing for thing in objects if thing["kind"] in kinds]


def find(objects, kind, name):
    """The object of this kind and name, or None."""
    return next((thing for thing in of_kind(objects, kind) if thing["metadata"]["name"] == name), None)


def at(thing, *path, default=None):
    """What is at a path of keys, or the default."""
    for key in path:
        if not isinstance(thing, dict) or key not in thing:
            return default
        thing = thing[key]
    return thing


def pods(objects):
    """Each workload with the specification and the labels of its pods."""
    for workload in of_kind(objects, *WORKLOADS):
        template = at(workload, "spec", "template", default={})
        yield workload, at(template, "spec", default={}), at(template, "metadata", "labels", default={})


def containers(pod, with_init=True):
    """The containers of a pod."""
    return (pod.get("initContainers", []) if with_init else []) + pod.get("containers", [])


def is_dms(container):
    """Whether it runs our image."""
    return re.split("[:@]", container.get("image", "").rsplit("/", 1)[-1])[0] == "dms"


def selects(labels_wanted, labels):
    """Whether a map of labels selects these labels."""
    return all(labels.get(key) == value for key, value in (labels_wanted or {}).items())


def selector_selects(selector, labels):
    """The same for a selector with expressions; of those, the operator In."""
    expressions = selector.get("matchExpressions", [])
    return selects(selector.get("matchLabels"), labels) and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in expressions)


def settings(objects, container):
    """Name and value of each variable of a container; None for what comes from a Secret."""
    values = {}
    for source in container.get("envFrom", []):
        settings_map = find(objects, "ConfigMap", at(source, "configMapRef", "name"))
        values |= at(settings_map, "data", default={})
    for variable in container.get("env", []):
        values[variable["name"]] = variable.get("value")
    return values


def seconds(text):
    """A time as the settings of the service have it."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def quantity(text):
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(m|[KMGT]i?)?", str(text)).groups()
    powers = {None: 1, "m": 0.001}
    powers |= {f"{letter}i": 1024 ** power for power, letter in enumerate("KMGT", 1)}
    powers |= {letter: 1000 ** power for power, letter in enumerate("KMGT", 1)}
    return float(number) * powers[unit]


def port_names(pod):
    """Ports that the containers of a pod declare, by name and by number."""
    ports = [port for container in containers(pod, with_init=False) for port in container.get("ports", [])]
    return {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
