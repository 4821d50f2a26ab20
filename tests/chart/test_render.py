"""What the chart renders, with helm 3 and helm 4: the objects of the handbook, and none besides."""

from __future__ import annotations

import base64
import collections
import functools
import json
import pathlib
import re
import shlex
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edge_agent.hubapi import CAUSES
from edge_agent.settings import SETTINGS, read_settings
from tests.chart.helm import (
    CHART,
    CI,
    COMMAND,
    HELMS,
    TOKEN,
    URL,
    VERSIONS,
    Refused,
    environment_of,
    is_hook,
    of_kind,
    output,
    pods_of,
    render,
    with_ci,
)
from tests.machine import find_program

pytestmark = pytest.mark.needs("helm")
MONITORS = ("--api-versions", "monitoring.coreos.com/v1")


def kinds(objects: list[dict[str, Any]]) -> dict[str, int]:
    return dict(collections.Counter(one["kind"] for one in objects if not is_hook(one)))


def test_the_printed_command_is_enough() -> None:
    """A11: the words of the command, split as a shell does, reach the chart unchanged, with both helms."""
    command = (
        "helm install daalu-edge oci://ghcr.io/daalu/charts/daalu-edge --namespace daalu-edge --create-namespace "
        f"--set hub.url={URL} --set bootstrap.token={TOKEN}"
    )
    words = shlex.split(command)
    assert words[:4] == ["helm", "install", "daalu-edge", "oci://ghcr.io/daalu/charts/daalu-edge"]
    for helm in HELMS:
        objects = render(*(word for word in words[4:] if word != "--create-namespace"), helm=helm)
        [token] = [one for one in of_kind(objects, "Secret") if one["metadata"]["name"] == "daalu-edge-token"]
        assert base64.b64decode(token["data"]["token"]).decode() == TOKEN
        assert environment_of(pods_of(objects)["edge"])["DAALU_HUB_URL"] == URL


@pytest.mark.parametrize("helm", HELMS)
def test_the_objects_are_those_of_the_handbook(helm: str) -> None:
    """A12: with a token in the command, with a Secret of one's own, and with neither."""
    roles = {"Role": 2, "RoleBinding": 2, "ClusterRole": 2, "ClusterRoleBinding": 2}
    always = {"Deployment": 1, "ConfigMap": 1, "ServiceAccount": 2, **roles}
    assert kinds(render(*COMMAND, helm=helm)) == {**always, "Secret": 2, "Job": 1}
    existing = ("--set", f"hub.url={URL}", "--set", "bootstrap.existingSecret.name=mine")
    assert kinds(render(*existing, helm=helm)) == {**always, "Secret": 1, "Job": 1}
    assert kinds(render("--set", f"hub.url={URL}", helm=helm)) == {**always, "Secret": 1}


def test_the_key_secret_has_no_data_and_the_deployment_one_pod() -> None:
    """A12: Helm must never own the key; two pods with one key would flap."""
    objects = render(*COMMAND)
    [key] = [one for one in of_kind(objects, "Secret") if one["metadata"]["name"] == "daalu-edge-key"]
    assert not {"data", "stringData"} & set(key)
    assert "annotations" not in key["metadata"]
    [deployment] = of_kind(objects, "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert render(*COMMAND, "--set", "secret.keepOnUninstall=true")
    kept = render(*COMMAND, "--set", "secret.keepOnUninstall=true")
    with_policy = [
        one["metadata"]["name"]
        for one in kept
        if (one["metadata"].get("annotations") or {}).get("helm.sh/resource-policy")
    ]
    assert with_policy == ["daalu-edge-key"], "A35: exactly the key Secret is kept"


@pytest.mark.parametrize("name", CI)
def test_nothing_invasive_is_rendered(name: str) -> None:
    """A12: no DaemonSet, no webhook, no CRD, no host anything, no privileged container, no hook that makes state."""
    objects = render(*with_ci(name))
    allowed = {
        "Deployment", "Job", "Secret", "ConfigMap", "ServiceAccount", "Role", "RoleBinding", "ClusterRole",
        "ClusterRoleBinding", "Pod", "NetworkPolicy",
    }  # fmt: skip
    assert {one["kind"] for one in objects} <= allowed
    for one in objects:
        if is_hook(one):
            assert (one["kind"], one["metadata"]["annotations"]["helm.sh/hook"]) == ("Pod", "test")
    for component, pod in pods_of(objects).items():
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "initContainers"} & set(pod)
        [container] = pod["containers"]
        assert container["securityContext"]["privileged"] is False
        assert not any("hostPort" in port for port in container.get("ports", []))
        has_host_path = any("hostPath" in volume for volume in pod["volumes"])
        assert has_host_path == (name == "tun-host" and component == "edge")


