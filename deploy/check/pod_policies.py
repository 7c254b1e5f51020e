"""What every pod must keep to. A policy yields a text for each thing that is wrong."""

import re
from pathlib import Path

from objects import at, containers, is_dms, name_of, of_kind, pods, port_names, quantity, seconds, settings

# How long the broker may take to end after the calls in flight: BROKER_LIMIT in src/app/server.rs.
BROKER_SECONDS = 5
SOURCE = Path(__file__).resolve().parents[2] / "src"
MIB = 1024 ** 2
# What a process may have resident beside each byte of --memory-max (docs/capacity.md).
RESIDENT_PER_BUDGET = 1.3


def runs_without_root(objects):
    for workload, pod, _ in pods(objects):
        context = pod.get("securityContext", {})
        if context.get("runAsNonRoot") is not True:
            yield f"{name_of(workload)}: runAsNonRoot is not true"
        if not context.get("runAsUser"):
            yield f"{name_of(workload)}: runAsUser is not a user other than root"
        for container in containers(pod):
            own = container.get("securityContext", {})
            if own.get("runAsNonRoot") is False or own.get("runAsUser") == 0:
                yield f"{name_of(workload)}: container {container['name']} may be root"


def is_confined(objects):
    for workload, pod, _ in pods(objects):
        if at(pod, "securityContext", "seccompProfile", "type") != "RuntimeDefault":
            yield f"{name_of(workload)}: seccompProfile is not RuntimeDefault"
        for setting in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(setting):
                yield f"{name_of(workload)}: {setting}"
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                yield f"{name_of(workload)}: volume {volume['name']} is a path of the node"
        for container in containers(pod):
            context = container.get("securityContext", {})
            where = f"{name_of(workload)}: container {container['name']}"
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: allowPrivilegeEscalation is not false"
            if context.get("privileged"):
                yield f"{where}: privileged"
            capabilities = context.get("capabilities", {})
            if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
                yield f"{where}: has capabilities"


def cannot_write_its_image(objects):
    for workload, pod, _ in pods(objects):
        for container in containers(pod):
            if at(container, "securityContext", "readOnlyRootFilesystem") is not True:
                yield f"{name_of(workload)}: container {container['name']}: the root file system can be written"


def has_no_token(objects):
    for account in of_kind(objects, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{name_of(account)}: automountServiceAccountToken is not false"
    for workload, pod, _ in pods(objects):
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name_of(workload)}: automountServiceAccountToken is not false"


def has_limits(objects):
    for workload, pod, _ in pods(objects):
        for container in containers(pod):
            for what in ("cpu", "memory"):
                where = f"{name_of(workload)}: container {container['name']}: {what}"
                request = at(container, "resources", "requests", what)
                limit = at(container, "resources", "limits", what)
                if request is None or limit is None:
                    yield f"{where}: no request, or no limit"
                elif quantity(request) > quantity(limit):
                    yield f"{where}: the request is larger than the limit"


def _default_memory(command):
    """The default of --memory-max of a service, or of a gateway of its own, as the sources have it."""
    if command == "serve":
        found = re.search(r"\bmemory_max: (\d+) \* MIB,", (SOURCE / "broker/settings.rs").read_text())
    else:
        found = re.search(r'DMS_MEMORY_MAX.* default_value = "(\d+)MiB"', (SOURCE / "config/memory.rs").read_text())
    return int(found[1]) * MIB


def _memory_max(objects, container):
    given = settings(objects, container).get("DMS_MEMORY_MAX")
    return quantity(given.removesuffix("B")) if given else _default_memory(container["args"][0])


def memory_holds_what_is_allowed(objects):
    for workload, pod, _ in pods(objects):
        for container in filter(is_dms, containers(pod, with_init=False)):
            limit = quantity(container["resources"]["limits"]["memory"])
            needs = RESIDENT_PER_BUDGET * _memory_max(objects, container)
            if limit < needs:
                yield f"{name_of(workload)}: killed at {limit / MIB:g} MiB, and --memory-max lets it have {needs / MIB:g} MiB"


def has_probes(objects):
    for workload, pod, _ in pods(objects):
        if workload["kind"] == "Job":
            continue
        for container in containers(pod, with_init=False):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                where = f"{name_of(workload)}: container {container['name']}: {probe}"
                ways = set(container.get(probe, {})) & {"httpGet", "grpc", "tcpSocket", "exec"}
                if len(ways) != 1:
                    yield f"{where}: there must be one way to ask, not {len(ways)}"
                for way in ways - {"exec"}:
                    if container[probe][way].get("port") not in port_names(pod):
                        yield f"{where}: asks at a port that is not declared"


def probes_fit_tls(objects):
    for workload, pod, _ in pods(objects):
        for container in filter(is_dms, containers(pod, with_init=False)):
            has_tls = "DMS_TLS_CERT" in settings(objects, container)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                way = container.get(probe, {})
                # The admin port never speaks TLS.
                speaks = has_tls and at(way, "httpGet", "port") != "admin"
                if "httpGet" in way and (way["httpGet"].get("scheme") == "HTTPS") != speaks:
                    yield f"{name_of(workload)}: {probe} and the listener differ on TLS"
                if "grpc" in way and has_tls:
                    yield f"{name_of(workload)}: {probe}: gRPC probes know no TLS"


def ends_in_time(objects):
    for workload, pod, _ in pods(objects):
        for container in filter(is_dms, containers(pod, with_init=False)):
            rest = at(container, "lifecycle", "preStop", "sleep", "seconds", default=0)
            if not rest:
                yield f"{name_of(workload)}: no preStop: calls still come while it stops"
            drains = seconds(settings(objects, container).get("DMS_SHUTDOWN_LIMIT", "25s"))
            needs = rest + drains + BROKER_SECONDS
            grace = pod.get("terminationGracePeriodSeconds", 30)
            if grace < needs:
                yield f"{name_of(workload)}: is killed after {grace} s and may need {needs:g} s"


def has_an_exact_image(objects):
    for workload, pod, _ in pods(objects):
        for container in containers(pod):
            image = container.get("image", "")
            tag = image.rsplit("/", 1)[-1].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                yield f"{name_of(workload)}: container {container['name']}: {image} is no version"
    for cluster in of_kind(objects, "Cluster"):
        image = cluster["spec"].get("imageName", "")
        # MM.mm-TYPE-OS moves with each build of the image, and MM-TYPE-OS with each minor version too.
        if not re.search(r"(:\d+\.\d+-\d{12}(-[a-z]+)*|@sha256:[0-9a-f]{64})$", image):
            yield f"{name_of(cluster)}: {image} is no version with its date"


def is_spread(objects):
    for workload, pod, labels in pods(objects):
        if workload["kind"] != "Deployment":
            continue
        over = {}
        for constraint in pod.get("topologySpreadConstraints", []):
            if at(constraint, "labelSelector", "matchLabels") == labels:
                over[constraint["topologyKey"]] = constraint
            where = f"{name_of(workload)}: its pods are spread over {constraint['topologyKey']}"
            if constraint.get("nodeTaintsPolicy") != "Honor":
                yield f"{where}, of which some may take none of them"
            if "pod-template-hash" not in constraint.get("matchLabelKeys", []):
                yield f"{where} with those of the version before"
        if not {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} <= set(over):
            yield f"{name_of(workload)}: its pods are not spread over zones and nodes"


POLICIES = [
    runs_without_root, is_confined, cannot_write_its_image, has_no_token, has_limits, has_probes, probes_fit_tls,
    ends_in_time, has_an_exact_image, is_spread, memory_holds_what_is_allowed,
]
