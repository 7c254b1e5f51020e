"""Checks the Dockerfile, and every composition of deploy/kubernetes as it is rendered. Run by scripts/check-deploy."""

import sys

import admin_policies
import image_policies
import object_policies
import pod_policies
import selftest
from render import COMPOSITIONS, EXAMPLE, RenderError, compose, compose_example, never_composed, version
from schemas import VERSIONS, fits_its_schema

POLICIES = [fits_its_schema, *pod_policies.POLICIES, *object_policies.POLICIES, *admin_policies.POLICIES]
COMPLETE = "production with all that goes together"


def held_to(policy, objects):
    """What a policy finds; objects that it cannot be held to are wrong as well."""
    try:
        return list(policy(objects))
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        return [f"cannot be judged: {type(error).__name__}: {error}"]


def main():
    findings = [f"{name} is in no composition (deploy/check/render.py)" for name in never_composed()]
    image = image_policies.read()
    findings += [f"image: {text} ({policy.__name__})" for policy in image_policies.POLICIES for text in policy(image)]
    findings += [f"self-test: {text}" for text in image_policies.missed()]
    complete, count = None, 0
    for title in (*COMPOSITIONS, EXAMPLE):
        try:
            objects = compose_example() if title == EXAMPLE else compose(*COMPOSITIONS[title])
        except RenderError as error:
            findings.append(f"{title}: {error}")
            continue
        found = [f"{title}: {text} ({policy.__name__})" for policy in POLICIES for text in held_to(policy, objects)]
        print(f"{'wrong' if found else 'right'}: {title}: {len(objects)} objects")
        findings += found
        count += len(objects)
        if title == COMPLETE and not found:
            complete = objects
    if complete:
        findings += [f"self-test: {text}" for text in selftest.missed(complete, POLICIES)]
    else:
        findings.append(f"the check itself is not tested: that needs '{COMPLETE}' without a fault")
    for finding in findings:
        print(finding)
    print(f"{version()}; schemas of Kubernetes {' and '.join(VERSIONS)}; {len(POLICIES)} policies on {count} objects of "
          f"{len(COMPOSITIONS) + 1} compositions, {len(image_policies.POLICIES)} on the image; self-test with "
          f"{len(selftest.FAULTS) + len(image_policies.FAULTS)} faults: {len(findings)} findings")
    return 1 if findings else 0


sys.exit(main())