@functools.cache
def validate(text: str, version: str) -> None:
    """Once for each object that differs: most are the same in every set of values."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("name", CI)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_kubernetes_takes_it(name: str, version: str) -> None:
    """A3: each set of values, tun mode among them, against the schema of each version, with both helms alike."""
    arguments = with_ci(name, "--kube-version", version)
    objects = render(*arguments, helm="helm3")
    assert objects == render(*arguments, helm="helm4")
    groups = {one["apiVersion"].rpartition("/")[0] for one in objects}
    assert groups <= {
        "",
        "apps",
        "batch",
        "rbac.authorization.k8s.io",
        *(["networking.k8s.io"] if name == "placement" else []),
    }
    for one in objects:
        validate(json.dumps(one), version)
    assert not re.search(r"amazonaws|googleapis|azure|openshift|rancher", output("helm4", *arguments), re.I)


def test_a_monitor_is_made_only_where_its_api_exists() -> None:
    assert not of_kind(render(*with_ci("placement")), "PodMonitor")
    assert len(of_kind(render(*with_ci("placement", *MONITORS)), "PodMonitor")) == 1


@pytest.mark.parametrize("name", CI)
def test_two_renders_are_equal(name: str) -> None:
    """A75: nothing random, no date, no look at the cluster."""
    first = output("helm4", *with_ci(name))
    output.cache_clear()
    assert output("helm4", *with_ci(name)) == first
    impure = re.compile(r"\b(lookup|rand[A-Z]\w*|uuidv4|genCA|genPrivateKey|genSelfSignedCert|now)\b")
    for path in (CHART / "templates").rglob("*"):
        if path.suffix in (".yaml", ".tpl"):
            code = re.findall(r"{{(.*?)}}", re.sub(r"{{/\*.*?\*/}}", "", path.read_text(), flags=re.S), flags=re.S)
            assert not [one for one in code if impure.search(one)], path


def test_the_finished_job_may_stay_for_argo() -> None:
    """A75: `null` leaves the field out, so that nothing drifts."""
    [job] = of_kind(render(*with_ci("existing-secret")), "Job")
    assert "ttlSecondsAfterFinished" not in job["spec"]
    [job] = of_kind(render(*COMMAND), "Job")
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400


def rules_of(objects: list[dict[str, Any]], kind: str, name: str) -> set[tuple[str, str, str, str]]:
    """Group, resource, name and verb, one each."""
    found: set[tuple[str, str, str, str]] = set()
    for one in of_kind(objects, kind):
        if one["metadata"]["name"] == name:
            for rule in one["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            found |= {(group, resource, n, verb) for n in rule.get("resourceNames", [""])}
    return found


READ = {
    *((group, resource, "", verb)
      for group, resource in [("", "pods"), ("", "services"), ("", "events"), ("events.k8s.io", "events"),
                              ("apps", "deployments"), ("apps", "statefulsets"), ("apps", "daemonsets")]
      for verb in ("get", "list", "watch")),
    ("", "pods/log", "", "get"),
}  # fmt: skip
NODES = {("", "nodes", "", verb) for verb in ("get", "list", "watch")}


def test_the_default_rights_are_narrow() -> None:
    """A23: exactly the list of the handbook and D1; by name in the own namespace; no write anywhere else."""
    objects = render(*COMMAND)
    assert rules_of(objects, "ClusterRole", "daalu-edge:daalu-edge:read") == READ | NODES
    assert rules_of(objects, "ClusterRole", "daalu-edge:daalu-edge:identity") == {
        ("", "namespaces", "kube-system", "get")
    }
    assert rules_of(objects, "Role", "daalu-edge") == {
        *(("", "secrets", "daalu-edge-key", verb) for verb in ("get", "watch")),
        *(("", "configmaps", "daalu-edge-config", verb) for verb in ("get", "watch", "patch")),
    }
    assert rules_of(objects, "Role", "daalu-edge-bootstrap") == {
        ("", kind, name, verb)
        for kind, name in (("secrets", "daalu-edge-key"), ("configmaps", "daalu-edge-config"))
        for verb in ("get", "patch")
    }
    bound = {
        one["roleRef"]["name"]: sorted(subject["name"] for subject in one["subjects"])
        for one in of_kind(objects, "ClusterRoleBinding") + of_kind(objects, "RoleBinding")
    }
    assert bound == {
        "daalu-edge:daalu-edge:read": ["daalu-edge"],
        "daalu-edge:daalu-edge:identity": ["daalu-edge", "daalu-edge-bootstrap"],
        "daalu-edge": ["daalu-edge"],
        "daalu-edge-bootstrap": ["daalu-edge-bootstrap"],
    }


def test_every_role_is_bound_to_the_accounts_of_the_release_and_to_nobody_else() -> None:
    """A23: no binding refers to a role of somebody else, none names a user, a group or another namespace."""
    for name in CI:
        objects = render(*with_ci(name))
        roles = {
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
            for kind in ("Role", "ClusterRole") for one in of_kind(objects, kind)
        }  # fmt: skip
        accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
        bound = set()
        for kind in ("RoleBinding", "ClusterRoleBinding"):
            for one in of_kind(objects, kind):
                bound.add((one["roleRef"]["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"]))
                for subject in one["subjects"]:
                    assert subject["kind"] == "ServiceAccount"
                    assert (subject["namespace"], subject["name"] in accounts) == ("daalu-edge", True)
        assert bound == roles, name


def test_no_rule_of_the_chart_is_a_star_or_leads_to_more() -> None:
    """A23: no `*`, no impersonation, no secret but the one, no write but to the two objects, by name."""
    for name in CI:
        if name == "namespaces":
            continue  # that one shows what an owner may add
        for one in render(*with_ci(name)):
            for rule in one.get("rules", []):
                words = {word for field in rule.values() for word in field}
                assert not words & {"*", "impersonate", "escalate", "bind", "create", "delete", "update"}
                if "secrets" in rule["resources"] or "patch" in rule["verbs"]:
                    assert rule["resourceNames"] in (["daalu-edge-key"], ["daalu-edge-config"])


def test_rights_can_be_narrowed_widened_and_left_out() -> None:
    """A23: namespaces get roles of their own and nothing cluster-wide is left but the nodes."""
    objects = render(*with_ci("namespaces"))
    batch = {("batch", what, "", verb) for what in ("jobs", "cronjobs") for verb in ("get", "list", "watch")}
    assert rules_of(objects, "ClusterRole", "daalu-edge:daalu-edge:read") == NODES
    assert rules_of(objects, "ClusterRole", "daalu-edge:daalu-edge:extra") == batch
    [extra] = [one for one in of_kind(objects, "Role") if one["metadata"]["name"] == "daalu-edge-extra"]
    assert extra["metadata"]["namespace"] == "b"
    assert rules_of(objects, "Role", "daalu-edge-extra") == {
        ("apps", what, "", "patch") for what in ("deployments", "deployments/scale", "statefulsets")
    }
    assert all("namespace" not in rule for one in objects for rule in one.get("rules", []))
    inside = [one for one in of_kind(objects, "Role") if one["metadata"]["name"] == "daalu-edge-read"]
    assert [one["metadata"]["namespace"] for one in inside] == ["a", "b"]
    assert rules_of(objects, "Role", "daalu-edge-read") == READ
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {
        one["kind"] for one in render(*with_ci("no-rbac"))
    }


RESTRICTED = {
    "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip
CONTAINER = {
    "allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}  # fmt: skip


def test_every_pod_is_restricted() -> None:
    """A25: Deployment, Job and test pod; a fixed uid, a read-only root, one small scratch volume to write."""
    for component, pod in pods_of(render(*COMMAND)).items():
        assert pod["securityContext"] == RESTRICTED, component
        [container] = pod["containers"]
        assert container["securityContext"] == CONTAINER
        writable = [one["name"] for one in pod["volumes"] if "emptyDir" in one]
        assert writable == ["scratch"]
        assert all(one.get("readOnly") for one in container["volumeMounts"] if one["name"] != "scratch")
        assert container["resources"]["requests"]


@pytest.mark.parametrize("name", ["tun-plugin", "tun-host"])
def test_tun_mode_adds_one_capability_and_a_device(name: str) -> None:
    """A25: NET_ADMIN and nothing else, for the edge alone; Job and test stay as they are."""
    plain, tun = pods_of(render(*with_ci("default"))), pods_of(render(*with_ci(name)))
    assert tun["bootstrap"] == plain["bootstrap"]
    assert tun["test"] == plain["test"]
    edge, [container], [before] = tun["edge"], tun["edge"]["containers"], plain["edge"]["containers"]
    assert edge["securityContext"] == {**RESTRICTED, "runAsNonRoot": False, "runAsUser": 0}
    assert container["securityContext"] == {**CONTAINER, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    if name == "tun-plugin":
        assert container["resources"]["limits"]["squat.ai/tun"] == "1"
        assert edge["volumes"] == plain["edge"]["volumes"]
    else:
        assert {"name": "tun", "hostPath": {"path": "/dev/net/tun", "type": "CharDevice"}} in edge["volumes"]
        assert container["resources"] == before["resources"]


def job_name(*arguments: str) -> str:
    [job] = of_kind(render(*arguments), "Job")
    name: str = job["metadata"]["name"]
    assert re.fullmatch(r"daalu-edge-bootstrap-[0-9a-f]{8}", name)
    return name


def test_the_name_of_the_job_follows_what_it_runs() -> None:
    """A33: a Job's template cannot be changed, so whatever changes it changes the name; the rest leaves it alone."""
    before = job_name(*COMMAND)
    for value in (
        "image.tag=0.2.0", "hub.url=https://other.example", f"bootstrap.token={TOKEN[:-1]}d", "runAsUser=1000",
        "podLabels.a=b", "priorityClassName=high", "bootstrap.activeDeadlineSeconds=600",
    ):  # fmt: skip
        assert job_name(*COMMAND, "--set", value) != before, value
    for value in ("wg.keepalive=10", "wg.heartbeat=10", "rbac.create=false", "health.port=9000"):
        assert job_name(*COMMAND, "--set", value) == before, value
    [config] = of_kind(render(*COMMAND), "ConfigMap")
    assert config["data"] == {"hub-url": URL, "job": before}
    for template in (one["spec"]["template"] for one in of_kind(render(*COMMAND), "Job")):
        assert not any("version" in label or "chart" in label for label in template["metadata"]["labels"])


