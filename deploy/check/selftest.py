"""Proves the check itself: each policy must find the fault that it is there for, and a bad manifest must not pass."""

import copy
from pathlib import Path

import admin_policies
import object_policies
import pod_policies
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


def _without(objects, kind, name):
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
    (pod_policies.is_spread, lambda o: _pod(o)["topologySpreadConstraints"].pop()),
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
    (object_policies.something_decides_how_many, lambda o: _spec(o, "Deployment", "dms").update(replicas=2)),
    (object_policies.something_decides_how_many, lambda o: _spec(o, "HorizontalPodAutoscaler", "dms").update(metrics=[])),
    (object_policies.disruptions_are_bounded, lambda o: _without(o, "PodDisruptionBudget", "dms")),
    (object_policies.the_network_is_closed, lambda o: _without(o, "NetworkPolicy", "dms-gateway")),
    (object_policies.the_network_is_closed, _open_ingress),
    (object_policies.postgres_keeps_what_was_answered, lambda o: _spec(o, "Cluster", "dms-postgres").update(instances=1)),
    (object_policies.postgres_keeps_what_was_answered,
     lambda o: _spec(o, "Cluster", "dms-postgres")["postgresql"].pop("synchronous")),
    (object_policies.postgres_keeps_what_was_answered,
     lambda o: _spec(o, "HorizontalPodAutoscaler", "dms").update(maxReplicas=20)),
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
    (fits_its_schema, lambda o: _spec(o, "Cluster", "dms-postgres").update(instance=3)),
    (fits_its_schema, lambda o: _spec(o, "Cluster", "dms-postgres")["postgresql"]["parameters"].update(max_connections=9)),
    (fits_its_schema, lambda o: _pod(o).update(runtimeClas="x")),
    (fits_its_schema, lambda o: _container(o)["ports"][0].update(containerPort="50051")),
    (fits_its_schema, lambda o: find(o, "Deployment", "dms").update(apiVersion="apps/v1beta1")),
]


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
