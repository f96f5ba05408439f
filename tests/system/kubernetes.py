"""Checks rendered manifests offline: the kinds of Kubernetes by kubernetes-validate, the rest here.

Usage: kubernetes.py RENDERED. Prints what is wrong; exit 0 if nothing is.
"""

import subprocess
import sys

import yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

VERSIONS = ["1.29.0", "1.33.0", "1.37.0"]
CUSTOM = {"ServiceMonitor": ServiceMonitor}


def problems(path):
    with open(path) as rendered:
        documents = list(yaml.safe_load_all(rendered))
    kinds = [document["kind"] for document in documents]
    if "DaemonSet" not in kinds:
        yield f"no DaemonSet among {kinds}"
    for document in documents:
        if model := CUSTOM.get(document["kind"]):
            yield from custom(model, document)
        if document["kind"] == "DaemonSet":
            yield from pod(document["spec"]["template"]["spec"])
    known = f"{path}.known"
    with open(known, "w") as file:
        yaml.safe_dump_all([d for d in documents if d["kind"] not in CUSTOM], file)
    for version in VERSIONS:
        command = ["kubernetes-validate", "--strict", "--quiet", "-k", version, known]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode or found.stdout or found.stderr:
            yield f"against {version}: {found.stdout}{found.stderr}"


def custom(model, document):
    """The generated model takes unknown fields silently, so what it keeps is compared with what was given."""
    kept = model.model_validate(document).model_dump(by_alias=True, exclude_none=True, mode="json")
    if kept["spec"] != document["spec"]:
        yield f"{document['kind']}: {document['spec']} is understood as {kept['spec']}"


def pod(spec):
    volumes = {volume["name"] for volume in spec["volumes"]}
    containers = spec["containers"] + spec.get("initContainers", [])
    for container in containers:
        context = container["securityContext"]
        added = context["capabilities"].get("add", [])
        if context["allowPrivilegeEscalation"] or context["capabilities"]["drop"] != ["ALL"]:
            yield f"{container['name']} keeps rights it was not given: {context}"
        if "SYS_PTRACE" in added and container["name"] != "ioasd":
            yield f"{container['name']} has CAP_SYS_PTRACE"
        if missing := {mount["name"] for mount in container["volumeMounts"]} - volumes:
            yield f"{container['name']} mounts {missing}, which the pod does not have"
    if not spec["hostPID"]:
        yield "without hostPID every client is process 0"


found = list(problems(sys.argv[1]))
print("\n".join(found), end="\n" if found else "")
sys.exit(bool(found))
