"""What the Deployer relies on in an API server: the same tests for the sandbox and for a real Kubernetes (v1.34).

Where they differ the sandbox is wrong. The real one is the cluster that KUBECONFIG names, with image lab/demo:1.
"""

import json
import os

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

RC, POD, SLICE = "replication_controller", "pod", "endpoint_slice"


@pytest.fixture(scope="session", params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
def api(request):
    """A connection to the sandbox, then to the real cluster."""
    if request.param == "sandbox":
        kubeconfig = request.getfixturevalue("sandbox").kubeconfig
    elif not (kubeconfig := os.environ.get("KUBECONFIG")):
        pytest.skip("KUBECONFIG names no cluster")
    with config.new_client_from_config(kubeconfig) as connected:
        yield connected
        connected.rest_client.pool_manager.clear()


@pytest.fixture(autouse=True)
def account(cluster):
    """A real cluster refuses pods until the namespace has its account; the sandbox has none."""
    if "sandbox" not in client.VersionApi(cluster.api).get_code().git_version:
        cluster.wait("service_account", bool)


def owners(obj):
    return [ref["uid"] for ref in obj["metadata"].get("ownerReferences", [])]


def causes(status):
    return [(cause["field"], cause["reason"]) for cause in status["details"]["causes"]]


def test_defaults_are_filled_in(cluster, objects):
    rc = cluster.create(RC, {**objects.rc("web", 0), "spec": {**objects.rc("web")["spec"], "replicas": 0}})
    spec = rc["spec"]["template"]["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"]) == ("Always", "ClusterFirst")
    container = spec["containers"][0]
    assert (container["imagePullPolicy"], container["terminationMessagePolicy"]) == ("IfNotPresent", "File")
    assert container["ports"][0]["protocol"] == "TCP"
    assert rc["metadata"]["generation"] == 1
    service = cluster.create("service", objects.service("web"))["spec"]
    assert (service["type"], service["sessionAffinity"]) == ("ClusterIP", "None")
    assert service["clusterIP"] == service["clusterIPs"][0]


def test_a_name_is_taken_once(cluster, objects, refused):
    cluster.create("service", objects.service("web"))
    status = refused(409, lambda: cluster.create("service", objects.service("web")))
    assert status["reason"] == "AlreadyExists"
    assert status["message"] == 'services "web" already exists'


def test_missing_objects_and_namespaces(cluster, objects, refused):
    status = refused(404, lambda: cluster.read(POD, "nobody"))
    assert (status["reason"], status["message"]) == ("NotFound", 'pods "nobody" not found')
    cluster.namespace = "no-such-namespace"
    status = refused(404, lambda: cluster.create("service", objects.service("web")))
    assert status["message"] == 'namespaces "no-such-namespace" not found'


def test_a_stale_replace_is_refused_and_changes_nothing(cluster, objects, refused):
    old = cluster.create("service", objects.service("web"))
    new = json.loads(json.dumps(old))
    new["metadata"]["labels"] = {"turn": "1"}
    cluster.replace("service", new)
    old["metadata"]["labels"] = {"turn": "2"}
    status = refused(409, lambda: cluster.replace("service", old))
    assert status["reason"] == "Conflict"
    assert (
        "the object has been modified; please apply your changes to the latest version and try again"
        in status["message"]
    )
    assert cluster.read("service", "web")["metadata"]["labels"] == {"turn": "1"}


def test_a_replace_without_a_version_is_unconditional(cluster, objects):
    before = cluster.create("service", objects.service("web"))
    after = cluster.replace("service", objects.service("web", sessionAffinity="ClientIP"))
    assert after["spec"]["sessionAffinity"] == "ClientIP"
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_replace_may_not_change_what_an_object_is(cluster, objects, refused):
    cluster.create("service", objects.service("web", clusterIP="None"))
    cluster.create("config_map", {"metadata": {"name": "c"}})
    path = cluster.path("config_map", "c")
    assert refused(400, lambda: cluster.request("PUT", path, {"metadata": {}}))["reason"] == "BadRequest"
    assert refused(400, lambda: cluster.request("PUT", path, {"metadata": {"name": "d"}}))["reason"] == "BadRequest"
    assert (
        refused(409, lambda: cluster.request("PUT", path, {"metadata": {"name": "c", "uid": "1"}}))["reason"]
        == "Conflict"
    )
    status = refused(422, lambda: cluster.replace("service", objects.service("web", clusterIP="198.18.200.200")))
    assert causes(status) == [("spec.clusterIPs[0]", "FieldValueInvalid")]
    refused(404, lambda: cluster.replace("config_map", {"metadata": {"name": "nobody"}}))


