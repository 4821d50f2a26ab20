"""The "kubectl run" panel: a line to API requests, answers to what kubectl would print. No process, no shell.

    line -> domain.panel.parse -> Command -> one function per verb -> Upstream -> tables as the API server makes them

`get` asks for the server's own table form, so its columns are kubectl's. A line may take 30 seconds and print 1 MiB;
what it asks the API server is bounded too. Requests run as the identity of the grant, like those of a kubeconfig.
"""

from __future__ import annotations

import json
import re
import secrets
import textwrap
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import trio

from hub_server.domain import kubectl
from hub_server.domain.kubectl import Resource, age, cell, seconds_of, tabulated
from hub_server.domain.panel import Command, LineRefused, parse
from hub_server.domain.records import PanelResult, ProxyGrant
from hub_server.kubeproxy import identity_fields
from hub_server.upstream import EdgeFault, Upstream
from hub_server.wire import Wire

__all__ = ["LONGEST_OUTPUT", "TIME_LIMIT", "run_panel"]

TIME_LIMIT: Final = 30.0
LONGEST_OUTPUT: Final = 2**20
_LONGEST_ANSWER: Final = 32 * 2**20
_PAGE: Final = 500
_TABLE: Final = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
_FORBIDDEN: Final = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)


async def run_panel(
    line: str, wire: Wire, grant: ProxyGrant, *, wall_clock: Callable[[], float] = time.time
) -> PanelResult:
    """Run what was typed after `kubectl`.

    Args:
        line: as typed.
        wire: the tunnels.
        grant: whose identity is used, for which cluster.
        wall_clock: Unix seconds, for ages.
    """
    try:
        command = parse(line)
    except LineRefused as refusal:
        return PanelResult("", 1, refused=str(refusal))
    upstream = Upstream(wire)
    run = _Run(upstream, grant, command, wall_clock)
    code, is_cut = 0, False
    try:
        with trio.move_on_after(TIME_LIMIT) as limit:
            code = await _RUNNERS[command.verb](run)
        if limit.cancelled_caught:
            run.print(f"[stopped: a line of the panel runs for {TIME_LIMIT:.0f} seconds at most]\n")
            code, is_cut = (0 if command.is_set("follow") else 1), True
    except _Enough:
        run.output.append(f"\n[cut: the panel prints {LONGEST_OUTPUT // 2**20} MiB at most]\n")
        is_cut = True
    except _Failed as failure:
        code = 1
        run.output.append(f"{failure}\n")
        if failure.forbidden:
            return PanelResult("".join(run.output), code, forbidden=failure.forbidden)
    except LineRefused as refusal:
        return PanelResult("", 1, refused=str(refusal))
    finally:
        upstream.close()
    return PanelResult("".join(run.output), code, truncated=is_cut)


class _Failed(Exception):
    """The line ends with this text and exit code 1."""

    def __init__(self, text: str, forbidden: Mapping[str, str] | None = None, *, status: int = 0) -> None:
        super().__init__(text)
        self.forbidden = forbidden
        self.status = status


class _Enough(Exception):
    """The output is as long as it may be."""


