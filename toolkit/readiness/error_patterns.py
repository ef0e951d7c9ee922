"""What the words of registries, runtimes and admission mean: can waiting heal it, and what should a person do?

Kubernetes passes these texts through as they are, so they are all there is to tell one cause from another. They are
those of containerd, CRI-O and the Docker engine, and of the API server's admission plugins. A text that nobody here
knows counts as one that may pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deployer.kube.pods import short


@dataclass(frozen=True, slots=True)
class Meaning:
    """`words`: what the message tells; `final`: waiting does not heal it; `hint`: what to do about it."""

    words: str
    final: bool
    hint: str


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# --- images -------------------------------------------------------------------------------------------------------

# What is said around the registry's own words. The image's name is in each of them, over and over.
_PULL_FRAME = re.compile(
    r'^(?:Back-off pulling image "[^"]*"(?:: (?=\S))?|(?:ErrImagePull|ImagePullBackOff): '
    r'|Failed to pull image "[^"]*": |rpc error: code = \w+ desc = |failed to pull and unpack image "[^"]*": '
    r'|Error response from daemon: |failed to (?:resolve|copy) (?:reference )?"?[^" ]*"?: |failed to do request: )+'
)
_PULL_PASSES = _any(
    r"time-?d? ?out", r"deadline exceeded", r"connection (?:refused|reset)", r"no such host", r"server misbehaving",
    r"too ?many ?requests", r"rate limit", r": (?:408|429|5\d\d)\b", r"temporar", r"unavailable", r"\bEOF\b",
    r"no route to host", r"network is unreachable",
)  # fmt: skip
_PULL_DENIED = _any(
    r"unauthorized", r"authentication required", r"authorization failed", r"insufficient_scope", r"denied",
    r"forbidden", r"basic auth", r": 40[13]\b", r"invalid username/password",
)  # fmt: skip
_PULL_ABSENT = _any(
    r"not ?found", r"(?:manifest|name) unknown", r"does not exist", r"no match for platform", r"no matching manifest",
    r": 404\b",
)  # fmt: skip


def pull_error(message: str, image: str) -> Meaning:
    """Why a pull of that image failed. An image that is not there, or not for us, does not come by waiting."""
    words = _PULL_FRAME.sub("", " ".join(message.split()))
    # Names, URLs, tags and the image itself may contain any word at all.
    plain = re.sub(r'"[^"]*"|\[[^\]]*\]', "", words.replace(image, "") if image else words)
    if _PULL_PASSES.search(plain):
        return Meaning(short(words), False, "check that the nodes reach the registry, and that it works")
    if _PULL_DENIED.search(plain):
        hint = "check imagePullSecrets and the image's name; some registries say this of an image that does not exist"
        return Meaning(short(words), True, hint)
    if _PULL_ABSENT.search(plain):
        return Meaning(short(words), True, "check the image's name and tag, and whether it was pushed")
    return Meaning(short(words), False, "check the image's name and tag, and imagePullSecrets")


def image_unusable(message: str) -> str:
    """Why an image can never be used as it is written."""
    return short(
        re.sub(r'Failed to apply default image tag "[^"]*": |couldn\'t parse image name "[^"]*": ', "", message)
    )


# --- nodes --------------------------------------------------------------------------------------------------------


def unschedulable(message: str) -> str:
    """Why no node takes a pod, without what the scheduler says about pods that it might evict for it."""
    return short(re.split(r"\.? (?:no new claims to deallocate|preemption:)|\. not found$", message)[0])


_WRONG_OS = "run it on nodes of the operating system that the podspec names: nodeSelector kubernetes.io/os, and os.name"

NODE_REFUSES = {
    "PodOSNotSupported": _WRONG_OS,
    "PodOSSelectorNodeLabelDoesNotMatch": _WRONG_OS,
    "SysctlForbidden": "leave that sysctl out of the podspec, or allow it on the nodes (allowedUnsafeSysctls)",
    "AppArmor": "correct appArmorProfile in the podspec, or load that profile on the nodes",
    "InitContainerRestartPolicyForbidden": "the nodes are too old for native sidecars: make them ordinary containers",
    "SupplementalGroupsPolicyNotSupported": "the nodes lack it: leave supplementalGroupsPolicy out of the podspec",
}
"""Reasons for which a kubelet admits a pod never, however often it is made anew, with what to do about them
(`pkg/kubelet/lifecycle` and `pkg/kubelet/sysctl` of Kubernetes 1.34)."""


# --- containers ---------------------------------------------------------------------------------------------------

_START_FRAME = re.compile(r"^.*(?:unable to start container process: |OCI runtime (?:create|exec) failed: )")
_START_FINAL = _any(
    r"no such file or directory", r"not found", r"permission denied", r"exec format error", r"is a directory",
    r"memory limit", r"no command specified",
)  # fmt: skip
_CONFIG_FINAL = _any(r"runAsNonRoot", r"run as root", r"non-root policy", r"no command specified")


def start_error(message: str) -> Meaning:
    """Why the runtime could not start a container's process. It has all that it needs by then."""
    words = re.sub(r": unknown(?:, message: \"\")?$", "", _START_FRAME.sub("", " ".join(message.split())))
    final = bool(_START_FINAL.search(words))
    if "memory limit" in words:
        return Meaning(short(words), final, "raise the container's memory limit")
    if "exec format error" in words:
        return Meaning(short(words), final, "the image is for another kind of machine; build it for the nodes'")
    return Meaning(short(words), final, "correct the container's command, or the image")