def test_a_write_that_changes_nothing_keeps_the_version(cluster, objects):
    made = cluster.create("service", objects.service("web"))
    assert cluster.replace("service", made)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_generation_follows_the_spec_only(cluster, objects):
    cluster.create(RC, objects.rc("web", 0))
    assert cluster.patch(RC, "web", {"metadata": {"labels": {"x": "y"}}})["metadata"]["generation"] == 1
    assert cluster.patch(RC, "web", {"spec": {"minReadySeconds": 1}})["metadata"]["generation"] == 2


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
def test_a_delete_with_a_wrong_precondition_is_refused(cluster, objects, refused, field):
    made = cluster.create("config_map", {"metadata": {"name": "settings"}})
    wrong = {"preconditions": {field: "1"}}
    status = refused(409, lambda: cluster.delete("config_map", "settings", body=wrong))
    assert status["reason"] == "Conflict"
    assert "in the precondition (1) does not match the " in status["message"]
    right = {"preconditions": {field: made["metadata"][field]}}
    assert cluster.delete("config_map", "settings", body=right)["status"] == "Success"
    refused(404, lambda: cluster.read("config_map", "settings"))


def test_a_replication_controller_deleted_without_a_policy_orphans_its_pods(cluster, objects):
    rc = cluster.create(RC, objects.rc("web", 2))
    pods = cluster.wait(POD, lambda found: len(found) == 2)
    assert [owners(pod) for pod in pods] == [[rc["metadata"]["uid"]]] * 2
    cluster.delete(RC, "web")
    cluster.wait(RC, lambda found: not found)
    left = cluster.wait(POD, lambda found: not any(owners(pod) for pod in found))
    assert {pod["metadata"]["name"] for pod in left} == {pod["metadata"]["name"] for pod in pods}
    assert not any("deletionTimestamp" in pod["metadata"] for pod in left)


def test_orphans_are_adopted_by_a_controller_that_selects_them(cluster, objects):
    cluster.create(RC, objects.rc("web", 2))
    before = cluster.wait(POD, lambda found: len(found) == 2)
    cluster.delete(RC, "web")
    cluster.wait(RC, lambda found: not found)
    rc = cluster.create(RC, objects.rc("web", 2))
    after = cluster.wait(POD, lambda found: all(owners(pod) == [rc["metadata"]["uid"]] for pod in found))
    assert {pod["metadata"]["uid"] for pod in after} == {pod["metadata"]["uid"] for pod in before}


def test_background_deletion_takes_the_pods_along(cluster, objects):
    cluster.create(RC, objects.rc("web", 2))
    cluster.wait(POD, lambda found: len(found) == 2)
    assert cluster.delete(RC, "web", propagation_policy="Background")["status"] == "Success"
    cluster.wait(POD, lambda found: not found)


def test_foreground_deletion_waits_for_the_pods(cluster, objects):
    cluster.create(RC, objects.rc("web", 1, env={"DRAIN": "0.5"}))
    cluster.ready("web")
    marked = cluster.delete(RC, "web", propagation_policy="Foreground")
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert cluster.items(POD)
    cluster.wait(RC, lambda found: not found)
    assert not cluster.items(POD)


@pytest.mark.parametrize("what", ["service", "config_map", "ingress", RC])
def test_a_deletes_answer_says_whether_the_object_is_still_there(cluster, objects, refused, what):
    made = {
        "service": objects.service("web"),
        "config_map": {"metadata": {"name": "web"}},
        "ingress": objects.ingress("web", "web.example.com", "web"),
        RC: objects.rc("web", 0),
    }[what]
    cluster.create(what, made)
    answer = cluster.delete(what, "web", {"propagationPolicy": "Background"})
    assert "deletionTimestamp" not in answer.get("metadata", {})
    refused(404, lambda: cluster.read(what, "web"))
    held = {**made, "metadata": {**made["metadata"], "finalizers": ["example.com/hold"]}}
    cluster.create(what, held)
    answer = cluster.delete(what, "web", {"propagationPolicy": "Background"})
    assert answer["metadata"]["deletionTimestamp"]
    assert cluster.read(what, "web")["metadata"]["deletionTimestamp"]
    cluster.patch(what, "web", {"metadata": {"finalizers": None}})
    refused(404, lambda: cluster.read(what, "web"))


