"""Proves the check itself: each policy must find the fault that it is there for, and a bad manifest must not pass."""

import copy
from pathlib import Path

import admin_policies
import object_policies
import pod_policies
import postgres_policies
import public_policies
from objects import containers, find
from render import render
from schemas import fits_its_schema

BROKEN = Path(__file__).parent / "broken"


def _pod(objects):
    return find(objects, "Deployment", "dms")["spec"]["template"]["spec"]


def _container(objects):
    return containers(_pod(objects), with_init=False)[0]


def _gateway(objects):
    return containers(find(objects, "Deployment", "dms-gateway")["spec"]["template"]["spec"])[0]


def _spec(objects, kind, name):
    return find(objects, kind, name)["spec"]


def _cluster(objects):
    return _spec(objects, "Cluster", "dms-postgres")


def _parameters(objects):
    return _cluster(objects)["postgresql"]["parameters"]


def _initdb(objects):
    return _cluster(objects)["bootstrap"]["initdb"]


def _rename(objects):
    """All names, and not the class."""
    for kind, name in (("HTTPRoute", "dms-rest"), ("GRPCRoute", "dms-grpc")):
        _spec(objects, kind, name).update(hostnames=["mq.example"])
    for listener in _spec(objects, "Gateway", "dms")["listeners"]:
        listener.update(hostname="mq.example")
    _spec(objects, "Certificate", "dms-public")["dnsNames"].append("mq.example")


def _without(objects, kind, *names):
    for name in names:
        objects.remove(find(objects, kind, name))


def _settings(objects):
    return next(thing for thing in objects if thing["metadata"]["name"].startswith("dms-settings"))["data"]


def _open_admin(objects, name, port):
    _spec(objects, "NetworkPolicy", name)["ingress"][0]["ports"].append(port)


def _open_ingress(objects):
    _spec(objects, "NetworkPolicy", "dms")["ingress"][0].pop("from")


