"""One line on its way: what it asks, page by page, what it has printed, and how it ends. Runs in the worker; no I/O.

Command -> `run_line` -> the function of its verb -> Line.ask, Line.pages -> ask(Question) -> Reply
-> Line.print -> PanelResult
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

from hub_server.domain import kubectl
from hub_server.domain.foreign import Document, ForeignError
from hub_server.domain.kubectl import Resource
from hub_server.domain.panel import Command, LineRefused
from hub_server.domain.records import PanelResult
from hub_server.panel.frames import LONGEST_OUTPUT, Question, Reply

__all__ = ["Ask", "Failed", "Line", "quoted", "run_line"]

Ask: TypeAlias = Callable[[Question], Reply]

# Octets of one document; more than that is asked for in smaller pages.
_LONGEST_DOCUMENT: Final = 3 * 2**20
_PAGE: Final = 500
_SMALLEST_PAGE: Final = 4
_LONGEST_CONTINUE: Final = 4096
_FORBIDDEN: Final = re.compile(
    r'cannot (?P<verb>\S{1,64}) resource "(?P<resource>[^"]{0,256})" in API group "(?P<group>[^"]{0,256})"'
    r'(?: in the namespace "(?P<namespace>[^"]{0,256})")?'
)
# Where the function of each verb is: `run(line) -> exit code`.
_VERBS: Final = {
    "get": "get",
    "describe": "describe",
    "logs": "logs",
    "events": "events",
    "top": "top",
    "explain": "explain",
    "api-resources": "discovery",
    "version": "discovery",
    "auth can-i": "access",
}


class Failed(Exception):
    """The line, or one request of it, ends with this text and exit code 1."""

    def __init__(self, text: str, forbidden: Mapping[str, str] | None = None, *, status: int = 0) -> None:
        """Take kubectl's words, and for a 403 what is missing."""
        super().__init__(text)
        self.forbidden = forbidden
        self.status = status


class _TooLarge(Failed):
    """An answer that a smaller page may mend."""


class _Enough(Exception):
    """The output is as long as it may be."""


class _Over(Exception):
    """The time of the line is over."""


def run_line(command: Command, ask: Ask, now: float) -> PanelResult:
    """Run a line.

    Args:
        command: what was typed.
        ask: sends a request and waits for its reply.
        now: Unix seconds, for ages.
    """
    line = Line(command, ask, now)
    try:
        code = import_module(f"hub_server.panel.{_VERBS[command.verb]}").run(line)
        return PanelResult(line.output, code)
    except LineRefused as refusal:
        return PanelResult("", 1, refused=str(refusal))
    except _Enough:
        text = f"{line.output}\n[cut: the panel prints {LONGEST_OUTPUT // 2**20} MiB at most]\n"
        return PanelResult(text, 0, truncated=True)
    except _Over:
        text = f"{line.output}[stopped: a line of the panel runs for 30 seconds at most]\n"
        return PanelResult(text, 0 if command.is_set("follow") else 1, truncated=True)
    except Failed as failure:
        return PanelResult(f"{line.output}{failure}\n", 1, forbidden=failure.forbidden or None)
    except ForeignError as problem:
        text = f"{line.output}error: the cluster answered with what Kubernetes does not send: {problem}\n"
        return PanelResult(text, 1)