def test_a_new_token_does_not_restart_the_edge() -> None:
    [one], [other] = (
        of_kind(render(*COMMAND, "--set", f"bootstrap.token={token}"), "Deployment")
        for token in (TOKEN, TOKEN[:-1] + "d")
    )
    assert one == other


def test_the_job_ends_at_once_for_what_cannot_heal() -> None:
    """A15: the pod failure policy names exactly the exit codes of final causes, and the pod stays for its log."""
    [job] = of_kind(render(*COMMAND), "Job")
    [fail, _] = job["spec"]["podFailurePolicy"]["rules"]
    final = {cause.exit_code for cause in CAUSES.values() if cause.is_final}
    assert set(fail["onExitCodes"]["values"]) == final
    assert fail["onExitCodes"]["containerName"] == "bootstrap"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    environment = environment_of(pods_of(render(*COMMAND))["bootstrap"])
    assert int(environment["DAALU_DEADLINE"]) == job["spec"]["activeDeadlineSeconds"] - 60


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("value", "range"), [("0", "1"), ("65536", "65,?535"), ("-1", "1"), ("25s", "1 to 65535")])
def test_a_keepalive_out_of_range_is_refused(helm: str, value: str, range: str) -> None:
    """A41: with the allowed range in the message."""
    with pytest.raises(Refused, match=rf"keepalive.*{range}"):
        output(helm, *COMMAND, "--set", f"wg.keepalive={value}")


