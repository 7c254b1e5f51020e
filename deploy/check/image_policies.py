"""What the Dockerfile must have, as far as its text tells. A policy yields a text for each thing that is wrong."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("title", "description", "licenses", "version", "revision", "created")
# Bases without a shell and a package manager.
BASES = ("gcr.io/distroless/static-debian", "gcr.io/distroless/cc-debian", "scratch")


def read():
    """The Dockerfile and the files that it must agree with."""
    return {name: (ROOT / name).read_text() for name in
            ("deploy/Dockerfile", ".dockerignore", "Cargo.toml", "deploy/kubernetes/base/kustomization.yaml")}


def _instructions(texts):
    """Each as its name and the rest of it, on one line."""
    lines = [line for line in texts["deploy/Dockerfile"].splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def _last_stage(texts):
    instructions = _instructions(texts)
    return instructions[max(index for index, (name, _) in enumerate(instructions) if name == "FROM"):]


def _arguments(texts):
    return dict(rest.split("=", 1) for name, rest in _instructions(texts) if name == "ARG" and "=" in rest)


def sources_are_sent(texts):
    """What is copied exists, and .dockerignore lets it through."""
    sent = {line[1:] for line in texts[".dockerignore"].splitlines() if line.startswith("!")}
    for name, rest in _instructions(texts):
        if name != "COPY" or "--from" in rest:
            continue
        for source in rest.split()[:-1]:
            if not any(source == path or source.startswith(f"{path}/") for path in sent):
                yield f"COPY {source}: .dockerignore keeps it back"
            if not (ROOT / source).exists():
                yield f"COPY {source}: is not there"


def dependencies_have_a_layer(texts):
    """Between the manifests and the sources something is built."""
    steps = [f"{name} {rest}" for name, rest in _instructions(texts)]
    try:
        manifests = steps.index("COPY Cargo.toml Cargo.lock ./")
        sources = steps.index("COPY src src")
    except ValueError:
        yield "manifests and sources are not copied apart"
        return
    if not any("cargo build --locked" in step for step in steps[manifests:sources]):
        yield "dependencies have no layer of their own"


def base_is_distroless(texts):
    base = _last_stage(texts)[0][1]
    for name, value in _arguments(texts).items():
        base = base.replace(f"${{{name}}}", value)
    if not base.startswith(BASES):
        yield f"the base {base} has more than the program needs"


def image_is_not_root(texts):
    users = [rest for name, rest in _last_stage(texts) if name == "USER"]
    if not users or not re.match(r"[1-9]\d*(:[1-9]\d*)?$", users[-1]):
        yield f"USER is no number other than 0: {users}"


def image_is_labelled(texts):
    labels = " ".join(rest for name, rest in _last_stage(texts) if name == "LABEL")
    for label in LABELS:
        if f"org.opencontainers.image.{label}=" not in labels:
            yield f"no label {label}"


def image_tells_its_health(texts):
    if not any(name == "HEALTHCHECK" and '"healthcheck"' in rest for name, rest in _last_stage(texts)):
        yield "no HEALTHCHECK with `dms healthcheck`"


def versions_agree(texts):
    version = re.search(r'^version = "(.*)"', texts["Cargo.toml"], re.MULTILINE)[1]
    if _arguments(texts).get("VERSION") != version:
        yield f"the label has not the version {version}"
    if f"newTag: {version}\n" not in texts["deploy/kubernetes/base/kustomization.yaml"]:
        yield f"the base of kustomize has not the version {version}"


POLICIES = [sources_are_sent, dependencies_have_a_layer, base_is_distroless, image_is_not_root, image_is_labelled,
            image_tells_its_health, versions_agree]
# What is replaced in which file, and the policy that must say so.
FAULTS = [
    (sources_are_sent, ".dockerignore", "!migrations", "#"),
    (sources_are_sent, "deploy/Dockerfile", "COPY proto proto", "COPY protocol proto"),
    (sources_are_sent, ".dockerignore", "!lab/Cargo.toml", "!lab/Cargo.lock"),
    (dependencies_have_a_layer, "deploy/Dockerfile", "COPY Cargo.toml Cargo.lock ./", "COPY . ."),
    (dependencies_have_a_layer, "deploy/Dockerfile", "RUN mkdir src", "COPY src src\nRUN mkdir src"),
    (base_is_distroless, "deploy/Dockerfile", "gcr.io/distroless/cc-debian13:nonroot", "debian:trixie"),
    (image_is_not_root, "deploy/Dockerfile", "USER 65532:65532", "USER nonroot"),
    (image_is_labelled, "deploy/Dockerfile", "org.opencontainers.image.licenses", "licenses"),
    (image_tells_its_health, "deploy/Dockerfile", "HEALTHCHECK", "#"),
    (versions_agree, "Cargo.toml", '\nversion = "', '\nversion = "9'),
]