# What is broken in objects that were good, and the policy that must say so.
FAULTS = [
    (pod_policies.runs_without_root, lambda o: _pod(o)["securityContext"].pop("runAsNonRoot")),
    (pod_policies.runs_without_root, lambda o: _pod(o)["securityContext"].update(runAsUser=0)),
    (pod_policies.runs_without_root, lambda o: _container(o)["securityContext"].update(runAsUser=0)),
    (pod_policies.is_confined, lambda o: _pod(o)["securityContext"].pop("seccompProfile")),
    (pod_policies.is_confined, lambda o: _pod(o).update(hostNetwork=True)),
    (pod_policies.is_confined, lambda o: _pod(o)["volumes"].append({"name": "etc", "hostPath": {"path": "/etc"}})),
    (pod_policies.is_confined, lambda o: _container(o)["securityContext"].pop("allowPrivilegeEscalation")),
    (pod_policies.is_confined, lambda o: _container(o)["securityContext"]["capabilities"].update(add=["NET_ADMIN"])),
    (pod_policies.cannot_write_its_image, lambda o: _pod(o)["initContainers"][0].pop("securityContext")),
    (pod_policies.has_no_token, lambda o: _pod(o).pop("automountServiceAccountToken")),
    (pod_policies.has_no_token, lambda o: find(o, "ServiceAccount", "dms").pop("automountServiceAccountToken")),
    (pod_policies.has_limits, lambda o: _container(o)["resources"]["limits"].pop("memory")),
    (pod_policies.has_limits, lambda o: _container(o)["resources"]["requests"].update(memory="2Gi")),
    (pod_policies.has_probes, lambda o: _container(o).pop("livenessProbe")),
    (pod_policies.has_probes, lambda o: _container(o)["readinessProbe"].update(grpc={"port": 50051})),
    (pod_policies.has_probes, lambda o: _container(o)["livenessProbe"]["httpGet"].update(port="web")),
    (pod_policies.probes_fit_tls, lambda o: _container(o)["livenessProbe"]["httpGet"].update(port="rest")),
    (pod_policies.probes_fit_tls, lambda o: _container(o)["livenessProbe"]["httpGet"].update(scheme="HTTPS")),
    (pod_policies.ends_in_time, lambda o: _pod(o).update(terminationGracePeriodSeconds=30)),
    (pod_policies.ends_in_time, lambda o: _settings(o).update(DMS_SHUTDOWN_LIMIT="2m")),
    (pod_policies.ends_in_time, lambda o: _container(o).pop("lifecycle")),
    (pod_policies.has_an_exact_image, lambda o: _container(o).update(image="dms:latest")),
    (pod_policies.has_an_exact_image, lambda o: _container(o).update(image="registry.example:5000/dms")),
    (pod_policies.has_an_exact_image,
     lambda o: _cluster(o).update(imageName="ghcr.io/cloudnative-pg/postgresql:17.11-minimal-trixie")),
    (pod_policies.is_spread, lambda o: _pod(o)["topologySpreadConstraints"].pop()),
    (pod_policies.is_spread, lambda o: _pod(o)["topologySpreadConstraints"][1].pop("nodeTaintsPolicy")),
    (pod_policies.is_spread, lambda o: _pod(o)["topologySpreadConstraints"][1].pop("matchLabelKeys")),
    (pod_policies.memory_holds_what_is_allowed, lambda o: _container(o)["resources"]["limits"].update(memory="1Gi")),
    (pod_policies.memory_holds_what_is_allowed, lambda o: _gateway(o)["resources"]["limits"].update(memory="256Mi")),
    (pod_policies.memory_holds_what_is_allowed, lambda o: _settings(o).update(DMS_MEMORY_MAX="1200MiB")),
    (object_policies.settings_exist, lambda o: _settings(o).update(DMS_APEND_LANES="4")),
    (object_policies.callers_must_prove_who_they_are, lambda o: _settings(o).update(DMS_AUTH="none")),
    (object_policies.files_of_settings_are_mounted, lambda o: _container(o)["volumeMounts"].pop()),
    (object_policies.files_of_settings_are_mounted, lambda o: _container(o)["volumeMounts"][0].update(subPath="x")),
    (object_policies.what_is_named_is_there, lambda o: _without(o, "ServiceAccount", "dms")),
    (object_policies.what_is_named_is_there, lambda o: _without(o, "Certificate", "dms-tls")),
    (object_policies.what_is_named_is_there, lambda o: _without(o, "Deployment", "dms-gateway")),
    (object_policies.services_reach_pods, lambda o: _spec(o, "Service", "dms-rest")["selector"].update(x="y")),
    (object_policies.services_reach_pods, lambda o: _spec(o, "Service", "dms-grpc")["ports"][0].update(targetPort=1)),
    (object_policies.routes_reach_services, lambda o: _without(o, "Service", "dms-rest")),
    (object_policies.routes_reach_services, lambda o: _without(o, "Ingress", "dms-grpc")),
    (object_policies.routes_reach_services, lambda o: _without(o, "GRPCRoute", "dms-grpc")),
    (object_policies.routes_reach_services,
     lambda o: _spec(o, "Gateway", "dms")["listeners"][0].update(hostname="mq.example")),
    (object_policies.something_decides_how_many, lambda o: _spec(o, "Deployment", "dms").update(replicas=2)),
    (object_policies.something_decides_how_many, lambda o: _spec(o, "HorizontalPodAutoscaler", "dms").update(metrics=[])),
    (object_policies.disruptions_are_bounded, lambda o: _without(o, "PodDisruptionBudget", "dms")),
    (object_policies.the_network_is_closed, lambda o: _without(o, "NetworkPolicy", "dms-gateway", "dms-to-collector")),
    (object_policies.the_network_is_closed, _open_ingress),
    (object_policies.names_can_be_resolved, lambda o: _spec(o, "NetworkPolicy", "dms")["egress"][0]["to"].pop()),
    (object_policies.names_can_be_resolved, lambda o: _spec(o, "NetworkPolicy", "dms")["egress"][0]["ports"].pop()),
    (object_policies.names_can_be_resolved, lambda o: _spec(o, "NetworkPolicy", "dms-gateway")["egress"].pop()),
    (postgres_policies.postgres_keeps_what_was_answered, lambda o: _cluster(o).update(instances=1)),
    (postgres_policies.postgres_keeps_what_was_answered, lambda o: _cluster(o)["postgresql"].pop("synchronous")),
    (postgres_policies.postgres_keeps_what_was_answered,
     lambda o: _spec(o, "HorizontalPodAutoscaler", "dms").update(maxReplicas=20)),
    (postgres_policies.postgres_has_room_for_its_wal, lambda o: _parameters(o).pop("max_slot_wal_keep_size")),
    (postgres_policies.postgres_has_room_for_its_wal, lambda o: _parameters(o).update(max_wal_size="10GB")),
    (postgres_policies.postgres_has_room_for_its_wal, lambda o: _cluster(o)["walStorage"].update(size="16Gi")),
    (postgres_policies.postgres_tells_of_other_roles, lambda o: _initdb(o).pop("postInitApplicationSQL")),
    (postgres_policies.postgres_tells_of_other_roles, lambda o: _initdb(o).update(owner="app")),
    (public_policies.public_names_agree, lambda o: _spec(o, "Certificate", "dms-public")["dnsNames"].pop()),
    (public_policies.public_names_agree, lambda o: _spec(o, "Ingress", "dms-rest")["rules"][0].update(host="mq.example")),
    (public_policies.public_names_agree, lambda o: _spec(o, "HTTPRoute", "dms-rest").update(hostnames=["mq.example"])),
    (public_policies.public_names_agree, _rename),
    (public_policies.proxies_check_certificates, lambda o: _without(o, "BackendTLSPolicy", "dms-grpc")),
    (public_policies.proxies_check_certificates,
     lambda o: _spec(o, "BackendTLSPolicy", "dms-rest")["validation"].update(hostname="dms.example.com")),
    (object_policies.everything_has_one_namespace, lambda o: find(o, "Namespace", "dms")["metadata"].pop("labels")),
    (object_policies.everything_has_one_namespace,
     lambda o: find(o, "Service", "dms-grpc")["metadata"].update(namespace="default")),
    (admin_policies.admin_port_is_the_setting, lambda o: _settings(o).update(DMS_ADMIN_ADDR="127.0.0.1:9464")),
    (admin_policies.admin_port_is_the_setting, lambda o: _gateway(o)["ports"].pop()),
    (admin_policies.only_monitoring_reaches_admin, lambda o: _open_admin(o, "dms", {"port": "admin"})),
    (admin_policies.only_monitoring_reaches_admin, lambda o: _open_admin(o, "dms-gateway", {"port": "admin"})),
    (admin_policies.only_monitoring_reaches_admin, lambda o: _open_admin(o, "dms", {"port": 9000, "endPort": 9999})),
    (admin_policies.only_monitoring_reaches_admin,
     lambda o: _spec(o, "NetworkPolicy", "dms-metrics")["ingress"][0]["from"][0].pop("podSelector")),
    (admin_policies.only_monitoring_reaches_admin,
     lambda o: _spec(o, "Service", "dms-rest")["ports"].append({"port": 80, "targetPort": "admin"})),
    (admin_policies.monitors_find_pods,
     lambda o: _spec(o, "PodMonitor", "dms")["podMetricsEndpoints"][0].update(port="metrics")),
    (admin_policies.monitors_find_pods,
     lambda o: _gateway(o)["ports"].remove({"name": "admin", "containerPort": 9464})),
    (admin_policies.metrics_exist,
     lambda o: _spec(o, "HorizontalPodAutoscaler", "dms")["metrics"][1]["pods"]["metric"].update(name="dms_requests")),
    (fits_its_schema, lambda o: _cluster(o).update(instance=3)),
    (fits_its_schema, lambda o: _cluster(o).pop("instances")),
    (fits_its_schema, lambda o: _parameters(o).update(max_connections=9)),
    (fits_its_schema, lambda o: _cluster(o)["postgresql"]["synchronous"].update(dataDurability="requird")),
    (fits_its_schema, lambda o: _cluster(o)["postgresql"]["synchronous"].update(method="anyy")),
    (fits_its_schema, lambda o: _cluster(o)["postgresql"]["synchronous"].pop("number")),
    (fits_its_schema, lambda o: _spec(o, "Certificate", "dms-public").pop("issuerRef")),
    (fits_its_schema, lambda o: _spec(o, "Certificate", "dms-tls")["usages"].append("server-auth")),
    (fits_its_schema, lambda o: _spec(o, "Gateway", "dms")["listeners"][0].update(protocol="https")),
    (fits_its_schema, lambda o: _spec(o, "HTTPRoute", "dms-rest")["rules"][0]["matches"][0]["path"].update(type="Prefix")),
    (fits_its_schema, lambda o: _spec(o, "GRPCRoute", "dms-grpc")["parentRefs"][0].pop("name")),
    (fits_its_schema, lambda o: _spec(o, "PodMonitor", "dms").pop("selector")),
    (fits_its_schema, lambda o: _pod(o).update(runtimeClas="x")),
    (fits_its_schema, lambda o: _container(o)["ports"][0].update(containerPort="50051")),
    (fits_its_schema, lambda o: find(o, "Deployment", "dms").update(apiVersion="apps/v1beta1")),
]


def missed_in_files(module):
    """The same for policies on files, with the faults of their module."""
    good = module.read()
    for number, (policy, file, old, new) in enumerate(module.FAULTS):
        if old not in good[file] or not list(policy(good | {file: good[file].replace(old, new)})):
            yield f"{policy.__name__} does not find fault {number} of {module.__name__}"
    for policy in module.POLICIES:
        if policy not in {policy for policy, *_ in module.FAULTS}:
            yield f"nothing proves {policy.__name__}"


def missed(good, policies):
    """What the check does not find, of all that it must find. `good` are objects without a fault that have everything."""
    for number, (policy, fault) in enumerate(FAULTS):
        objects = copy.deepcopy(good)
        fault(objects)
        if not list(policy(objects)):
            yield f"{policy.__name__} does not find fault {number}"
    for policy in policies:
        if policy not in {policy for policy, _ in FAULTS}:
            yield f"nothing proves {policy.__name__}"
    # The way from a file to a finding, too.
    objects = render(BROKEN)
    silent = [policy.__name__ for policy in pod_policies.POLICIES[:6] + [fits_its_schema] if not list(policy(objects))]
    if silent:
        yield f"the broken manifest passes {', '.join(silent)}"
