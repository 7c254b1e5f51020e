"""What leads in from outside: names, certificates, proxies. A policy yields a text for each thing that is wrong."""

from objects import at, find, name_of, of_kind

# What the components have as long as nobody has put their own there.
CLASS, NAMES = "example", ".example.com"


def _routes_of(objects, gateway):
    return [route for route in of_kind(objects, "HTTPRoute", "GRPCRoute")
            if any(parent["name"] == gateway["metadata"]["name"] for parent in route["spec"]["parentRefs"])]


def public_names_agree(objects):
    """Doors, routes and the certificate have the same names."""
    names_of_secrets = {}
    for ingress in of_kind(objects, "Ingress"):
        for entry in ingress["spec"]["tls"]:
            names_of_secrets.setdefault(entry["secretName"], set()).update(entry["hosts"])
        encrypted = {name for entry in ingress["spec"]["tls"] for name in entry["hosts"]}
        ruled = {rule["host"] for rule in ingress["spec"]["rules"]}
        if ruled != encrypted:
            yield f"{name_of(ingress)}: rules for {sorted(ruled)}, and TLS for {sorted(encrypted)}"
    for gateway in of_kind(objects, "Gateway"):
        for listener in gateway["spec"]["listeners"]:
            for reference in listener["tls"]["certificateRefs"]:
                names_of_secrets.setdefault(reference["name"], set()).add(listener["hostname"])
        heard = {listener["hostname"] for listener in gateway["spec"]["listeners"]}
        routed = {name for route in _routes_of(objects, gateway) for name in route["spec"]["hostnames"]}
        if heard != routed:
            yield f"{name_of(gateway)}: listens for {sorted(heard)}, and routes are for {sorted(routed)}"
        if gateway["spec"]["gatewayClassName"] == CLASS and not all(name.endswith(NAMES) for name in heard):
            yield f"{name_of(gateway)}: has names of its own, and the class {CLASS}"
    for certificate in of_kind(objects, "Certificate"):
        names = names_of_secrets.get(certificate["spec"]["secretName"])
        if names is not None and names != set(certificate["spec"]["dnsNames"]):
            yield f"{name_of(certificate)}: is for {sorted(certificate['spec']['dnsNames'])}, and used for {sorted(names)}"


def proxies_check_certificates(objects):
    """A Gateway speaks TLS to a Service that does only where a policy says whom it trusts."""
    certified = {name for certificate in of_kind(objects, "Certificate") if certificate["spec"]["secretName"] == "dms-tls"
                 for name in certificate["spec"]["dnsNames"]}
    for route in of_kind(objects, "HTTPRoute", "GRPCRoute"):
        for backend in (backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]):
            ports = at(find(objects, "Service", backend["name"]), "spec", "ports", default=[])
            encrypted = any(port.get("appProtocol") == "https" for port in ports)
            trusts = [policy for policy in of_kind(objects, "BackendTLSPolicy")
                      if any(target["name"] == backend["name"] for target in policy["spec"]["targetRefs"])]
            if len(trusts) != encrypted:
                yield f"{name_of(route)}: {len(trusts)} policies for TLS to {backend['name']}, which needs {int(encrypted)}"
            for policy in trusts:
                if policy["spec"]["validation"]["hostname"] not in certified:
                    yield f"{name_of(policy)}: expects a name that is in no certificate"


POLICIES = [public_names_agree, proxies_check_certificates]