def config_error(message: str) -> Meaning:
    """Why the node could not create a container: mostly a Secret or ConfigMap that is not there yet."""
    words = re.sub(r" \(pod: \"[^\"]*\", container: [^)]*\)", "", " ".join(message.split()))
    if _CONFIG_FINAL.search(words):
        return Meaning(short(words), True, "correct the securityContext or the command in the podspec, or the image")
    if re.search(r"\b(?:secret|configmap)", words, re.IGNORECASE):
        return Meaning(short(words), False, "create that Secret or ConfigMap, or correct its name in the podspec")
    return Meaning(short(words), False, "see what the container asks of its node: volumes, devices, Secrets")


def mount_error(message: str) -> Meaning:
    """Why a volume could not be mounted. `final` only after a grace time: what is missing may be on its way."""
    words = short(message)
    missing = bool(re.search(r"not found|non-?existent|does not exist|couldn't find", words, re.IGNORECASE))
    if missing:
        hint = "create the Secret, ConfigMap or claim that the volume refers to, or correct its name in the podspec"
    elif "Multi-Attach" in words:
        hint = "pods on another node hold the volume, and a new version starts beside the one that serves: use a "
        hint += "ReadWriteMany volume, or undeploy first"
    else:
        hint = "see why the node cannot mount the volume"
    return Meaning(words, missing, hint)


_SETUP_FINAL = (
    (r"FQDN .*is too long", "choose a shorter hostname or subdomain in the podspec, or leave setHostnameAsFQDN out"),
    (r"no runtime for|runtime handler .*not (?:found|supported)", "the nodes lack the handler that the RuntimeClass "
     "names: correct runtimeClassName, or install it"),
    (r"sysctl", "correct securityContext.sysctls in the podspec; the nodes must allow and know every one"),
    (r"resource ?claim", "see why the resource claim cannot be prepared on the node; its driver's log tells more"),
)  # fmt: skip


def setup_error(message: str) -> Meaning:
    """Why the node could not set up a pod. `final` only after a grace time: nodes are repaired."""
    words = short(re.sub(r"^Failed to create pod sandbox: |rpc error: code = \w+ desc = ", "", message))
    for pattern, hint in _SETUP_FINAL:
        if re.search(pattern, words, re.IGNORECASE):
            return Meaning(words, True, hint)
    return Meaning(words, False, "see the log of the node's kubelet and container runtime")


# --- ends ---------------------------------------------------------------------------------------------------------

_ENDS = {
    126: "the container's command cannot be executed; correct it, or the image",
    127: "the container's command was not found; correct it, or the image",
    137: "something killed it; check whether it needs more memory or ends too slowly",
}


def end_hint(code: int | None, reason: str) -> str:
    """What to do about a container that ended so."""
    if reason == "OOMKilled":
        return "raise the container's memory limit, or have the app use less"
    return _ENDS.get(code or 0, "see the container's last lines in the deployment's log")


# --- admission ----------------------------------------------------------------------------------------------------

_REFUSED_FOR_GOOD = _any(
    r"violates PodSecurity", r"denied (?:the )?request", r"must specify", r"is invalid:",
    r"(?:minimum|maximum) \S+ usage per", r"being terminated", r"security context constraint",
)  # fmt: skip
_REFUSED_FOR_NOW = _any(
    r"exceeded quota", r"failed quota", r"status unknown for quota", r"failed calling webhook", r"timed? ?out",
    r"deadline exceeded", r"connection refused", r"service account", r"Internal error", r"try again",
    r"too many requests", r"PriorityClass", r"not yet ready",
)  # fmt: skip


def admission_refusal(message: str) -> Meaning:
    """Why the API server admits no pod. Quota is freed, webhooks come back; a policy or a limit stays."""
    words = short(re.sub(r"^Error creating: ", "", message))
    plain = re.sub(r'"[^"]*"', "", words)  # an app, a quota or a webhook may be called anything
    final = bool(_REFUSED_FOR_GOOD.search(plain))
    if not final and not _REFUSED_FOR_NOW.search(plain):
        final = "is forbidden" in plain
    return Meaning(words, final, _admission_hint(plain))


def _admission_hint(plain: str) -> str:
    for pattern, hint in (
        ("violates PodSecurity", "change the podspec's securityContext, or the Pod Security level of the namespace"),
        ("denied (?:the )?request", "change the podspec as the policy demands"),
        ("must specify", "give the containers the requests and limits that the quota of the namespace demands"),
        ("usage per", "change the containers' requests and limits; the LimitRange of the namespace bounds them"),
        ("RuntimeClass", "create that RuntimeClass, or correct runtimeClassName in the podspec"),
        ("PriorityClass", "create that PriorityClass, or correct priorityClassName in the podspec"),
        ("service account", "create the service account, or correct serviceAccountName in the podspec"),
        ("quota", "free or raise the quota of the namespace"),
        ("webhook", "repair the admission webhook, or ask whoever runs it"),
        ("being terminated", "deploy to another namespace: this one is being removed"),
    ):
        if re.search(pattern, plain):
            return hint
    return "change the podspec"
