"""Checks the Dockerfile, the rules of the Prometheus adapter, and every composition of deploy/kubernetes as it is rendered. Run by
scripts/check-deploy."""

import sys

import adapter_policies
import admin_policies
import image_policies
import object_policies
import pod_policies
import postgres_policies
import public_policies
import selftest
from render import (COMPOSITIONS, EXAMPLE, PATCHED, RenderError, compose, example, idle_patches, never_composed, render_apart,
                    version)
from schemas import VERSIONS, fits_its_schema

ON_OBJECTS = (pod_policies, object_policies, postgres_policies, public_policies, admin_policies)
POLICIES = [fits_its_schema, *(policy for module in ON_OBJECTS for policy in module.POLICIES)]
ON_FILES = (image_policies, adapter_policies)
EXAMPLES = {EXAMPLE: False, PATCHED: True}
COMPLETE = "production with all that goes together"


def held_to(policy, objects):
    """What a policy finds; objects that it cannot be held to are wrong as well."""
    try:
        return list(policy(objects))
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        return [f"cannot be judged: {type(error).__name__}: {error}"]


def main():
    findings = [f"{name} is in no composition (deploy/check/render.py)" for name in never_composed()]
    for module in ON_FILES:
        texts = module.read()
        findings += [f"{text} ({policy.__name__})" for policy in module.POLICIES for text in policy(texts)]
        findings += [f"self-test: {text}" for text in selftest.missed_in_files(module)]
    complete, count = None, 0
    for title in (*COMPOSITIONS, *EXAMPLES):
        try:
            objects = render_apart(example(EXAMPLES[title])) if title in EXAMPLES else compose(*COMPOSITIONS[title])
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
    if not findings:
        findings += idle_patches()
    for finding in findings:
        print(finding)
    print(f"{version()}; schemas of Kubernetes {' and '.join(VERSIONS)}; {len(POLICIES)} policies on {count} objects of "
          f"{len(COMPOSITIONS) + len(EXAMPLES)} compositions, {sum(len(module.POLICIES) for module in ON_FILES)} on files; "
          f"self-test with {len(selftest.FAULTS) + sum(len(module.FAULTS) for module in ON_FILES)} faults: {len(findings)} findings")
    return 1 if findings else 0


sys.exit(main())