def test_the_keepalive_reaches_the_edge() -> None:
    """A41: 25 s by default, and what is set."""
    assert environment_of(pods_of(render(*COMMAND))["edge"])["DAALU_WG_KEEPALIVE"] == "25"
    assert environment_of(pods_of(render(*COMMAND, "--set", "wg.keepalive=10"))["edge"])["DAALU_WG_KEEPALIVE"] == "10"


@pytest.mark.parametrize(
    "value", ["wg.mtu=1279", "wg.mtu=9001", "wg.heartbeat=21", "wg.mode=kernel", "hub.url=http://x", "health.port=0"]
)
def test_other_values_out_of_range_are_refused(value: str) -> None:
    for helm in HELMS:
        with pytest.raises(Refused, match=value.partition("=")[0].rpartition(".")[2]):
            output(helm, *COMMAND, "--set", value)


@pytest.mark.parametrize("helm", HELMS)
def test_what_the_schema_cannot_say_is_said_in_words(helm: str) -> None:
    with pytest.raises(Refused, match=r"hub\.url is missing"):
        output(helm)
    with pytest.raises(Refused, match=r"bootstrap\.token and bootstrap\.existingSecret\.name are both set"):
        output(helm, *COMMAND, "--set", "bootstrap.existingSecret.name=mine")
    with pytest.raises(Refused, match=r"hub\.caBundle and hub\.existingCASecret\.name are both set"):
        output(helm, *COMMAND, "--set", "hub.caBundle=x", "--set", "hub.existingCASecret.name=y")


