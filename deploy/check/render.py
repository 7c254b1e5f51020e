"""What is checked: each overlay alone, and with the components that go together, as kustomize renders them."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import yaml

KUBERNETES = Path(__file__).resolve().parent.parent / "kubernetes"
OVERLAYS = KUBERNETES / "overlays"
COMPONENTS = KUBERNETES / "components"
README = KUBERNETES.parent / "README.md"
EXAMPLE = "the example of README.md"
PATCHED = "the example with the other patches of README.md"

# Components in the order that they ask for.
COMPOSITIONS = {
    "dev": ("dev", []),
    "dev behind an ingress": ("dev", ["ingress", "public-certificate"]),
    "dev with a gateway of its own": ("dev", ["gateway"]),
    "production": ("production", []),
    "production behind a Gateway, for clients of the original service": (
        "production", ["gateway-api", "public-certificate", "monitoring", "auth-aksk"]),
    "production with TLS": ("production", ["tls"]),
    "production with all that goes together": (
        "production",
        ["gateway", "ingress", "gateway-api", "public-certificate", "tls", "backend-tls", "monitoring", "autoscaling-on-load",
         "otlp", "auth-jwt"]),
    "external-postgres": ("external-postgres", []),
    "external-postgres with a gateway of its own": ("external-postgres", ["gateway", "gateway-api", "monitoring"]),
}


class RenderError(Exception):
    """kustomize refused."""


def version():
    """What renders."""
    run = subprocess.run(["kubectl", "version", "--client", "--output=json"], capture_output=True, check=True)
    versions = json.loads(run.stdout)
    return f"kubectl {versions['clientVersion']['gitVersion']} with kustomize {versions['kustomizeVersion']}"


def render(folder):
    """The objects of a kustomization."""
    run = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RenderError(run.stderr.strip())
    if "deprecated" in run.stderr.lower():
        raise RenderError(run.stderr.strip())
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def compose(overlay, components):
    """The objects of an overlay with components, as a kustomization of somebody who uses this folder would have them."""
    return render_apart({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [OVERLAYS / overlay],
        "components": [COMPONENTS / component for component in components],
    })


def example(patched):
    """The kustomization that README.md shows, alone or with what it shows further on."""
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    kustomization, *others = map(yaml.safe_load, blocks)
    for kind in ("resources", "components"):
        kustomization[kind] = [KUBERNETES / path.removeprefix("../dms/deploy/kubernetes/") for path in kustomization[kind]]
    for other in others if patched else []:
        for kind, items in other.items():
            kustomization.setdefault(kind, []).extend(items)
    return kustomization


def idle_patches():
    """Patches of README.md that change nothing: kustomize says nothing of a target that is not there."""
    whole = example(patched=True)
    objects = render_apart(whole)
    for patch in whole["patches"]:
        if render_apart(whole | {"patches": [other for other in whole["patches"] if other is not patch]}) == objects:
            yield f"a patch of {README.name} changes nothing: {patch['target']}"


def render_apart(kustomization):
    """The objects of a kustomization, with absolute paths, that is in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # kustomize follows no symbolic links out of a folder, and takes no absolute paths.
        here = Path(folder).resolve()
        paths = {kind: [os.path.relpath(path, here) for path in kustomization[kind]] for kind in ("resources", "components")}
        (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization | paths))
        return render(here)


def never_composed():
    """Overlays and components that no composition has."""
    composed = {overlay for overlay, _ in COMPOSITIONS.values()}
    composed |= {component for _, components in COMPOSITIONS.values() for component in components}
    present = {path.name for folder in (OVERLAYS, COMPONENTS) for path in folder.iterdir()}
    return sorted(present - composed)
