"""Renders every composition of deploy/kubernetes and checks it. Run by scripts/check-deploy."""

import sys

import object_policies
import pod_policies
import selftest
from render import COMPOSITIONS, RenderError, compose, never_composed
from schemas import VERSIONS, fits_its_schema, kubernetes_validate

POLICIES = [fits_its_schema, *pod_policies.POLICIES, *object_policies.POLICIES]
COMPLETE = "production with all that goes together"


def main():
    findings = [f"{name} is in no composition (deploy/check/render.py)" for name in never_composed()]
    complete = None
    for title, (overlay, components) in COMPOSITIONS.items():
        try:
            objects = compose(overlay, components)
        except RenderError as error:
            findings.append(f"{title}: {error}")
            continue
        found = [f"{title}: {text} ({policy.__name__})" for policy in POLICIES for text in policy(objects)]
        print(f"{'wrong' if found else 'right'}: {title}: {len(objects)} objects")
        findings += found
        if title == COMPLETE and not found:
            complete = objects
    if complete:
        findings += [f"self-test: {text}" for text in selftest.missed(complete, POLICIES)]
        print(f"self-test: {len(selftest.FAULTS + selftest.FAULTS_OF_BUILT_IN)} faults")
    if kubernetes_validate:
        print(f"schemas: Kubernetes {' and '.join(VERSIONS)}")
    else:
        print("skipped: schemas of Kubernetes: kubernetes-validate cannot be had from PyPI")
    for finding in findings:
        print(finding)
    return 1 if findings else 0


sys.exit(main())