def test_placement_reaches_edge_and_job_unchanged() -> None:
    """A42: exact equality."""
    values = yaml.safe_load((CHART / "ci" / "placement-values.yaml").read_text())
    pods = pods_of(render(*with_ci("placement")))
    for component in ("edge", "bootstrap"):
        for name in (
            "priorityClassName", "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "dnsConfig",
            "hostAliases",
        ):  # fmt: skip
            assert pods[component][name] == values[name], (component, name)


def test_an_air_gapped_site_names_its_own_registry() -> None:
    """Every image comes from there, by digest, with its pull secrets; the hub's authority is mounted."""
    for pod in pods_of(render(*with_ci("air-gap"))).values():
        [container] = pod["containers"]
        assert container["image"].startswith("registry.example.test:5000/daalu/daalu-edge@sha256:")
        assert [one["name"] for one in pod["imagePullSecrets"]] == ["own", "shared"]
        assert environment_of(pod)["DAALU_HUB_CA_FILE"] == "/run/daalu/ca/ca.crt"


@pytest.mark.parametrize("name", CI)
def test_the_agent_understands_every_variable_of_the_chart(name: str) -> None:
    """What the chart sets is a setting of the agent, and valid."""
    known = {row.variable for row in SETTINGS}
    for pod in pods_of(render(*with_ci(name))).values():
        environment = environment_of(pod)
        assert {variable for variable in environment if variable.startswith("DAALU_")} <= known
        plain = {key: value for key, value in environment.items() if isinstance(value, str)}
        read_settings({}, {**plain, "KUBERNETES_SERVICE_HOST": "10.96.0.1"})


def test_two_releases_in_two_namespaces_do_not_meet() -> None:
    names = []
    for namespace in ("one", "two"):
        objects = render("--namespace", namespace, "--set", f"hub.url={URL}")
        names.append({(one["kind"], one["metadata"]["name"]) for one in objects if one["kind"].startswith("Cluster")})
    assert names[0]
    assert not names[0] & names[1]


def test_no_secret_stands_anywhere_but_in_its_own_secret() -> None:
    """A22: the token is in one Secret, not in environment, arguments, annotations or names."""
    for one in render(*COMMAND):
        if one["metadata"]["name"] != "daalu-edge-token":
            assert TOKEN not in json.dumps(one)


# --- values and names that look like something else ------------------------------------------------------------------

RELEASES = ("no", "123", "1e3", "true", "null", "0x1f", "on", "a" * 53, "a.b")
LONG = "a123456789b123456789c123456789d12345678.xyz"  # a dot where names are cut


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_and_a_namespace_may_look_like_a_number_or_a_truth_value(release: str) -> None:
    arguments = ("--namespace", "444443", "--set", f"hub.url={URL}", "--set", f"bootstrap.token={TOKEN}")
    arguments += ("--set", "networkPolicy.enabled=true", "--set", "podMonitor.enabled=true", *MONITORS)
    for one in yaml.load_all(output("helm4", *arguments, release=release), Loader=yaml.SafeLoader):
        if one["kind"] != "PodMonitor":
            kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        assert one["metadata"].get("namespace", "444443") == "444443"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == release


def test_a_name_ends_in_a_letter_or_a_digit_wherever_it_is_cut() -> None:
    for one in yaml.load_all(output("helm4", *COMMAND, release=LONG), Loader=yaml.SafeLoader):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        segments = re.split(r"[.:]", one["metadata"]["name"])
        assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", segment) for segment in segments)


