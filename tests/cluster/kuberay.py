"""The fields of KubeRay's objects (ray.io/v1 of its release 1.7), as far as our files use them."""

from typing import Any

POD = "pod"
"""A Kubernetes pod template, which is not looked into."""
LABELS: dict[str, Any] = {"*": str}
GROUP: dict[str, Any] = {
    "rayStartParams": LABELS,
    "labels": LABELS,
    "resources": LABELS,
    "template": POD,
}
RULES: dict[str, Any] = {"ingressRules": list, "egressRules": list}
CLUSTER: dict[str, Any] = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"version": {"v1", "v2"}, "idleTimeoutSeconds": int, "upscalingMode": {"Default"}},
    "authOptions": {"mode": {"token"}, "secretName": str},
    "gcsFaultToleranceOptions": {
        "backend": {"rocksdb"},
        "storage": {"size": str, "claimName": str, "storageClassName": str},
    },
    "networkPolicy": {"mode": {"DenyAll", "DenyAllIngress"}, "head": RULES, "worker": RULES},
    "headGroupSpec": GROUP,
    "workerGroupSpecs": [
        {
            **GROUP,
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "priority": int,
            "idleTimeoutSeconds": int,
        }
    ],
}
SPECS: dict[str, dict[str, Any]] = {
    "RayCluster": CLUSTER,
    "RayJob": {
        "clusterSelector": LABELS,
        "submissionMode": {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"},
        "entrypoint": str,
        "entrypointNumCpus": int,
        "runtimeEnvYAML": str,
        "preRunningDeadlineSeconds": int,
    },
    "RayService": {
        "upgradeStrategy": {"type": {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}},
        "excludeHeadPodFromServeSvc": bool,
        "serveConfigV2": str,
        "rayClusterConfig": CLUSTER,
    },
}


def faults(value: object, shape: object, path: str = "spec") -> list[str]:
    """Where a value has not its shape."""
    if shape == POD:
        return [] if isinstance(value, dict) and value["spec"]["containers"] else [path]
    if isinstance(shape, set):
        return [] if value in shape else [path]
    if isinstance(shape, list):
        assert isinstance(value, list)
        return [fault for at, one in enumerate(value) for fault in faults(one, shape[0], f"{path}.{at}")]
    if isinstance(shape, dict):
        assert isinstance(value, dict), path
        found = []
        for key, below in value.items():
            known = shape.get(key, shape.get("*"))
            found += [f"{path}.{key}"] if known is None else faults(below, known, f"{path}.{key}")
        return found
    assert isinstance(shape, type)
    return [] if type(value) is shape else [path]