class _Run:
    """One line on its way."""

    def __init__(
        self, upstream: Upstream, grant: ProxyGrant, command: Command, wall_clock: Callable[[], float]
    ) -> None:
        self.command = command
        self.now = wall_clock
        self.output: list[str] = []
        self._room = LONGEST_OUTPUT
        self._upstream = upstream
        self._grant = grant
        self._discovered: list[list[Resource]] | None = None

    def print(self, text: str) -> None:
        """Print, up to the limit."""
        if len(text) > self._room:
            self.output.append(text[: self._room])
            self._room = 0
            raise _Enough
        self._room -= len(text)
        self.output.append(text)

    @property
    def namespace(self) -> str:
        """Of the line; empty for all."""
        return "" if self.command.is_set("all-namespaces") else self.command.flags.get("namespace", "default")

    async def ask(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        accept: str = "application/json",
        body: Mapping[str, Any] | None = None,
        take: Callable[[bytes], None] | None = None,
    ) -> Any:
        """One request; a JSON document, or the text piece by piece to `take`.

        Raises:
            _Failed: with kubectl's words for what the API server said.
        """
        target = path + (f"?{urlencode(query)}" if query else "")
        fields = [
            (b"accept", accept.encode()),
            (b"user-agent", b"daalu-panel"),
            (b"daalu-request-id", secrets.token_hex(8).encode()),
            *identity_fields(self._grant),
        ]
        octets = None if body is None else json.dumps(body).encode()
        if octets is not None:
            fields.append((b"content-type", b"application/json"))

        async def send(out: Callable[[bytes], Awaitable[None]]) -> None:
            await out(octets or b"")

        try:
            async with self._upstream.request(
                self._grant.cluster_id,
                "GET" if octets is None else "POST",
                target,
                fields,
                None if octets is None else send,
                length=None if octets is None else len(octets),
            ) as answer:
                is_good = 200 <= answer.status < 300
                if is_good and take is not None:
                    while piece := await answer.piece():
                        take(piece)
                    return None
                content = bytearray()
                while piece := await answer.piece():
                    content += piece
                    if len(content) > _LONGEST_ANSWER:
                        raise _Failed("error: the answer is too large for the panel: narrow the request")
        except OSError as problem:
            raise _Failed(f"error: the cluster cannot be reached through its tunnel: {problem.strerror}") from None
        except EdgeFault as fault:
            raise _Failed(f"error: {fault}") from None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise _Failed(f"error: the cluster answered {answer.status} without a document") from None
        if not is_good:
            raise _failure_of(answer.status, document)
        if not isinstance(document, dict):
            raise _Failed("error: the cluster answered with something that is no object")
        return document

    async def resource(self, word: str) -> Resource:
        """What a word of the line means in this cluster."""
        found = kubectl.find_resource(word)
        if found is None:
            found = kubectl.find_resource(word, [one for ones in await self.discovered() for one in ones])
        if found is None:
            raise _Failed(f'error: the server doesn\'t have a resource type "{word}"')
        return found

    async def discovered(self) -> list[list[Resource]]:
        """Every resource of the cluster, group by group, the core first."""
        if self._discovered is not None:
            return self._discovered
        groups = await self.ask("/apis")
        found = [kubectl.resources_of_discovery("", await self.ask("/api/v1"))]
        for group in groups.get("groups") or ():
            version = (group.get("preferredVersion") or {}).get("groupVersion")
            if isinstance(version, str):
                try:
                    document = await self.ask(f"/apis/{_path(version)}")
                except _Failed:
                    continue  # an aggregated API that is away hides no other
                found.append(kubectl.resources_of_discovery(str(group.get("name", "")), document))
        self._discovered = found
        return found

    def path(self, resource: Resource, name: str = "") -> str:
        """Of a collection, or of one object."""
        path = resource.path
        if resource.is_namespaced and self.namespace:
            path += f"/namespaces/{quote(self.namespace, safe='')}"
        path += f"/{resource.plural}"
        return f"{path}/{quote(name, safe=':')}" if name else path


def _path(text: str) -> str:
    return quote(text, safe="/.")


def _failure_of(status: int, document: Any) -> _Failed:
    document = document if isinstance(document, dict) else {}
    message = str(document.get("message", f"the server answered {status}"))
    reason = str(document.get("reason", "Unknown"))
    if reason == "DaaluEdge":
        return _Failed(f"error: {message}", status=status)
    forbidden = None
    if status == 403:
        found = _FORBIDDEN.search(message)
        forbidden = {key: value or "" for key, value in found.groupdict().items()} if found else {}
        forbidden["name"] = str((document.get("details") or {}).get("name") or "")
        forbidden["message"] = message
    return _Failed(f"Error from server ({reason}): {message}", forbidden, status=status)


# --- get -------------------------------------------------------------------------------------------------------------


