"""Rendering: templates, translations, markdown and static files.

All texts are escaped by Jinja2. Markdown is the only markup that data can produce: its parser passes no HTML through,
links are http, https or mailto, images become links so that reading a message fetches nothing, and nh3 then keeps a
short list of elements. The Content-Security-Policy allows only this server's files, no inline script and no inline
style.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import nh3
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.console.session import LANGUAGE, THEME, csrf_tag
from eventstore import __version__

FOLDER = Path(__file__).parent
LANGUAGES = ("en", "pt")
THEMES = ("auto", "light", "dark")
_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
        "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'", "report-uri {root}csp-report",
    )
)  # fmt: skip
HEADERS = {
    # Without a referrer, browsers would send the origin "null" with forms, which is not that of the server.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
"""Headers of every page, beside the Content-Security-Policy."""
ROOT_HEADER = "Console-Root"
_RELATIVE_ROOT = re.compile(r"\./|(\.\./){1,9}")
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def respond_with_page(
    request: Request,
    template: str,
    data: Mapping[str, Any],
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a page, or a block of it: the one that the id of the element that a script replaces begins with."""
    language = language_of(request)
    found = _environment(language).get_template(template)
    values = _values(request, language, data)
    block = found.blocks.get(request.headers.get("hx-target", "").partition("-")[0])
    text = found.render(values) if block is None else "".join(block(found.new_context(values)))
    own = {
        "Content-Security-Policy": _POLICY.format(root=values["root"]),
        "Vary": f"Cookie, Accept-Language, HX-Request, HX-Target, {ROOT_HEADER}",
    }
    return Response(text, status, HEADERS | own | (headers or {}), "text/html")


def root_of(request: Request) -> str:
    """Return the relative URL of the root of the console, seen from the page that shows the response.

    A script may put a part of one page into another, which then says in a header where the root is.
    """
    given = request.headers.get(ROOT_HEADER, "")
    return given if _RELATIVE_ROOT.fullmatch(given) else "../" * (request.scope["path"].count("/") - 2) or "./"


class BlockRenderer:
    """Renders a block of a template again and again, for one request.

    Args:
        data: What is the same each time.
    """

    def __init__(self, request: Request, template: str, block: str, data: Mapping[str, Any]) -> None:
        language = language_of(request)
        self._template = _environment(language).get_template(template)
        self._block = self._template.blocks[block]
        self._values = _values(request, language, data)

    def render(self, **more: Any) -> str:
        """Return the HTML of the block."""
        return "".join(self._block(self._template.new_context(self._values | more)))


