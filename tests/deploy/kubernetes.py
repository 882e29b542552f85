"""The fields of Kubernetes that the manifests use: whatever is not listed here is a slip of the pen.

After https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.31/ and
https://keda.sh/docs/2.16/reference/scaledobject-spec/; a nested dict lists the fields of an object (a list of
objects too), None stands for anything.
"""

from typing import Any

SELECTOR = {"matchLabels": None}
PROBE = {
    "httpGet": {"path": None, "port": None},
    "periodSeconds": None,
    "timeoutSeconds": None,
    "failureThreshold": None,
}
KEY = {"name": None, "key": None, "optional": None}
CONTAINER: dict[str, Any] = {
    "name": None,
    "image": None,
    "command": None,
    "args": None,
    "envFrom": {"configMapRef": {"name": None}},
    "env": {"name": None, "value": None, "valueFrom": {"secretKeyRef": KEY}},
    "ports": {"name": None, "containerPort": None},
    "lifecycle": {"preStop": {"exec": {"command": None}}},
    "startupProbe": PROBE,
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "resources": {"requests": None, "limits": None},
    "securityContext": {
        "allowPrivilegeEscalation": None,
        "readOnlyRootFilesystem": None,
        "capabilities": {"drop": None},
    },
    "volumeMounts": {"name": None, "mountPath": None, "readOnly": None},
}
POD: dict[str, Any] = {
    "metadata": {"labels": None},
    "spec": {
        "serviceAccountName": None,
        "automountServiceAccountToken": None,
        "enableServiceLinks": None,
        "terminationGracePeriodSeconds": None,
        "restartPolicy": None,
        "securityContext": {
            "runAsNonRoot": None,
            "runAsUser": None,
            "runAsGroup": None,
            "fsGroup": None,
            "fsGroupChangePolicy": None,
            "seccompProfile": {"type": None},
        },
        "topologySpreadConstraints": {
            "maxSkew": None,
            "topologyKey": None,
            "whenUnsatisfiable": None,
            "labelSelector": SELECTOR,
        },
        "containers": CONTAINER,
        "volumes": {"name": None, "emptyDir": {"sizeLimit": None}, "configMap": {"name": None}},
    },
}
PEER = {
    "namespaceSelector": SELECTOR,
    "podSelector": SELECTOR,
    "ipBlock": {"cidr": None, "except": None},
}
PORT = {"port": None, "protocol": None}
SCALING = {
    "stabilizationWindowSeconds": None,
    "policies": {"type": None, "value": None, "periodSeconds": None},
}

FIELDS: dict[tuple[str, str], dict[str, Any]] = {
    ("v1", "Namespace"): {},
    ("v1", "ServiceAccount"): {"automountServiceAccountToken": None},
    ("v1", "ConfigMap"): {"data": None},
    ("v1", "Service"): {
        "spec": {
            "clusterIP": None,
            "publishNotReadyAddresses": None,
            "selector": None,
            "ports": {"name": None, "port": None, "targetPort": None},
        }
    },
    ("apps/v1", "Deployment"): {
        "spec": {
            "replicas": None,
            "revisionHistoryLimit": None,
            "minReadySeconds": None,
            "progressDeadlineSeconds": None,
            "selector": SELECTOR,
            "strategy": {"type": None, "rollingUpdate": {"maxUnavailable": None, "maxSurge": None}},
            "template": POD,
        }
    },
    ("apps/v1", "StatefulSet"): {
        "spec": {
            "replicas": None,
            "serviceName": None,
            "podManagementPolicy": None,
            "selector": SELECTOR,
            "template": POD,
            "volumeClaimTemplates": {
                "metadata": {"name": None},
                "spec": {"accessModes": None, "resources": {"requests": {"storage": None}}},
            },
        }
    },
    ("batch/v1", "Job"): {
        "spec": {
            "backoffLimit": None,
            "activeDeadlineSeconds": None,
            "ttlSecondsAfterFinished": None,
            "template": POD,
        }
    },
    ("policy/v1", "PodDisruptionBudget"): {
        "spec": {"maxUnavailable": None, "unhealthyPodEvictionPolicy": None, "selector": SELECTOR}
    },
    ("networking.k8s.io/v1", "NetworkPolicy"): {
        "spec": {
            "podSelector": SELECTOR,
            "policyTypes": None,
            "ingress": {"from": PEER, "ports": PORT},
            "egress": {"to": PEER, "ports": PORT},
        }
    },
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "spec": {
            "scaleTargetRef": {"name": None},
            "minReplicaCount": None,
            "maxReplicaCount": None,
            "pollingInterval": None,
            "triggers": {
                "type": None,
                "metadata": {"url": None, "valueLocation": None, "targetValue": None},
            },
            "fallback": {"failureThreshold": None, "replicas": None},
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": {"scaleUp": SCALING, "scaleDown": SCALING}}
            },
        }
    },
}
METADATA = {"name": None, "namespace": None, "labels": None}


def unknown_fields(manifest: dict[str, Any]) -> list[str]:
    """The paths of fields that its kind does not have."""
    kind = manifest["apiVersion"], manifest["kind"]
    known = {"apiVersion": None, "kind": None, "metadata": METADATA, **FIELDS[kind]}
    return list(_unknown(manifest, known, manifest["kind"]))


def _unknown(value: Any, known: dict[str, Any] | None, path: str) -> list[str]:
    if known is None:
        return []
    if isinstance(value, list):
        return [found for item in value for found in _unknown(item, known, path)]
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    return [
        found
        for key, inner in value.items()
        for found in (_unknown(inner, known[key], f"{path}.{key}") if key in known else [f"{path}.{key}"])
    ]