async def _targets(run: _Run) -> list[tuple[str, list[str]]]:
    """`pods a b`, `pods,svc`, `all` and `pod/a svc/b` to resource words and names."""
    words = run.command.words
    if not words:
        raise LineRefused("name a resource, such as: get pods")
    if any("/" in word for word in words):
        pairs = [word.split("/") for word in words]
        if any(len(pair) != 2 or not all(pair) for pair in pairs):
            raise LineRefused("either TYPE NAME, or TYPE/NAME throughout")
        return [(kind, [name]) for kind, name in pairs]
    kinds: list[str] = []
    for word in filter(None, words[0].split(",")):
        if word != "all":
            kinds.append(word)
            continue
        every = [one for group in await run.discovered() for one in group if "all" in one.categories]
        kinds += [f"{one.plural}.{one.group}" if one.group else one.plural for one in every] or [word]
    return [(kind, list(words[1:])) for kind in kinds]


async def _get(run: _Run) -> int:
    targets = await _targets(run)
    output = run.command.flags.get("output", "")
    if output in ("json", "yaml"):
        return await _get_documents(run, targets, output)
    has_several = len(targets) > 1
    found_any = False
    left: list[_Failed] = []
    scopes = []
    for word, names in targets:
        resource = await run.resource(word)
        scopes.append(resource.is_namespaced)
        prefix = f"{resource.named}/" if has_several or run.command.is_set("show-kind") else ""
        failures: list[_Failed] = []
        try:
            table = await _table(run, resource, names, failures)
        except _Failed as failure:
            if not has_several:
                raise
            table, failures = {}, [failure]
        if run.command.is_set("ignore-not-found"):
            failures = [one for one in failures if one.status != 404]
        left += failures
        rows = table.get("rows") or ()
        if not rows:
            continue
        if found_any and output != "name":
            run.print("\n")
        found_any = True
        if output == "name":
            for row in rows:
                run.print(f"{resource.named}/{_metadata(row).get('name', '')}\n")
        else:
            run.print(_printed(run, table, resource, prefix))
    if left and not found_any and len(left) == 1:
        raise left[0]
    for one in left:
        run.print(f"{one}\n")
    if not found_any and not left and not run.command.is_set("ignore-not-found"):
        where = f" in {run.namespace} namespace" if run.namespace and any(scopes) else ""
        run.print(f"No resources found{where}.\n" if where else "No resources found\n")
    return 1 if left else 0


async def _table(run: _Run, resource: Resource, names: list[str], failures: list[_Failed]) -> dict[str, Any]:
    """Rows of a collection, page by page, or of the objects that are named; those that fail hide no other."""
    whole: dict[str, Any] = {}
    if names:
        if run.command.is_set("all-namespaces") and resource.is_namespaced:
            raise _Failed("error: a resource cannot be retrieved by name across all namespaces")
        for name in names:
            try:
                _join(whole, await run.ask(run.path(resource, name), accept=_TABLE))
            except _Failed as failure:
                failures.append(failure)
        return whole
    query: dict[str, Any] = {"limit": _PAGE}
    for flag, parameter in (("selector", "labelSelector"), ("field-selector", "fieldSelector")):
        if flag in run.command.flags:
            query[parameter] = run.command.flags[flag]
    rows_most = LONGEST_OUTPUT // 20
    while len(whole.get("rows", ())) < rows_most:
        page = await run.ask(run.path(resource), query, accept=_TABLE)
        _join(whole, page)
        following = (page.get("metadata") or {}).get("continue")
        if not following:
            break
        query["continue"] = following
    return whole


def _join(whole: dict[str, Any], page: Mapping[str, Any]) -> None:
    if page.get("kind") != "Table":
        raise _Failed("error: the cluster did not answer with a table")
    whole.setdefault("columnDefinitions", page.get("columnDefinitions") or [])
    whole.setdefault("rows", []).extend(page.get("rows") or ())


def _metadata(row: Any) -> Mapping[str, Any]:
    found = ((row or {}).get("object") or {}).get("metadata") or {}
    return found if isinstance(found, dict) else {}