def _values(request: Request, language: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template is rendered with: the data, the frame, and the macros as ``ui``."""
    values = _frame(request, language) | dict(data)
    if "conversation" in values:
        values["path"] = f"conversations/{values['conversation'].id}"
    values["ui"] = _environment(language).get_template("macros.html").make_module(values)
    return values


def _frame(request: Request, language: str) -> dict[str, Any]:
    """Return what the frame of each page shows: the caller, the place of the page, and preferences."""
    path = request.scope["path"]
    identity = getattr(request.state, "identity", None)
    store = request.app.state.server_context.store
    scopes = set() if identity is None else {scope.value for scope in identity.scopes}
    theme = request.cookies.get(THEME)
    return {
        "root": root_of(request),
        "here": path.removeprefix("/console/"),
        "query": request.url.query,
        "parameters": request.query_params,
        "identity": identity,
        "scopes": scopes,
        "is_operator": "admin" in scopes and identity is not None and identity.tenant == store.tenant,
        "is_behind": getattr(request.state, "is_behind", False),
        "has_session": "authorization" in request.headers,
        "csrf": csrf_tag(request),
        "language": language,
        "languages": {"en": "English", "pt": "Português"},
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES,
        "version": __version__,
    }


def language_of(request: Request) -> str:
    """Return the language of a page: the chosen one, or the first of ``Accept-Language`` that there is."""
    chosen = request.cookies.get(LANGUAGE)
    if chosen in LANGUAGES:
        return chosen
    weighed = []
    for number, item in enumerate(request.headers.get("accept-language", "").split(",")[:20]):
        name, _, weight = item.partition(";q=")
        code = name.strip().partition("-")[0].lower()
        if code in LANGUAGES and re.fullmatch(r"\s*[01](\.\d*)?\s*", weight or "1"):
            weighed.append((-float(weight or 1), number, code))
    return min(weighed)[2] if weighed else LANGUAGES[0]


# Static files


@cache
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """Return the content, the media type and the hash of each static file by name."""
    found = {}
    for file in (*(FOLDER / "static").iterdir(), *(FOLDER / "vendor").glob("*.js")):
        content = file.read_bytes()
        found[file.name] = (content, _MEDIA_TYPES[file.suffix], hashlib.sha256(content).hexdigest()[:12])
    return found


def _asset(name: str) -> str:
    return f"static/{name}?v={static_files()[name][2]}"


# Templates and translations


@cache
def _environment(language: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    catalog = read_catalog(language)

    def translate(text: str) -> str:
        return catalog.get(text) or text

    environment.install_gettext_callables(  # type: ignore[attr-defined]  # which the extension adds
        translate, lambda one, many, number: translate(one if number == 1 else many), newstyle=True
    )
    environment.globals["asset"] = _asset
    environment.globals["now"] = lambda age=0: datetime.now(UTC) - timedelta(seconds=age)
    separators = str.maketrans("", "") if language == "en" else str.maketrans(",.", ".,")
    environment.filters |= {
        "markdown": markdown,
        "pretty": pretty,
        "preview": preview,
        "time": _time,
        "utc": lambda value: f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        "seconds": lambda value: _seconds(value).translate(separators),
        "number": lambda value, digits=0: "–" if value is None else f"{value:,.{digits}f}".translate(separators),
        "size": lambda value: _size(value).translate(separators),
        "short": lambda value: str(value)[:8],
        "identifier": lambda value: hashlib.sha256(value.encode(errors="replace")).hexdigest()[:12],
        "marked": _marked,
    }
    return environment


@cache
def read_catalog(language: str) -> dict[str, str]:
    """Return the translations of a language by their English text, from its gettext file; none for English."""
    file = FOLDER / "locales" / f"{language}.po"
    if not file.exists():
        return {}
    entries = re.findall(
        r'^msgid ((?:"[^\n]*"\n)+)msgstr ((?:"[^\n]*"\n?)+)', file.read_text(encoding="utf-8"), re.MULTILINE
    )
    catalog = {_joined(text): _joined(translation) for text, translation in entries}
    catalog.pop("", None)
    return catalog


def _joined(lines: str) -> str:
    return "".join(ast.literal_eval(line) for line in lines.splitlines())


def _time(value: datetime | None) -> Markup:
    if value is None:
        return Markup("–")
    moment = value.astimezone(UTC)
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S}</time>').format(
        moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), moment
    )


def _seconds(value: float | timedelta | None) -> str:
    """Return a duration with two or three digits."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, unit, length in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86_400:,.3g} d" if seconds < 86_400_000 else f"{seconds / 86_400:,.0f} d"


def _size(value: float | None) -> str:
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def _marked(snippet: str) -> Markup:
    """Return a snippet of a search with its matches marked."""
    return Markup(re.sub("«(.*?)»", r"<mark>\1</mark>", str(escape(snippet)), flags=re.DOTALL))


def pretty(value: Any, longest: int = 4000) -> str:
    """Return a value as indented JSON, cut after so many characters."""
    text = value if isinstance(value, str) else _beginning(value, longest, indent=2)
    return text if len(text) <= longest else f"{text[:longest]}\n…"


def _beginning(value: Any, length: int, indent: int | None = None) -> str:
    """Return a value as JSON, up to at least so many characters: the time depends on them, not on the value's size."""
    parts, size = [], 0
    for part in json.JSONEncoder(indent=indent, ensure_ascii=False, default=str).iterencode(value):
        parts.append(part)
        size += len(part)
        if size > length:
            break
    return "".join(parts)


_SPEAKING = ("content", "name", "description", "status")
"""Members of an event's content that say most about it."""
_PREVIEWED = 400
"""Characters of it that a preview looks at."""


def preview(content: Any) -> str:
    """Return the beginning of an event's content in one line: its text or name if it has one, otherwise JSON."""
    text = content
    if isinstance(content, dict):
        text = next((content[name] for name in _SPEAKING if content.get(name)), content)
    if not isinstance(text, str):
        text = "" if text in (None, {}) else _beginning(text, _PREVIEWED)
    return " ".join(text[:_PREVIEWED].split())[:120]


# Markdown: headings of messages are paragraphs, so that the headings of a page are its own

_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
)
_MARKDOWN.add_render_rule("heading_open", lambda *_: '<p class="heading">')
_MARKDOWN.add_render_rule("heading_close", lambda *_: "</p>")
_ELEMENTS = {
    "a", "blockquote", "br", "code", "del", "em", "hr", "li", "ol", "p", "pre", "s", "strong", "table", "tbody", "td",
    "th", "thead", "tr", "ul",
}  # fmt: skip
_MAX_MARKDOWN = 100_000
"""Characters from which on a text is shown as it is: parsing it takes about ten microseconds for each."""
_MARKDOWN.render("*")  # compiles the rules, which two threads must not do at once


def markdown(text: str) -> Markup:
    """Return the HTML of a text in markdown, without anything that a browser would run or fetch."""
    if len(text) > _MAX_MARKDOWN:
        return Markup("<pre>{}</pre>").format(text)
    return Markup(
        nh3.clean(
            _MARKDOWN.render(text),
            tags=_ELEMENTS,
            attributes={"a": {"href"}, "p": {"class"}},
            url_schemes={"http", "https", "mailto"},
            link_rel="noopener noreferrer nofollow",
        )
    )
