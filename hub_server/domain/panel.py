"""What may be typed into the "kubectl run" panel: a grammar over words, with an allow-list of verbs and flags.

    line -> words (quotes only; no shell) -> verb -> flags of that verb -> `Command`, or `LineRefused` with the reason

Nothing that is typed here ever reaches a shell or a process: `hub_server.panel` makes API requests of a `Command`. What
is refused is refused by name, so that people learn why; what is not known is refused too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Command", "LineRefused", "parse", "words_of"]

_LONGEST_LINE: Final = 4096
_MOST_WORDS: Final = 64


class LineRefused(ValueError):
    """A line that is not run; the text says why and what to do, and no request is sent."""


@dataclass(frozen=True, slots=True)
class Command:
    """A line that may be run.

    Attributes:
        verb: one of the reading verbs; `auth can-i` is one.
        words: positional, after the verb.
        flags: by their long name; switches are "true" or "false".
    """

    verb: str
    words: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)

    def is_set(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.flags.get(name, "false") == "true"


# --- words -----------------------------------------------------------------------------------------------------------

_SHELL: Final = {
    ";": "`;` joins commands: run one at a time",
    "|": "`|` pipes into programs, and there is no shell here",
    "&": "`&` and `&&` are the shell's, and there is no shell here",
    "`": "backticks run commands, and there is no shell here",
    "$": "`$` and `$()` are the shell's, and there is no shell here",
    ">": "`>` writes files, and there is no shell here",
    "<": "`<` reads files, and there is no shell here",
    "(": "`(` is the shell's, and there is no shell here",
    ")": "`)` is the shell's, and there is no shell here",
}


def _is_blank(one: str) -> bool:
    """Blanks of any width: a line that is copied from a page brings no-break spaces along."""
    return one == "\t" or unicodedata.category(one) == "Zs"


def words_of(line: str) -> list[str]:
    """Split a line at blanks, minding quotes and backslashes as a shell does; everything else of a shell is refused.

    Raises:
        LineRefused: a shell would do more than split it.
    """
    if len(line) > _LONGEST_LINE:
        raise LineRefused(f"a line has at most {_LONGEST_LINE} characters")
    line = line.strip()
    for one in line:
        if one in "\r\n":
            raise LineRefused("a line break begins another command: run one at a time")
        if not one.isprintable() and not _is_blank(one):
            name = unicodedata.name(one, "a control character")
            raise LineRefused(f"the line holds what cannot be seen: U+{ord(one):04X}, {name}: type it anew")
    words: list[str] = []
    word: str | None = None
    quote = ""
    at = 0
    while at < len(line):
        one = line[at]
        at += 1
        if quote == "'":
            if one == "'":
                quote = ""
            else:
                word = (word or "") + one
        elif one == "\\":
            if at == len(line):
                raise LineRefused("the line ends in a backslash")
            # Within double quotes a backslash takes away only what would be special there.
            if quote and line[at] not in '"\\$`':
                word = (word or "") + one
            word = (word or "") + line[at]
            at += 1
        elif one in "$`" or (one in _SHELL and not quote):
            raise LineRefused(_SHELL[one])
        elif one == quote:
            quote = ""
        elif not quote and one in "\"'":
            quote, word = one, word or ""
        elif not quote and _is_blank(one):
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + one
    if quote:
        raise LineRefused("a quote is not closed")
    if word is not None:
        words.append(word)
    if len(words) > _MOST_WORDS:
        raise LineRefused(f"a line has at most {_MOST_WORDS} words")
    return words


# --- flags -----------------------------------------------------------------------------------------------------------

_VALUE, _SWITCH = "value", "switch"
_NAMESPACE: Final = {"namespace": _VALUE}
_ALL: Final = {"all-namespaces": _SWITCH}
_SELECT: Final = {"selector": _VALUE, "field-selector": _VALUE}
_VERBS: Final[Mapping[str, Mapping[str, str]]] = {
    "get": {
        **_NAMESPACE, **_ALL, **_SELECT, "output": _VALUE, "no-headers": _SWITCH, "show-labels": _SWITCH,
        "label-columns": _VALUE, "ignore-not-found": _SWITCH, "show-kind": _SWITCH, "chunk-size": _VALUE,
    },
    "describe": {**_NAMESPACE, **_ALL, "selector": _VALUE, "show-events": _SWITCH},
    "logs": {
        **_NAMESPACE, "follow": _SWITCH, "container": _VALUE, "previous": _SWITCH, "tail": _VALUE, "since": _VALUE,
        "timestamps": _SWITCH, "limit-bytes": _VALUE,
    },
    "events": {**_NAMESPACE, **_ALL, "for": _VALUE, "types": _VALUE, "no-headers": _SWITCH},
    "top": {**_NAMESPACE, **_ALL, "selector": _VALUE, "no-headers": _SWITCH},
    "explain": {"api-version": _VALUE},
    "api-resources": {"namespaced": _SWITCH, "api-group": _VALUE, "no-headers": _SWITCH, "output": _VALUE},
    "version": {"output": _VALUE},
    "auth can-i": {**_NAMESPACE, **_ALL, "subresource": _VALUE, "quiet": _SWITCH, "list": _SWITCH},
}  # fmt: skip
_SHORT: Final = {
    "n": "namespace", "A": "all-namespaces", "l": "selector", "o": "output", "L": "label-columns", "c": "container",
    "p": "previous", "q": "quiet",
}  # fmt: skip
# On `logs` alone, -f follows.
_SHORT_OF_LOGS: Final = {"f": "follow"}
_OUTPUTS: Final = {"get": {"wide", "name", "json", "yaml"}, "api-resources": {"wide", "name"}, "version": {"json"}}

_ELSEWHERE: Final = "the panel talks to this cluster, as you: `--{}` is not for here"
_FILES: Final = "the panel reads no files: `{}` is not for here"
_FORBIDDEN: Final = {
    **{
        name: _ELSEWHERE.format(name)
        for name in (
            "kubeconfig", "server", "token", "as", "as-group", "as-uid", "as-user-extra", "context", "cluster", "user",
            "username", "password", "certificate-authority", "client-certificate", "client-key", "tls-server-name",
            "insecure-skip-tls-verify", "disable-compression", "request-timeout", "cache-dir", "kuberc", "profile",
            "profile-output",
        )
    },
    "filename": _FILES.format("--filename"),
    "kustomize": _FILES.format("--kustomize"),
    "recursive": _FILES.format("--recursive"),
    "template": _FILES.format("--template"),
    "raw": "`--raw` asks for any path: the panel asks for resources by name",
    "watch": "the panel does not watch: its tables are of the moment; use kubectl with a downloaded kubeconfig",
    "watch-only": "the panel does not watch: use kubectl with a downloaded kubeconfig",
}  # fmt: skip
_FORBIDDEN_SHORT: Final = {
    "s": _FORBIDDEN["server"],
    "f": _FILES.format("-f"),
    "k": _FILES.format("-k"),
    "w": _FORBIDDEN["watch"],
    "R": _FORBIDDEN["recursive"],
    "u": _FORBIDDEN["user"],
    "v": "`-v` shows how kubectl works, and there is no kubectl here",
}
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:,/*-]*")


def parse(line: str) -> Command:
    """Understand a line.

    Args:
        line: with or without the word `kubectl`.

    Raises:
        LineRefused: it is not for the panel.
    """
    words = words_of(line)
    if words[:1] == ["kubectl"]:
        del words[0]
    if not words:
        raise LineRefused(f"type what comes after kubectl: {', '.join(_VERBS)}")
    verb, rest = _verb_of(words)
    flags, positional = _flags_of(verb, rest)
    for word in positional:
        if not _WORD.fullmatch(word):
            raise LineRefused(f"{word!r} is neither a resource nor a name")
    output = flags.get("output")
    if output is not None and output not in _OUTPUTS.get(verb, ()):
        kind = output.partition("=")[0]
        if kind.endswith("-file"):
            raise LineRefused(_FILES.format(f"-o {kind}"))
        known = ", ".join(sorted(_OUTPUTS.get(verb, ())))
        raise LineRefused(f"the panel prints tables, or with -o: {known}; not {kind!r}")
    return Command(verb, tuple(positional), flags)


def _verb_of(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    first = words[0]
    if first.startswith("-"):
        # Flags may stand before the verb in kubectl; here the verb is first, whatever the flag.
        name = first.lstrip("-").partition("=")[0]
        raise LineRefused(
            _FORBIDDEN.get(name) or _FORBIDDEN_SHORT.get(name[:1], "the verb comes first, then its flags")
            if first.startswith("--") or name[:1] in _FORBIDDEN_SHORT
            else "the verb comes first, then its flags"
        )
    if first == "auth":
        if words[1:2] != ["can-i"]:
            raise LineRefused("of `auth` only `auth can-i` is for the panel")
        return "auth can-i", words[2:]
    if first not in _VERBS:
        known = ", ".join(_VERBS)
        raise LineRefused(f"the panel only reads: {first!r} is not one of {known}")
    return first, words[1:]


def _flags_of(verb: str, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    allowed, short = _VERBS[verb], _SHORT | (_SHORT_OF_LOGS if verb == "logs" else {})
    flags: dict[str, str] = {}
    positional: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            raise LineRefused("`--` hands words to a program, and the panel starts none")
        if word.startswith("--"):
            name, joined, value = word[2:].partition("=")
            _set(flags, allowed, name, value if joined else None, left, f"--{name}")
        elif word.startswith("-") and len(word) > 1:
            _set_short(flags, allowed, short, word[1:], left)
        else:
            positional.append(word)
    return flags, positional


def _set(
    flags: dict[str, str], allowed: Mapping[str, str], name: str, value: str | None, left: list[str], shown: str
) -> None:
    if name not in allowed:
        if name in _FORBIDDEN:
            raise LineRefused(_FORBIDDEN[name])
        raise LineRefused(f"`{shown}` is not a flag of the panel")
    if allowed[name] == _SWITCH:
        if value not in (None, "true", "false"):
            raise LineRefused(f"`{shown}` is on or off")
        flags[name] = value or "true"
        return
    if value is None:
        if not left or left[0].startswith("-"):
            raise LineRefused(f"`{shown}` needs a value")
        value = left.pop(0)
    flags[name] = value


def _set_short(
    flags: dict[str, str], allowed: Mapping[str, str], short: Mapping[str, str], letters: str, left: list[str]
) -> None:
    """Short flags, joined or not: `-A`, `-nkube-system`, `-n=x`, `-owide`."""
    while letters:
        letter, letters = letters[0], letters[1:]
        name = short.get(letter)
        if name is None or name not in allowed:
            raise LineRefused(_FORBIDDEN_SHORT.get(letter, f"`-{letter}` is not a flag of the panel"))
        if letters.startswith("="):
            _set(flags, allowed, name, letters[1:], left, f"-{letter}")
            return
        if allowed[name] == _VALUE:
            _set(flags, allowed, name, letters or None, left, f"-{letter}")
            return
        flags[name] = "true"