def test_finalizers_hold_a_pod_that_has_ended(cluster, objects):
    cluster.create(RC, objects.rc("web"))
    cluster.ready("web")
    (pod,) = cluster.items(POD)
    name = pod["metadata"]["name"]
    cluster.patch(POD, name, {"metadata": {"finalizers": ["example.com/hold"]}})
    cluster.delete(RC, "web", {"propagationPolicy": "Background"})

    def ended(found):
        (status,) = found[0]["status"]["containerStatuses"]
        return "terminated" in status["state"] and found[0]["metadata"]["deletionGracePeriodSeconds"] == 0

    cluster.wait(POD, ended)
    assert cluster.read(POD, name)["metadata"]["finalizers"] == ["example.com/hold"]
    cluster.patch(POD, name, {"metadata": {"finalizers": None}})
    cluster.wait(POD, lambda found: not found)


def test_finalizers_hold_an_object_until_they_are_gone(cluster, refused):
    cluster.create("config_map", {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})
    cluster.delete("config_map", "held")
    assert "deletionTimestamp" in cluster.read("config_map", "held")["metadata"]
    cluster.patch("config_map", "held", {"metadata": {"finalizers": None}})
    refused(404, lambda: cluster.read("config_map", "held"))


def test_label_selectors(cluster):
    for name, labels in {"a": {"app": "x", "tier": "web"}, "b": {"app": "x"}, "c": {"app": "y"}}.items():
        cluster.create("config_map", {"metadata": {"name": name, "labels": labels}})
    cases = {
        "app=x": "ab",
        "app==x,tier=web": "a",
        "app!=x": "c",
        "app in (x, y)": "abc",
        "app notin (x)": "c",
        "tier": "a",
        "!tier": "bc",
        "app in (x),!tier": "b",
    }
    for selector, names in cases.items():
        found = {item["metadata"]["name"] for item in cluster.items("config_map", label_selector=selector)}
        assert found - {"kube-root-ca.crt"} == set(names), selector


def test_field_selectors(cluster, refused):
    for name in "ab":
        cluster.create("config_map", {"metadata": {"name": name}})
    names = [item["metadata"]["name"] for item in cluster.items("config_map", field_selector="metadata.name=a")]
    assert names == ["a"]
    status = refused(400, lambda: cluster.listing("config_map", field_selector="data.x=1"))
    assert '"data.x" is not a known field selector' in status["message"]
    status = refused(400, lambda: cluster.listing(POD, field_selector="spec.x=1"))
    assert status["message"] == "field label not supported: spec.x"


def test_strict_validation_names_the_unknown_field(cluster, objects, refused):
    rc = objects.rc("web", 0)
    rc["spec"]["template"]["spec"]["containers"][0]["imagee"] = "typo"
    status = refused(400, lambda: cluster.create(RC, rc, field_validation="Strict"))
    assert status["reason"] == "BadRequest"
    assert 'strict decoding error: unknown field "spec.template.spec.containers[0].imagee"' in status["message"]
    assert not cluster.items(RC)
    made = cluster.create(RC, rc)
    assert "imagee" not in made["spec"]["template"]["spec"]["containers"][0]


def test_a_wrong_type_is_refused(cluster, objects, refused):
    rc = objects.rc("web")
    rc["spec"]["replicas"] = "two"
    status = refused(400, lambda: cluster.create(RC, rc))
    assert "ReplicationControllerSpec.spec.replicas of type int32" in status["message"]


def test_two_ports_of_one_name_are_refused_whatever_their_protocol(cluster, objects, refused):
    ports = [{"name": "port-53", "port": 53, "protocol": protocol} for protocol in ("TCP", "UDP")]
    status = refused(422, lambda: cluster.create("service", objects.service("dns", ports=ports)))
    assert (status["reason"], causes(status)) == ("Invalid", [("spec.ports[1].name", "FieldValueDuplicate")])
    assert status["message"] == 'Service "dns" is invalid: spec.ports[1].name: Duplicate value: "port-53"'


def test_several_ports_need_names_and_a_service_needs_one(cluster, objects, refused):
    status = refused(422, lambda: cluster.create("service", objects.service("web", ports=[{"port": 80}, {"port": 81}])))
    assert ("spec.ports[0].name", "FieldValueRequired") in causes(status)
    status = refused(422, lambda: cluster.create("service", objects.service("web", ports=[])))
    assert causes(status) == [("spec.ports", "FieldValueRequired")]
    status = refused(422, lambda: cluster.create("service", objects.service("web", ports=[{"port": 70000}])))
    assert ("spec.ports[0].port", "FieldValueInvalid") in causes(status)


