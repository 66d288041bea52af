"""What goes over the wire: OpenAI-style requests, and the events of a streamed answer (floor 5)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from apexsim.errors import InputError, nearest
from apexsim.replay.record import Sent

PATHS = {"completions": "/completions", "chat": "/chat/completions"}
MOST_TOKENS = 1 << 40  # of one request
LONGEST_DETAIL = 200  # characters of a server's complaint that are kept
SECRET = 6  # characters from which on a value of a query may be one


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the model it serves.

    url: its root, its /v1, or the whole address of the interface; extra: keys that are added to every request.
    """

    url: str
    model: str
    api: str = "completions"
    key: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.api not in PATHS:
            raise InputError(f"unknown interface '{self.api}'", "--api", nearest(self.api, PATHS))
        if not _is_address(self.url):
            raise InputError(f"no address of a server: '{self.shown}'", "--url", "write e.g. http://localhost:8000")
        if not (self.key.isascii() and self.key.isprintable()):
            raise InputError("holds characters that no header carries", "OPENAI_API_KEY", "give the key as the server issued it")
        if self.key and self._login:
            told = "the address holds a password and OPENAI_API_KEY holds a key"
            raise InputError(told, "--url", "a request carries one of them: take the other away")
        if not (self._login.isascii() and self._login.isprintable()):
            raise InputError("its user and password hold characters that no header carries", "--url")

    @property
    def address(self) -> str:
        """Where requests go."""
        base = self._bare.rstrip("/")
        if base.endswith("/completions"):
            return base
        return base + ("" if base.endswith("/v1") else "/v1") + PATHS[self.api]

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        named = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._login:
            return named | {"Authorization": f"Basic {base64.b64encode(unquote(self._login).encode()).decode()}"}
        return named | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    @property
    def _login(self) -> str:
        """user:password of the address, "" for none."""
        return urlsplit(self.url).netloc.rpartition("@")[0] if "@" in self.url else ""

    @property
    def _bare(self) -> str:
        """The address without user and password."""
        return self.url.replace(f"{self._login}@", "", 1) if self._login else self.url

    @property
    def shown(self) -> str:
        """The address as it is shown and kept: without user, password and what a query or a fragment carries."""
        return re.sub(r"([?#]).*", r"\1…", re.sub(r"//[^/]*@", "//", self.url))

    def hidden(self, text: str) -> str:
        """A text without the key, the password and the longer values of the address's query, which a server may send back."""
        _, _, password = self._login.partition(":")
        token = self.headers.get("Authorization", "").partition(" ")[2]
        query = {value for _, value in parse_qsl(urlsplit(self.url).query) if len(value) >= SECRET}
        for secret in sorted({self.key, password, unquote(password), self._login, token, *query} - {""}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def body(self, prompt: str | list[int], output: int) -> bytes:
        """A request for exactly `output` tokens: generation runs to the limit, past any end-of-text token."""
        asked: dict[str, Any] = {"model": self.model, "max_tokens": output, "ignore_eos": True, "temperature": 0.0}
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.api == "completions":
            asked["prompt"] = prompt
        else:
            asked["messages"] = [{"role": "user", "content": prompt}]
        return json.dumps(asked | dict(self.extra)).encode()


def _is_address(url: str) -> bool:
    """Whether a text is an HTTP address with a host and a port that can be."""
    try:
        found = urlsplit(url)
        port = found.port
        host = (found.hostname or "").encode("idna")
    except (ValueError, UnicodeError):
        return False
    return found.scheme in ("http", "https") and bool(host) and port != 0 and url.isprintable() and " " not in url


def receive(sent: Sent, data: str, now: float) -> None:
    """Book one event of the stream, which came at `now` [s].  Modifies `sent` in place.

    A chunk with choices is a step of the output, except a first one that only names the role, and an empty last one
    where all tokens have come: engines differ in whether the end comes with the last token or after it.
    """
    if data == "[DONE]":
        sent.done = True
        return
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        sent.error = sent.error or f"broken event in the stream: {data[:60]!r}"
        return
    if not isinstance(event, dict) or event.get("error") or event.get("object") == "error":
        sent.error = sent.error or f"error in the stream: {detail(data)}"
        return
    try:
        usage = event.get("usage")
        if usage:
            sent.prompt_tokens = _count(usage.get("prompt_tokens")) or sent.prompt_tokens
            sent.output_tokens = _count(usage.get("completion_tokens")) or sent.output_tokens
        for choice in (event.get("choices") or [])[:1]:
            _step(sent, choice, now)
    except (AttributeError, KeyError, TypeError, ValueError):  # a list where an object should be, and the like
        sent.error = sent.error or f"event of another form in the stream: {data[:60]!r}"


def _count(tokens: Any) -> int:
    """A number of tokens that a server reports, 0 for none."""
    if tokens is None:
        return 0
    if type(tokens) is not int or not 0 <= tokens <= MOST_TOKENS:
        raise ValueError
    return tokens


def _step(sent: Sent, choice: Mapping[str, Any], now: float) -> None:
    delta = choice.get("delta") or {}
    text = choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or ""
    if not isinstance(text, str):
        raise TypeError
    ended = bool(choice.get("finish_reason"))
    sent.ended |= ended
    if not text and (("role" in delta and not ended) or (ended and sent.steps >= sent.output)):
        return
    if sent.steps == 0:
        sent.first = now
    else:
        sent.gaps.append(now - sent.last)
    sent.last, sent.steps = now, sent.steps + 1
    sent.text.append(text)


def detail(body: str) -> str:
    """A server's complaint in one short line."""
    try:
        found: Any = json.loads(body)
        while isinstance(found, dict):
            found = found.get("error") or found.get("message") or found.get("detail") or str(found)
        body = str(found)
    except (ValueError, RecursionError):
        pass
    return " ".join(body.split())[:LONGEST_DETAIL]