def _printed(run: _Run, table: Mapping[str, Any], resource: Resource, prefix: str) -> str:
    command = run.command
    is_wide = command.flags.get("output") == "wide"
    definitions = [one for one in table["columnDefinitions"] if isinstance(one, dict)]
    shown = [at for at, one in enumerate(definitions) if is_wide or not one.get("priority")]
    labels = [one for one in command.flags.get("label-columns", "").split(",") if one]
    with_namespace = command.is_set("all-namespaces") and resource.is_namespaced
    head = ["NAMESPACE"] if with_namespace else []
    head += [str(definitions[at].get("name", "")).upper() for at in shown]
    head += [label.rpartition("/")[2].upper() for label in labels]
    if command.is_set("show-labels"):
        head.append("LABELS")
    rows = [] if command.is_set("no-headers") else [head]
    for row in table["rows"]:
        metadata = _metadata(row)
        own = metadata.get("labels") or {}
        cells = row.get("cells") or ()
        line = [str(metadata.get("namespace", ""))] if with_namespace else []
        for at in shown:
            text = cell(cells[at]) if at < len(cells) else ""
            line.append(prefix + text if prefix and definitions[at].get("format") == "name" else text)
        line += [cell(own.get(label, "<none>")) for label in labels]
        if command.is_set("show-labels"):
            line.append(",".join(f"{key}={value}" for key, value in sorted(own.items())) or "<none>")
        rows.append(line)
    return tabulated(rows)


async def _get_documents(run: _Run, targets: list[tuple[str, list[str]]], output: str) -> int:
    items: list[Any] = []
    is_list = len(targets) > 1
    for word, names in targets:
        resource = await run.resource(word)
        if names:
            is_list = is_list or len(names) > 1
            items += [await run.ask(run.path(resource, name)) for name in names]
        else:
            is_list = True
            query: dict[str, Any] = {"limit": _PAGE}
            for flag, parameter in (("selector", "labelSelector"), ("field-selector", "fieldSelector")):
                if flag in run.command.flags:
                    query[parameter] = run.command.flags[flag]
            while True:
                page = await run.ask(run.path(resource), query)
                version, kind = page.get("apiVersion"), str(page.get("kind", "")).removesuffix("List")
                items += [{"apiVersion": version, "kind": kind, **item} for item in page.get("items") or ()]
                following = (page.get("metadata") or {}).get("continue")
                if not following:
                    break
                query["continue"] = following
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("metadata"), dict):
            item["metadata"].pop("managedFields", None)
    whole: Any = items[0]
    if is_list:
        whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    run.print(kubectl.to_json(whole) if output == "json" else kubectl.to_yaml(whole))
    return 0


# --- describe, events ------------------------------------------------------------------------------------------------


async def _describe(run: _Run) -> int:
    is_first = True
    for word, names in await _targets(run):
        resource = await run.resource(word)
        if names:
            documents = [await run.ask(run.path(resource, name)) for name in names]
        else:
            query = {"limit": _PAGE}
            if "selector" in run.command.flags:
                query |= {"labelSelector": run.command.flags["selector"]}  # type: ignore[dict-item]
            page = await run.ask(run.path(resource), query)
            own = {"apiVersion": page.get("apiVersion"), "kind": str(page.get("kind", "")).removesuffix("List")}
            documents = [{**own, **item} for item in page.get("items") or ()]
        for document in documents:
            run.print("" if is_first else "\n\n")
            is_first = False
            run.print(kubectl.described(document))
            if run.command.flags.get("show-events") != "false":
                run.print(await _events_of(run, document))
    if is_first:
        run.print("No resources found\n")
    return 0