@pytest.mark.parametrize("name", ["Web", "web_1", "-web", "1-web", "w" * 64])
def test_names_of_services_are_dns_labels(cluster, objects, refused, name):
    status = refused(422, lambda: cluster.create("service", objects.service(name)))
    assert ("metadata.name", "FieldValueInvalid") in causes(status)


def test_label_values_may_not_begin_with_a_hyphen(cluster, objects, refused):
    service = objects.service("web")
    service["metadata"]["labels"] = {"version": "-rc1"}
    status = refused(422, lambda: cluster.create("service", service))
    assert causes(status) == [("metadata.labels", "FieldValueInvalid")]


def test_a_replication_controller_selects_its_own_template(cluster, objects, refused):
    rc = objects.rc("web")
    rc["spec"]["selector"] = {"name": "other"}
    status = refused(422, lambda: cluster.create(RC, rc))
    assert "`selector` does not match template `labels`" in status["message"]


BAD_CONTAINERS = {
    "ports[0].containerPort": {"ports": [{"containerPort": 70000}]},
    "ports[1].name": {"ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]},
    "imagePullPolicy": {"imagePullPolicy": "Sometimes"},
    "env[0].name": {"env": [{"name": "A=B"}]},
    "env[0].valueFrom": {"env": [{"name": "A", "valueFrom": {}}]},
    "env[0].valueFrom.configMapKeyRef.key": {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c"}}}]},
    "volumeMounts[0].name": {"volumeMounts": [{"name": "x", "mountPath": "/x"}]},
    "readinessProbe": {"readinessProbe": {}},
    "lifecycle.preStop": {"lifecycle": {"preStop": {}}},
}


@pytest.mark.parametrize("field", BAD_CONTAINERS)
def test_a_bad_field_of_a_container_is_named(cluster, objects, refused, field):
    rc = objects.rc("web")
    rc["spec"]["template"]["spec"]["containers"][0].update(BAD_CONTAINERS[field])
    status = refused(422, lambda: cluster.create(RC, rc, dry_run="All"))
    assert [found for found, _ in causes(status)] == [f"spec.template.spec.containers[0].{field}"]


def test_containers_are_checked(cluster, objects, refused):
    rc = objects.rc("web")
    pod = rc["spec"]["template"]["spec"]
    pod["containers"] = [{"name": "a", "image": "sample/web:1"}, {"name": "a"}]
    found = causes(refused(422, lambda: cluster.create(RC, rc)))
    at = "spec.template.spec.containers"
    assert (f"{at}[1].name", "FieldValueDuplicate") in found
    assert (f"{at}[1].image", "FieldValueRequired") in found
    pod["containers"] = []
    assert causes(refused(422, lambda: cluster.create(RC, rc))) == [(at, "FieldValueRequired")]


@pytest.mark.parametrize("what", [("memory", "2Mi", "2M"), ("cpu", "1100m", "1"), ("memory", "1G", "1e8")])
def test_a_request_above_its_limit_is_refused(cluster, objects, refused, what):
    name, wanted, limit = what
    made = objects.rc("web", resources={"requests": {name: wanted}, "limits": {name: limit}})
    status = refused(422, lambda: cluster.create(RC, made, dry_run="All"))
    assert causes(status) == [("spec.template.spec.containers[0].resources.requests", "FieldValueInvalid")]
    told = f'Invalid value: "{wanted}": must be less than or equal to {name} limit of '
    assert told in status["message"]
    made = objects.rc("web", resources={"requests": {name: limit}, "limits": {name: wanted}})
    assert cluster.create(RC, made, dry_run="All")


WRONG_TYPES = {
    "number {} EnvVar.{}.env.value of type string": {"env": [{"name": "A", "value": "x"}, {"name": "B", "value": 5}]},
    "string {} ContainerPort.{}.ports.containerPort of type int32": {"ports": [{"containerPort": "http"}]},
    "number 1.5 {} ContainerPort.{}.ports.containerPort of type int32": {"ports": [{"containerPort": 1.5}]},
    "string {} Container.{}.tty of type bool": {"tty": "yes"},
    "number {} Container.{}.stdin of type bool": {"stdin": 1},
    "string {} Container.{}.command of type []string": {"command": "run"},
    "array {} Container.{}.livenessProbe of type v1.Probe": {"livenessProbe": []},
    "object {} Container.{}.ports of type []v1.ContainerPort": {"ports": {}},
}


@pytest.mark.parametrize("told", WRONG_TYPES)
def test_a_value_of_another_type_is_named_without_indices(cluster, objects, refused, told):
    rc = objects.rc("web")
    rc["spec"]["template"]["spec"]["containers"][0].update(WRONG_TYPES[told])
    status = refused(400, lambda: cluster.create(RC, rc, dry_run="All", field_validation="Strict"))
    assert status["reason"] == "BadRequest"
    sentence = told.format("into Go struct field", "spec.template.spec.containers")
    begin = (
        'ReplicationController in version "v1" cannot be handled as a ReplicationController: json: cannot unmarshal '
    )
    assert status["message"] == begin + sentence


def test_unknown_fields_hide_what_else_is_wrong_only_from_the_strict(cluster, objects):
    rc = objects.rc("web", 1, nonsense=1, ports=[{"containerPort": 70000}])
    url = f"{cluster.api.configuration.host}/{cluster.path(RC)}?dryRun=All&fieldValidation="
    token = cluster.api.configuration.auth_settings().get("BearerToken")
    headers = {"Content-Type": "application/json", **({"Authorization": token["value"]} if token else {})}

    def post(mode):
        answer = cluster.api.rest_client.pool_manager.request("POST", url + mode, body=json.dumps(rc), headers=headers)
        return answer.status, answer.headers.get("Warning"), json.loads(answer.data)["message"]

    status, warning, message = post("Strict")
    assert (status, warning) == (400, None)
    assert message.endswith(': strict decoding error: unknown field "spec.template.spec.containers[0].nonsense"')
    status, warning, message = post("Warn")
    assert (status, warning) == (422, '299 - "unknown field \\"spec.template.spec.containers[0].nonsense\\""')
    assert "ports[0].containerPort" in message


def test_what_exists_is_checked_all_the_same(cluster, objects, refused):
    cluster.create(RC, objects.rc("web", 0))
    status = refused(422, lambda: cluster.create(RC, objects.rc("web", 0, imagePullPolicy="x"), dry_run="All"))
    assert status["reason"] == "Invalid"
    assert refused(409, lambda: cluster.create(RC, objects.rc("web", 0), dry_run="All"))["reason"] == "AlreadyExists"


def test_variables_of_one_name_are_taken(cluster, objects):
    twice = [{"name": "COLOUR", "value": "blue"}, {"name": "COLOUR", "value": "green"}]
    made = objects.rc("web", 0)
    made["spec"]["template"]["spec"]["containers"][0]["env"] = twice
    taken = cluster.create(RC, made, field_validation="Strict", dry_run="All")
    assert taken["spec"]["template"]["spec"]["containers"][0]["env"] == twice


def test_ingresses_are_checked(cluster, objects, refused):
    ingress = objects.ingress("web", "web.test", "Web")
    status = refused(422, lambda: cluster.create("ingress", ingress))
    assert status["message"].startswith(
        'Ingress.networking.k8s.io "web" is invalid: spec.rules[0].http.paths[0].backend'
    )
    ingress = objects.ingress("web", "10.0.0.1", "web")
    path = ingress["spec"]["rules"][0]["http"]["paths"][0]
    del path["pathType"]
    path["path"] = "relative"
    found = causes(refused(422, lambda: cluster.create("ingress", ingress)))
    assert ("spec.rules[0].host", "FieldValueInvalid") in found
    assert ("spec.rules[0].http.paths[0].pathType", "FieldValueRequired") in found


def test_dry_run_says_the_same_and_leaves_nothing(cluster, objects, refused):
    made = cluster.create(RC, objects.rc("web"), dry_run="All", field_validation="Strict")
    assert made["metadata"]["uid"]
    assert not cluster.items(RC)
    cluster.create("service", objects.service("web"))
    refused(409, lambda: cluster.create("service", objects.service("web"), dry_run="All"))
    bad = objects.service("bad", ports=[])
    refused(422, lambda: cluster.create("service", bad, dry_run="All"))
    cluster.replace("service", objects.service("web", sessionAffinity="ClientIP"), dry_run="All")
    cluster.delete("service", "web", dry_run="All")
    assert cluster.read("service", "web")["spec"]["sessionAffinity"] == "None"


def test_merge_patch(cluster):
    cluster.create("config_map", {"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}})
    assert cluster.patch("config_map", "c", {"data": {"a": None, "c": "3"}})["data"] == {"b": "2", "c": "3"}


def test_a_patch_that_names_a_version_is_conditional(cluster, refused):
    made = cluster.create("config_map", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    version = made["metadata"]["resourceVersion"]
    cluster.patch("config_map", "c", {"metadata": {"resourceVersion": version}, "data": {"a": "2"}})
    late = {"metadata": {"resourceVersion": version}, "data": {"a": "3"}}
    assert refused(409, lambda: cluster.patch("config_map", "c", late))["reason"] == "Conflict"


def test_json_patch_tests_before_it_writes(cluster, refused):
    cluster.create("config_map", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    kind = "application/json-patch+json"
    steps = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "2"}]
    assert cluster.patch("config_map", "c", [*steps, {"op": "add", "path": "/data/b", "value": "3"}], kind)["data"] == {
        "a": "2",
        "b": "3",
    }
    refused(422, lambda: cluster.patch("config_map", "c", steps, kind))
    refused(422, lambda: cluster.patch("config_map", "c", [{"op": "remove", "path": "/data/no"}], kind))
    assert cluster.read("config_map", "c")["data"] == {"a": "2", "b": "3"}


def test_strategic_merge_patch_finds_items_by_their_key(cluster, objects):
    cluster.create("service", objects.service("web", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}]))
    patch = {"spec": {"ports": [{"port": 2, "targetPort": 22}], "selector": {"name": None, "app": "x"}}}
    spec = cluster.patch("service", "web", patch, "application/strategic-merge-patch+json")["spec"]
    assert [(port["name"], port["targetPort"]) for port in spec["ports"]] == [("a", 1), ("b", 22)]
    assert spec["selector"] == {"app": "x"}


def test_an_immutable_config_map_stays(cluster, refused):
    cluster.create("config_map", {"metadata": {"name": "c"}, "data": {"a": "1"}, "immutable": True})
    refused(422, lambda: cluster.patch("config_map", "c", {"data": {"a": "2"}}))


def test_watch_from_a_version_tells_what_happened_since(cluster):
    version = cluster.listing("config_map")["metadata"]["resourceVersion"]
    for name in ("a", "b"):
        cluster.create("config_map", {"metadata": {"name": name, "labels": {"app": "x"}}})
    cluster.patch("config_map", "a", {"metadata": {"labels": {"app": "y"}}})  # stops to match
    cluster.delete("config_map", "b")
    stream = Watch().stream(
        cluster.core.list_namespaced_config_map,
        cluster.namespace,
        resource_version=version,
        timeout_seconds=1,
        label_selector="app=x",
        _request_timeout=10,
    )
    told = [(event["type"], event["object"].metadata.name) for event in stream]
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")]


def test_watch_without_a_version_begins_with_what_is_there(cluster):
    cluster.create("config_map", {"metadata": {"name": "a"}})
    options = {"timeout_seconds": 1, "_request_timeout": 10, "field_selector": "metadata.name=a"}
    lines = cluster.core.list_namespaced_config_map(cluster.namespace, watch=True, _preload_content=False, **options)
    events = [json.loads(line) for line in lines.data.splitlines()]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [("ADDED", "a")]


def test_watch_gives_bookmarks_when_asked(cluster):
    version = cluster.listing("config_map")["metadata"]["resourceVersion"]
    options = {"timeout_seconds": 5, "_request_timeout": 10, "resource_version": version}
    options["field_selector"] = "metadata.name=nobody"
    follow = cluster.core.list_namespaced_config_map
    events = []
    for attempt in range(4):  # the API promises no bookmark at any certain time
        lines = follow(cluster.namespace, watch=True, allow_watch_bookmarks=True, _preload_content=False, **options)
        # The real server sends one only when this kind has changed since the watch began; the selector keeps that out.
        cluster.create("config_map", {"metadata": {"name": f"another-{attempt}"}})
        events += [json.loads(line) for line in lines.data.splitlines()]
        if events:
            break
    assert {event["type"] for event in events} == {"BOOKMARK"}
    assert int(events[-1]["object"]["metadata"]["resourceVersion"]) > int(version)
    assert events[-1]["object"]["kind"] == "ConfigMap"


def test_scaling(cluster, objects):
    cluster.create(RC, objects.rc("web", 1))
    first = cluster.ready("web")
    assert first["status"]["observedGeneration"] == first["metadata"]["generation"]
    cluster.patch(RC, "web", {"spec": {"replicas": 3}})
    cluster.ready("web", 3)
    cluster.patch(RC, "web", {"spec": {"replicas": 1}})
    cluster.wait(POD, lambda found: len(found) == 1)
    pod = cluster.items(POD)[0]
    assert pod["metadata"]["generateName"] == "web-"
    assert pod["metadata"]["name"].startswith("web-")
    reference = pod["metadata"]["ownerReferences"][0]
    assert (reference["kind"], reference["name"], reference["controller"]) == ("ReplicationController", "web", True)
    assert reference["blockOwnerDeletion"]


def test_a_new_template_replaces_no_pod(cluster, objects):
    cluster.create(RC, objects.rc("web", 1))
    cluster.ready("web")
    before = cluster.items(POD)[0]["metadata"]["uid"]
    cluster.patch(RC, "web", {"spec": {"template": {"metadata": {"annotations": {"turn": "2"}}}, "replicas": 2}})
    cluster.ready("web", 2)
    assert before in {pod["metadata"]["uid"] for pod in cluster.items(POD)}


def test_a_pod_is_asked_through_its_proxy(cluster, objects, refused):
    cluster.create(RC, objects.rc("web", 1))
    cluster.ready("web")
    name = cluster.items(POD)[0]["metadata"]["name"]

    def ask(path, method="GET"):
        return cluster.request(method, cluster.path(POD, f"{name}:{path}"))

    # The path is cleaned before the pod sees it.
    for path in ("9999/proxy/health", "9999/proxy//health", "9999/proxy/health?x=%2F"):
        assert ask(path)["healthy"] is True
    assert ask("9999/proxy/unhealthy", "POST")["healthy"] is False
    status = refused(503, lambda: ask("9997/proxy/health"))
    assert status["reason"] == "ServiceUnavailable"
    assert status["message"].startswith("error trying to reach service: dial tcp ")
    assert status["message"].endswith(":9997: connect: connection refused")
    status = refused(404, lambda: cluster.read(POD, "nobody:9999/proxy/health"))
    assert status["message"] == 'pods "nobody" not found'
    with pytest.raises(json.JSONDecodeError):  # the pod's own 500, which is no Status
        ask("9999/proxy/error")


def test_endpoint_slices_follow_ready_pods(cluster, objects):
    cluster.create("service", objects.service("web"))
    empty = cluster.wait(SLICE, bool)[0]
    assert empty["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert empty["endpoints"] is None
    cluster.create(RC, objects.rc("web", 2))
    ready = lambda found: sum(e["conditions"]["ready"] for part in found for e in part["endpoints"] or ())  # noqa: E731
    part = cluster.wait(SLICE, lambda found: ready(found) == 2)[0]
    pods = {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in cluster.items(POD)}
    assert {e["targetRef"]["uid"]: e["addresses"][0] for e in part["endpoints"]} == pods
    assert part["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    cluster.delete("service", "web")
    cluster.wait(SLICE, lambda found: not found)


def test_a_pod_that_goes_is_terminating_in_the_slice_before_it_is_gone(cluster, objects):
    cluster.create("service", objects.service("web"))
    cluster.create(POD, objects.pod("web", env=[{"name": "DRAIN", "value": "0.5"}]))
    serving = lambda found: [e["conditions"] for part in found for e in part["endpoints"] or ()]  # noqa: E731
    cluster.wait(SLICE, lambda found: any(c["ready"] for c in serving(found)))
    cluster.delete(POD, "web")
    found = cluster.wait(SLICE, lambda found: any(c["terminating"] for c in serving(found)))
    assert serving(found) == [{"ready": False, "serving": True, "terminating": True}]
    assert cluster.items(POD)
    cluster.wait(SLICE, lambda found: not serving(found))


def test_a_service_without_a_selector_has_no_slices(cluster, objects):
    cluster.create("service", objects.service("plain", selector=None))
    cluster.create("service", objects.service("web"))
    assert {part["metadata"]["labels"]["kubernetes.io/service-name"] for part in cluster.wait(SLICE, bool)} == {"web"}


def test_pod_security_refuses_the_pod_and_not_its_controller(cluster, objects, refused):
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    cluster.core.patch_namespace(cluster.namespace, label)
    privileged = {"securityContext": {"privileged": True}}
    status = refused(403, lambda: cluster.create(POD, objects.pod("web", **privileged), dry_run="All"))
    assert status["reason"] == "Forbidden"
    told = 'privileged (container "web" must not set securityContext.privileged=true)'
    sentence = f'violates PodSecurity "baseline:latest": {told}'
    assert sentence in status["message"]
    cluster.create(RC, objects.rc("web", 1, **privileged))
    event = cluster.event("FailedCreate")
    assert event["message"].startswith("Error creating: pods ")
    assert sentence in event["message"]
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("ReplicationController", "web")
    failed = lambda found: found[0]["status"].get("conditions")  # noqa: E731
    assert cluster.wait(RC, failed)[0]["status"]["conditions"][0]["type"] == "ReplicaFailure"


def test_an_image_that_is_not_there_and_must_not_be_pulled(cluster, objects):
    cluster.create(POD, objects.pod("web", image="sample/web:missing", imagePullPolicy="Never"))
    event = cluster.event("ErrImageNeverPull")
    assert event["message"] == 'Container image "sample/web:missing" is not present with pull policy of Never'
    state = lambda found: (found[0]["status"].get("containerStatuses") or [{}])[0].get("state")  # noqa: E731
    found = cluster.wait(POD, lambda found: "reason" in ((state(found) or {}).get("waiting") or {}))
    told = cluster.wait(POD, lambda found: state(found)["waiting"]["reason"] != "ContainerCreating")
    assert found and state(told)["waiting"] == {"reason": "ErrImageNeverPull", "message": event["message"]}


def test_a_controller_that_is_deleted_in_the_foreground_replaces_no_pod(cluster, objects):
    cluster.create(RC, objects.rc("web", 1, env={"DRAIN": "1"}))
    cluster.ready("web")
    cluster.delete(RC, "web", {"propagationPolicy": "Foreground"})
    going = cluster.items(RC)
    assert not going or going[0]["metadata"]["finalizers"] == ["foregroundDeletion"]
    cluster.wait(RC, lambda found: not found)
    assert not cluster.items(POD)


def test_a_pod_without_its_labels_is_released_and_replaced(cluster, objects):
    cluster.create(RC, objects.rc("web", 1))
    cluster.ready("web")
    name = cluster.items(POD)[0]["metadata"]["name"]
    cluster.patch(POD, name, {"metadata": {"labels": {"name": "being-looked-at"}}})
    cluster.wait(POD, lambda found: len(found) == 2 and sum(bool(owners(pod)) for pod in found) == 1)
    assert not owners(cluster.read(POD, name))
    cluster.delete(RC, "web", {"propagationPolicy": "Foreground"})
    left = cluster.wait(POD, lambda found: len(found) == 1)
    assert [pod["metadata"]["name"] for pod in left] == [name]


def test_events_can_be_asked_for_by_their_object(cluster, objects):
    cluster.create(RC, objects.rc("web", 1))
    cluster.ready("web")
    uid = cluster.items(POD)[0]["metadata"]["uid"]
    cluster.event("Started")
    found = cluster.items("event", field_selector=f"involvedObject.uid={uid},involvedObject.kind=Pod")
    assert {event["involvedObject"]["uid"] for event in found} == {uid}
    assert {"Scheduled", "Pulled", "Created", "Started"} <= {event["reason"] for event in found}


def test_a_deleted_namespace_takes_everything_along(cluster, objects, refused):
    cluster.create(RC, objects.rc("web", 1, env={"DRAIN": "0.5"}))
    cluster.create("service", objects.service("web"))
    cluster.ready("web")
    name = f"{cluster.namespace}-more"
    other = type(cluster)(cluster.api, name)
    cluster.core.create_namespace({"metadata": {"name": name}})
    other.create(RC, objects.rc("web", 1, env={"DRAIN": "0.5"}))
    other.ready("web")
    cluster.core.delete_namespace(name)
    status = refused(403, lambda: other.create("service", objects.service("late")))
    assert "because it is being terminated" in status["message"]
    other.wait(POD, lambda found: not found)
    with pytest.raises(ApiException) as caught:
        while cluster.core.read_namespace(name):  # ends by its watch, or by the 404
            options = {"field_selector": f"metadata.name={name}", "timeout_seconds": 5, "_request_timeout": 15}
            for event in Watch().stream(cluster.core.list_namespace, **options):
                if event["type"] == "DELETED":
                    break
    assert caught.value.status == 404
    assert cluster.items(POD)
