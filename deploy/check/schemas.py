"""Whether objects have the fields, types and values that Kubernetes, or the definition of a custom resource, gives them."""

import re
from pathlib import Path

import kubernetes_validate
import yaml

from objects import name_of

# The oldest version that has all that is used here, and the newest that there are schemas of.
VERSIONS = ("1.30", "1.37")
CUSTOM = yaml.safe_load((Path(__file__).parent / "custom-resources.yaml").read_text())
TYPES = {
    "integer": lambda value: type(value) is int,
    "text": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "size": lambda value: re.fullmatch(r"\d+(\.\d+)?(m|[KMGT]i?)?", str(value)),
    "time": lambda value: isinstance(value, str) and re.fullmatch(r"(\d+(h|m|s|ms))+", value),
    "labels": lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
}


def _differences(value, shape, path):
    if isinstance(shape, str):
        if not (TYPES[shape](value) if shape in TYPES else value in shape.split("|")):
            yield f"{path}: is not {shape}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path}: is not a list"
            return
        for index, item in enumerate(value):
            yield from _differences(item, shape[0], f"{path}[{index}]")
    elif not isinstance(value, dict):
        yield f"{path}: is not an object"
    else:
        fields = {key.removesuffix("!"): type_of_it for key, type_of_it in shape.items()}
        for key, item in value.items():
            if key in fields:
                yield from _differences(item, fields[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: is not a known field"
        for key in shape:
            if key.endswith("!") and key[:-1] not in value:
                yield f"{path}.{key[:-1]}: is not there"


def _custom(thing):
    yield from _differences(thing.get("spec"), CUSTOM[f"{thing['apiVersion']} {thing['kind']}"], "spec")
    for field in set(thing) - {"apiVersion", "kind", "metadata", "spec"}:
        yield f"{field}: is not a known field"


def _built_in(thing, version):
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"Kubernetes {version} knows no {thing['apiVersion']} {thing['kind']}"


def fits_its_schema(objects):
    """A policy like the others."""
    for thing in objects:
        if f"{thing['apiVersion']} {thing['kind']}" in CUSTOM:
            yield from (f"{name_of(thing)}: {difference}" for difference in _custom(thing))
        else:
            for version in VERSIONS:
                yield from (f"{name_of(thing)}: {difference}" for difference in _built_in(thing, version))