def test_labels_of_the_owner_never_stand_twice_and_never_break_a_selector() -> None:
    theirs = dict.fromkeys(("app.kubernetes.io/name", "app.kubernetes.io/component"), "evil")
    theirs |= {"helm.sh/chart": "mine", "a": "b"}
    more = ("--set-json", f"commonLabels={json.dumps(theirs)}")
    more += ("--set-json", f"podLabels={json.dumps(theirs | {'a': 'c'})}")
    for line in output("helm4", *COMMAND, *more).split("---\n"):
        keys = [found[1] for found in re.finditer(r'^ {4}("?[a-z.]+/[a-z]+"?):', line, re.M)]
        assert len(keys) == len(set(keys))
    objects = render(*COMMAND, *more)
    [deployment] = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert (labels["a"], deployment["metadata"]["labels"]["a"]) == ("c", "b")
    assert deployment["metadata"]["labels"]["helm.sh/chart"] == "mine"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/component"] == "edge"


def test_pull_secrets_are_names_or_objects() -> None:
    more = ("--set-json", 'global={"imagePullSecrets":[{"name":"x"},"y"]}')
    more += ("--set-json", 'imagePullSecrets=["y",{"name":"z"}]')
    for pod in pods_of(render(*COMMAND, *more)).values():
        assert pod["imagePullSecrets"] == [{"name": "y"}, {"name": "z"}, {"name": "x"}]


@pytest.mark.parametrize("mode", ["userspace", "tun"])
def test_without_a_user_the_cluster_chooses_one(mode: str) -> None:
    for component, pod in pods_of(render(*COMMAND, "--set", f"runAsUser=null,wg.mode={mode}")).items():
        context = pod["securityContext"]
        is_tun = (mode, component) == ("tun", "edge")
        assert {"runAsUser", "runAsGroup", "fsGroup"} & set(context) == ({"runAsUser"} if is_tun else set())
        assert context["runAsNonRoot"] is not is_tun


def test_a_parent_chart_may_have_it_under_a_condition(tmp_path: pathlib.Path) -> None:
    (tmp_path / "charts").mkdir()
    shutil.copytree(CHART, tmp_path / "charts/daalu-edge")
    dependency = {"name": "daalu-edge", "version": "*", "condition": "daalu-edge.enabled"}
    document = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(document))
    for is_enabled, least in ((True, 10), (False, 0)):
        values = {"daalu-edge": {"enabled": is_enabled, "hub": {"url": URL}}, "global": {"other": 1}}
        (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
        for helm in HELMS:
            program = find_program(helm)
            assert program is not None
            done = subprocess.run([program, "template", "x", str(tmp_path)], capture_output=True, text=True, check=True)
            assert (done.stdout.count("kind:") >= least) == (is_enabled or least == 0)
            assert ("kind:" in done.stdout) == is_enabled


@pytest.mark.parametrize(("url", "port"), [("https://h:8443", 8443), ("https://h", 443), ("https://[::1]:9/x", 9)])
def test_the_policy_lets_out_to_the_port_of_the_hub_and_to_any_dns(url: str, port: int) -> None:
    [policy] = of_kind(render(*COMMAND, "--set", f"hub.url={url},networkPolicy.enabled=true"), "NetworkPolicy")
    ports = {(one["protocol"], one["port"]) for rule in policy["spec"]["egress"] for one in rule["ports"]}
    assert {("TCP", port), ("UDP", 53), ("UDP", 5353), ("TCP", 5353), ("UDP", 51820)} <= ports


def test_a_changed_value_makes_another_test_pod_since_pods_cannot_be_changed() -> None:
    names = [of_kind(render(*COMMAND, "--set", f"image.tag={tag}"), "Pod")[0]["metadata"]["name"] for tag in "aab"]
    assert names[0] == names[1] != names[2]


def test_a_token_that_is_spent_may_be_deleted() -> None:
    for more in ((), ("--set", "bootstrap.token=,bootstrap.existingSecret.name=mine")):
        volumes = {one["name"]: one for one in pods_of(render(*COMMAND, *more))["bootstrap"]["volumes"]}
        assert volumes["token"]["secret"]["optional"] is True


def test_what_the_chart_sets_is_not_set_twice() -> None:
    objects = render(*COMMAND, *with_ci("air-gap"))
    names = {name for pod in pods_of(objects).values() for name in environment_of(pod) if name.startswith("DAALU_")}
    for name in names:
        with pytest.raises(Refused, match=name):
            render(*COMMAND, "--set-json", f'extraEnv=[{{"name":"{name}","value":"x"}}]')
    with pytest.raises(Refused, match="volume scratch"):
        render(*COMMAND, "--set-json", 'extraVolumes=[{"name":"scratch","emptyDir":{}}]')
    assert render(*COMMAND, "--set-json", 'extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]')