async def _events_of(run: _Run, document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata") or {}
    selector = f"involvedObject.name={metadata.get('name')},involvedObject.uid={metadata.get('uid')}"
    namespace = metadata.get("namespace")
    path = f"/api/v1/namespaces/{quote(str(namespace), safe='')}/events" if namespace else "/api/v1/events"
    try:
        page = await run.ask(path, {"fieldSelector": selector, "limit": _PAGE})
    except _Failed:
        return ""
    rows = [
        (event.get("type", ""), event.get("reason", ""), _seen(run, event), _source(event), event.get("message", ""))
        for event in page.get("items") or ()
    ]
    if not rows:
        return "Events:        <none>\n"
    body = [("  Type", "Reason", "Age", "From", "Message"), ("  ----", "------", "----", "----", "-------")]
    lines = [[cell(one) for one in row] for row in body]
    lines += [["  " + cell(row[0]), *(cell(one).strip() for one in row[1:])] for row in rows]
    return "Events:\n" + tabulated(lines)


def _source(event: Mapping[str, Any]) -> str:
    source = event.get("source") or {}
    return str(source.get("component") or event.get("reportingComponent") or "")


def _last_seen(event: Mapping[str, Any]) -> float:
    series = event.get("series") or {}
    times = [series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")]
    times.append(event.get("firstTimestamp"))
    return next((seconds for one in times if (seconds := seconds_of(one)) is not None), 0.0)


def _seen(run: _Run, event: Mapping[str, Any]) -> str:
    seen = _last_seen(event)
    last = age(run.now() - seen) if seen else "<unknown>"
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    first = seconds_of(event.get("firstTimestamp")) or seconds_of(event.get("eventTime"))
    if count > 1 and first is not None:
        return f"{last} (x{count} over {age(run.now() - first)})"
    return last


async def _events(run: _Run) -> int:
    if run.command.words:
        raise LineRefused("`events` takes flags only, such as --for pod/NAME")
    query: dict[str, Any] = {"limit": _PAGE}
    wanted = run.command.flags.get("for")
    if wanted is not None:
        kind, _, name = wanted.partition("/")
        if not name:
            raise LineRefused("--for needs TYPE/NAME")
        resource = await run.resource(kind)
        query["fieldSelector"] = f"involvedObject.kind={resource.kind},involvedObject.name={name}"
    path = f"/api/v1/namespaces/{quote(run.namespace, safe='')}/events" if run.namespace else "/api/v1/events"
    events: list[Any] = []
    while True:
        page = await run.ask(path, query)
        events += page.get("items") or ()
        query["continue"] = (page.get("metadata") or {}).get("continue")
        if not query["continue"]:
            break
    kinds = {one.lower() for one in run.command.flags.get("types", "").split(",") if one}
    events = [event for event in events if not kinds or str(event.get("type", "")).lower() in kinds]
    if not events:
        run.print(f"No events found in {run.namespace} namespace.\n" if run.namespace else "No events found.\n")
        return 0
    rows = [] if run.command.is_set("no-headers") else [["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    for event in sorted(events, key=_last_seen):
        about = event.get("involvedObject") or {}
        line = [_seen(run, event), event.get("type", ""), event.get("reason", "")]
        line += [f"{about.get('kind', '')}/{about.get('name', '')}", str(event.get("message", "")).strip()]
        rows.append([cell(one) for one in line])
    if not run.namespace:
        spaces = [str((event.get("metadata") or {}).get("namespace", "")) for event in sorted(events, key=_last_seen)]
        heads = [] if run.command.is_set("no-headers") else ["NAMESPACE"]
        rows = [[space, *row] for space, row in zip([*heads, *spaces], rows, strict=True)]
    run.print(tabulated(rows))
    return 0


# --- logs ------------------------------------------------------------------------------------------------------------


async def _logs(run: _Run) -> int:
    flags = run.command.flags
    if not 1 <= len(run.command.words) <= 2:
        raise LineRefused("name one pod: logs POD [CONTAINER]")
    kind, _, name = run.command.words[0].rpartition("/")
    if run.command.is_set("all-namespaces"):
        raise LineRefused("logs are of one pod in one namespace")
    pods = kubectl.find_resource("pods")
    assert pods is not None, "everybody knows pods"
    if kind and (resource := await run.resource(kind)).plural != "pods":
        document = await run.ask(run.path(resource, name))
        labels = ((document.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        found = (await run.ask(run.path(pods), {"labelSelector": selector})).get("items") or ()
        if not found or not selector:
            raise _Failed(f"error: no pods of {run.command.words[0]} were found")
        pod = found[0]
        if len(found) > 1:
            run.print(f"Found {len(found)} pods, using pod/{pod['metadata']['name']}\n")
    else:
        try:
            pod = await run.ask(run.path(pods, name))
        except _Failed as failure:
            if failure.status != 404:
                raise
            text = f"error: e{str(failure)[1:]}"  # in kubectl's own words, which are not those of `get`
            raise _Failed(f"{text} in namespace {json.dumps(run.namespace)}", status=404) from None
    name = str(pod["metadata"]["name"])
    containers = [str(one.get("name")) for one in (pod.get("spec") or {}).get("containers") or ()]
    container = flags.get("container") or (run.command.words[1] if len(run.command.words) > 1 else "")
    if not container and len(containers) > 1:
        chosen = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        container = str(chosen or containers[0])
        if not chosen:
            run.print(f'Defaulted container "{container}" out of: {", ".join(containers)}\n')
    query: dict[str, Any] = {"limitBytes": LONGEST_OUTPUT + 1}
    if container:
        query["container"] = container
    if "tail" in flags and flags["tail"] != "-1":
        query["tailLines"] = _whole(flags["tail"], "--tail")
    if "since" in flags:
        query["sinceSeconds"] = _span(flags["since"])
    if "limit-bytes" in flags:
        query["limitBytes"] = min(_whole(flags["limit-bytes"], "--limit-bytes"), LONGEST_OUTPUT + 1)
    for flag in ("follow", "previous", "timestamps"):
        if run.command.is_set(flag):
            query[flag] = "true"
    await run.ask(
        f"{run.path(pods, name)}/log",
        query,
        accept="*/*",
        take=lambda piece: run.print(piece.decode(errors="replace")),
    )
    return 0


def _whole(text: str, flag: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise LineRefused(f"{flag} needs a number")
    return int(text)


def _span(text: str) -> int:
    parts = re.findall(r"(\d{1,9})([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise LineRefused("--since needs a span such as 5s, 2m or 3h")
    return max(1, sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts))


# --- the rest --------------------------------------------------------------------------------------------------------


async def _top(run: _Run) -> int:
    words = run.command.words
    if not words or words[0] not in ("node", "nodes", "no", "pod", "pods", "po") or len(words) > 2:
        raise LineRefused("top nodes [NAME], or top pods [NAME]")
    is_nodes = words[0].startswith("no")
    path = "/apis/metrics.k8s.io/v1beta1"
    if not is_nodes and run.namespace:
        path += f"/namespaces/{quote(run.namespace, safe='')}"
    path += "/nodes" if is_nodes else "/pods"
    if len(words) == 2:
        path += f"/{quote(words[1], safe='')}"
    query = {"labelSelector": run.command.flags["selector"]} if "selector" in run.command.flags else None
    try:
        answer = await run.ask(path, query)
    except _Failed as failure:
        if failure.status in (404, 503) and len(words) == 1:
            raise _Failed("error: Metrics API not available") from None
        raise
    items = answer.get("items") if "items" in answer else [answer]
    capacity = {}
    if is_nodes:
        nodes = await run.ask("/api/v1/nodes", {"limit": _PAGE})
        capacity = {
            node["metadata"]["name"]: (node.get("status") or {}).get("allocatable") or {}
            for node in nodes.get("items") or ()
        }
    rows: list[list[str]] = []
    for item in sorted(items or (), key=lambda one: str((one.get("metadata") or {}).get("name"))):
        metadata = item.get("metadata") or {}
        usages = [item["usage"]] if is_nodes else [one.get("usage") or {} for one in item.get("containers") or ()]
        cpu = sum(_quantity(one.get("cpu", "0")) for one in usages) * 1000
        memory = sum(_quantity(one.get("memory", "0")) for one in usages) / 2**20
        row = [str(metadata.get("name"))]
        if is_nodes:
            whole = capacity.get(metadata.get("name"), {})
            row += [f"{-(-cpu // 1):.0f}m", _share(cpu / 1000, whole.get("cpu"))]
            row += [f"{int(memory)}Mi", _share(memory * 2**20, whole.get("memory"))]
        else:
            row += [f"{-(-cpu // 1):.0f}m", f"{int(memory)}Mi"]
        if not is_nodes and not run.namespace:
            row.insert(0, str(metadata.get("namespace")))
        rows.append(row)
    head = (
        ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
        if is_nodes
        else ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    )
    if not is_nodes and not run.namespace:
        head.insert(0, "NAMESPACE")
    if not rows:
        run.print(f"No resources found in {run.namespace} namespace.\n" if run.namespace else "No resources found\n")
        return 0
    run.print(tabulated(rows if run.command.is_set("no-headers") else [head, *rows]))
    return 0


_UNITS: Final = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


def _quantity(text: Any) -> float:
    found = re.fullmatch(r"([0-9.]{1,24})(n|u|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?", str(text))
    try:
        return float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    except ValueError:
        return 0.0


def _share(used: float, whole: Any) -> str:
    there = _quantity(whole)
    return f"{int(used / there * 100)}%" if there else "<unknown>"


async def _api_resources(run: _Run) -> int:
    flags = run.command.flags
    rows: list[list[str]] = []
    names: list[str] = []
    for resources in await run.discovered():
        for one in sorted(resources):
            if "namespaced" in flags and one.is_namespaced != run.command.is_set("namespaced"):
                continue
            if "api-group" in flags and one.group != flags["api-group"]:
                continue
            version = f"{one.group}/{one.version}" if one.group else one.version
            row = [one.plural, ",".join(one.short), version, "true" if one.is_namespaced else "false", one.kind]
            if flags.get("output") == "wide":
                row += [",".join(one.verbs), ",".join(one.categories)]
            rows.append(row)
            names.append(f"{one.plural}.{one.group}" if one.group else one.plural)
    if flags.get("output") == "name":
        run.print("".join(f"{name}\n" for name in names))
        return 0
    head = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    head += ["VERBS", "CATEGORIES"] if flags.get("output") == "wide" else []
    run.print(tabulated(rows if run.command.is_set("no-headers") else [head, *rows]))
    return 0


async def _explain(run: _Run) -> int:
    if len(run.command.words) != 1:
        raise LineRefused("name one resource: explain pods.spec")
    word, *fields = run.command.words[0].split(".")
    resource = await run.resource(word)
    document = await run.ask(f"/openapi/v3{resource.path}")
    schemas = (document.get("components") or {}).get("schemas") or {}
    schema: Any = next(
        (
            one
            for one in schemas.values()
            for kind in one.get("x-kubernetes-group-version-kind") or ()
            if (kind.get("group"), kind.get("version"), kind.get("kind"))
            == (resource.group, resource.version, resource.kind)
        ),
        None,
    )
    if schema is None:
        raise _Failed(f"error: no description of {resource.kind} was found")
    text = [f"GROUP:      {resource.group}\n"] if resource.group else []
    text += [f"KIND:       {resource.kind}\n", f"VERSION:    {resource.version}\n"]
    for name in fields:
        inner = (_resolved(schemas, schema).get("properties") or {}).get(name)
        if inner is None:
            raise _Failed(f'error: field "{name}" does not exist')
        shown = schema = inner
    if fields:
        text.append(f"\nFIELD: {fields[-1]} <{_type_of(schemas, shown)}>\n")
    schema = _resolved(schemas, schema)
    text += ["\nDESCRIPTION:\n", _wrapped(str(schema.get("description", "<empty>")), 4)]
    properties = schema.get("properties") or {}
    if properties:
        text.append("\nFIELDS:\n")
        needed = schema.get("required") or ()
        for name in sorted(properties):
            must = " -required-" if name in needed else ""
            text.append(f"  {name}\t<{_type_of(schemas, properties[name])}>{must}\n")
            described = properties[name].get("description") or _resolved(schemas, properties[name]).get("description")
            text.append(_wrapped(str(described or "<no description>"), 4) + "\n")
    run.print("".join(text))
    return 0


def _resolved(schemas: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(16):
        schema = schema.get("items") if isinstance(schema.get("items"), dict) else schema  # type: ignore[assignment]
        several = schema.get("allOf") or ()
        reference = schema.get("$ref") or (several[0].get("$ref") if several else None)
        if not isinstance(reference, str):
            break
        schema = schemas.get(reference.rpartition("/")[2]) or {}
    return schema


def _type_of(schemas: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if isinstance(schema.get("items"), dict):
        return "[]" + _type_of(schemas, schema["items"])
    several = schema.get("allOf") or ()
    reference = schema.get("$ref") or (several[0].get("$ref") if several else None)
    if isinstance(reference, str):
        return reference.rpartition(".")[2]
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map[string]{_type_of(schemas, schema['additionalProperties'])}"
    return str(schema.get("type", "Object")).replace("object", "Object")


def _wrapped(text: str, indent: int) -> str:
    pad = " " * indent
    lines = [line for part in text.split("\n") for line in (textwrap.wrap(part, 76) or [""])]
    return "".join(f"{pad}{line}\n" for line in lines)


async def _version(run: _Run) -> int:
    version = await run.ask("/version")
    if run.command.flags.get("output") == "json":
        run.print(kubectl.to_json({"serverVersion": version}))
    else:
        run.print(f"Server Version: {version.get('gitVersion', 'unknown')}\n")
    return 0


async def _can_i(run: _Run) -> int:
    words, flags = run.command.words, run.command.flags
    if run.command.is_set("list"):
        return await _can_i_list(run)
    if not 2 <= len(words) <= 3:
        raise LineRefused("auth can-i VERB RESOURCE [NAME]")
    kind, _, name = words[1].partition("/")
    if kind.startswith("/") or words[1].startswith("/"):
        raise LineRefused("only resources can be asked about")
    attributes: dict[str, str] = {"verb": words[0], "name": name or (words[2] if len(words) == 3 else "")}
    if kind == "*":
        attributes |= {"resource": "*", "group": "*"}
    else:
        resource = kubectl.find_resource(kind) or await run.resource(kind)
        attributes |= {"resource": resource.plural, "group": resource.group}
    attributes |= {"namespace": run.namespace, "subresource": flags.get("subresource", "")}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = await run.ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    is_allowed = (answer.get("status") or {}).get("allowed") is True
    if not run.command.is_set("quiet"):
        reason = str((answer.get("status") or {}).get("reason") or "")
        run.print(("yes" if is_allowed else "no") + (f" - {reason}" if reason else "") + "\n")
    return 0 if is_allowed else 1


async def _can_i_list(run: _Run) -> int:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": run.namespace or "default"},
    }
    answer = await run.ask("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body=review)
    status = answer.get("status") or {}
    rows = [["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]]
    for rule in status.get("resourceRules") or ():
        for group in rule.get("apiGroups") or ("",):
            for resource in rule.get("resources") or ():
                shown = f"{resource}.{group}" if group else str(resource)
                rows.append([shown, "[]", _brackets(rule.get("resourceNames")), _brackets(rule.get("verbs"))])
    for rule in status.get("nonResourceRules") or ():
        for url in rule.get("nonResourceURLs") or ():
            rows.append(["", f"[{url}]", "[]", _brackets(rule.get("verbs"))])
    run.print(tabulated([[cell(one) for one in row] for row in rows]))
    return 0


def _brackets(values: Any) -> str:
    return f"[{' '.join(str(one) for one in values or ())}]"


_RUNNERS: Final[Mapping[str, Callable[[_Run], Awaitable[int]]]] = {
    "get": _get,
    "describe": _describe,
    "logs": _logs,
    "events": _events,
    "top": _top,
    "explain": _explain,
    "api-resources": _api_resources,
    "version": _version,
    "auth can-i": _can_i,
}