class Line:
    """One line on its way.

    Attributes:
        command: what was typed.
        now: Unix seconds.
    """

    def __init__(self, command: Command, ask: Ask, now: float) -> None:
        """Begin, with nothing printed."""
        self.command = command
        self.now = now
        self._ask = ask
        self._output: list[str] = []
        self._room = LONGEST_OUTPUT
        self._discovered: list[list[Resource]] | None = None

    @property
    def output(self) -> str:
        """What was printed."""
        return "".join(self._output)

    def print(self, text: str) -> None:
        """Print, up to the limit, at which the line ends."""
        self._output.append(text[: self._room])
        self._room -= len(text)
        if self._room < 0:
            raise _Enough

    def print_all(self, pieces: Iterable[str]) -> None:
        """Print piece by piece; those beyond the limit are never made."""
        for piece in pieces:
            self.print(piece)

    def print_rows(self, rows: list[list[str]]) -> None:
        """Print a table."""
        self.print_all(kubectl.tabulated(rows))

    @property
    def namespace(self) -> str:
        """Of the line; empty for all."""
        return "" if self.command.is_set("all-namespaces") else self.command.flags.get("namespace", "default")

    @property
    def selectors(self) -> dict[str, str]:
        """The parameters of a list that the line narrows it with."""
        flags = (("selector", "labelSelector"), ("field-selector", "fieldSelector"))
        return {parameter: self.command.flags[flag] for flag, parameter in flags if flag in self.command.flags}

    # --- asking ------------------------------------------------------------------------------------------------------

    def ask(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        accept: str = "application/json",
        review: Mapping[str, Any] | None = None,
    ) -> Document:
        """One request for a document.

        Raises:
            Failed: with kubectl's words for what the API server said.
            ForeignError: it is no document.
        """
        reply = self._reply(Question(_target(path, query), accept, review, _LONGEST_DOCUMENT, is_text=False))
        too_large = _TooLarge("error: the answer is too large for the panel: narrow the request")
        if reply.is_too_large:
            raise too_large
        if not 200 <= reply.status < 300:
            raise _failure_of(reply)
        try:
            return Document.parse(reply.octets, _LONGEST_DOCUMENT)
        except MemoryError:
            raise too_large from None
        except ForeignError as problem:
            if problem.detail.startswith("more than"):
                raise too_large from None
            raise

    def text(self, path: str, query: Mapping[str, Any]) -> None:
        """One request for text, which is printed as it is."""
        reply = self._reply(Question(_target(path, query), "*/*", None, LONGEST_OUTPUT + 1, is_text=True))
        if reply.status and not 200 <= reply.status < 300:
            raise _failure_of(reply)
        self.print(reply.octets.decode(errors="replace"))
        if reply.is_over:
            raise _Over

    def pages(
        self, path: str, query: Mapping[str, Any] | None = None, *, accept: str = "application/json"
    ) -> Iterator[Document]:
        """A collection, page by page; objects that are large come in smaller pages.

        What the pages may have in all is bounded by who answers: the line's octets and its time.
        """
        size, following = _PAGE, ""
        while True:
            asked = {**(query or {}), "limit": size} | ({"continue": following} if following else {})
            try:
                page = self.ask(path, asked, accept=accept)
            except _TooLarge:
                if size <= _SMALLEST_PAGE:
                    raise
                size //= 4
                continue
            yield page
            following = page.text("metadata", "continue", most=_LONGEST_CONTINUE) or ""
            if not following:
                return

    def objects(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The objects of a collection, each with its kind, which a list leaves out."""
        for page in self.pages(path, query):
            own = {"apiVersion": page.text("apiVersion"), "kind": (page.text("kind") or "").removesuffix("List")}
            for at, one in enumerate(page.list("items")):
                if not isinstance(one, dict):
                    raise ForeignError(f"items[{at}]", "expected an object")
                yield own | one

    def _reply(self, question: Question) -> Reply:
        reply = self._ask(question)
        if reply.is_over and not question.is_text:
            raise _Over
        if reply.problem:
            raise Failed(f"error: {reply.problem}")
        return reply

    # --- resources ---------------------------------------------------------------------------------------------------

    def resource(self, word: str) -> Resource:
        """What a word of the line means in this cluster."""
        found = kubectl.find_resource(word)
        if found is None:
            found = kubectl.find_resource(word, [one for ones in self.discovered() for one in ones])
        if found is None:
            raise Failed(f'error: the server doesn\'t have a resource type "{word}"')
        return found

    def discovered(self) -> list[list[Resource]]:
        """Every resource of the cluster, group by group, the core first."""
        if self._discovered is not None:
            return self._discovered
        groups = self.ask("/apis")
        found = [kubectl.resources_of_discovery("", self.ask("/api/v1"))]
        for group in groups.items("groups"):
            version = group.text("preferredVersion", "groupVersion", most=512)
            if not version:
                continue
            try:
                document = self.ask(f"/apis/{quote(version, safe='/.')}")
            except Failed:
                continue  # an aggregated API that is away hides no other
            found.append(kubectl.resources_of_discovery(group.text("name") or "", document))
        self._discovered = found
        return found

    def path(self, resource: Resource, name: str = "") -> str:
        """Of a collection, or of one object."""
        path = resource.path
        if resource.is_namespaced and self.namespace:
            path += f"/namespaces/{quoted(self.namespace)}"
        path += f"/{quoted(resource.plural)}"
        return f"{path}/{quote(name, safe=':')}" if name else path


def quoted(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    return path + (f"?{urlencode(query)}" if query else "")


def _failure_of(reply: Reply) -> Failed:
    unknown = Failed(f"error: the cluster answered {reply.status} without a document", status=reply.status)
    try:
        document = Document.parse(reply.octets, _LONGEST_DOCUMENT)
        message = document.text("message") or f"the server answered {reply.status}"
        reason = document.text("reason", most=256) or "Unknown"
        name = document.text("details", "name", most=512) or ""
    except ForeignError:
        return unknown
    if reason == "DaaluEdge":
        return Failed(f"error: {message}", status=reply.status)
    forbidden = None
    if reply.status == 403:
        found = _FORBIDDEN.search(message)
        forbidden = {key: value or "" for key, value in found.groupdict().items()} if found else {}
        forbidden |= {"name": name, "message": message}
    return Failed(f"Error from server ({reason}): {message}", forbidden, status=reply.status)
