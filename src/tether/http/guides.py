"""The guides: the Markdown files of `docs/` as pages, and a search over their sections."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from posixpath import dirname, normpath
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from tether.domain.errors import NotFound

INDEX = ""  # the name of the page that lists all guides
LONGEST_QUERY = 100  # characters
MAX_RESULTS = 30
_AROUND = 90  # characters of an excerpt on each side of the first word that was found
_LONG_CODE = 30  # characters: longer code in a table may be broken into lines
_LINK = re.compile(r"^- \[(.+?)\]\(([\w/-]+)\.md\)", re.MULTILINE)
_HEADING = re.compile(r"^(#{1,4}) (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_ELSEWHERE = re.compile(r"[a-z]+:")
_MARKUP = re.compile(r"^```.*|^\|[-|: ]+$|^ *- |\[([^\]]*)\]\([^)]*\)|[`*|]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the text below it, as plain text."""

    guide: str
    anchor: str
    title: str
    text: str
    words: str
    """Title and text in lower case, for searches."""


@dataclass(frozen=True, slots=True)
class Result:
    """A section that has all words of a query, and the text around the first of them."""

    section: Section
    guide_title: str
    excerpt: Markup


@cache  # at most one for each file
def page(name: str) -> bytes:
    """The page of a guide, such as `sdk` or `decisions/0001-http-server`. Raises NotFound."""
    if name not in _texts():
        raise NotFound
    body, contents = _rendered(name)
    return _render(_top(name), name=name, title=_title(name), body=body, contents=contents)


def found(query: str) -> bytes:
    """The page with the results of a search."""
    query = query[:LONGEST_QUERY].strip()
    words = query.casefold().split()
    hits = _search(words)
    results = [
        Result(hit, _title(hit.guide), _excerpt(hit.text, words)) for hit in hits[:MAX_RESULTS]
    ]
    return _render(_top(INDEX), title="Search", query=query, results=results, number=len(hits))


def _search(words: list[str]) -> list[Section]:
    """The sections with all words; first those with them in the heading."""
    if not words:
        return []

    def rank(section: Section) -> int:
        return sum(word not in section.title.casefold() for word in words)

    hits = (section for section in _sections() if all(word in section.words for word in words))
    return sorted(hits, key=rank)


def figure(name: str) -> bytes:
    """A figure of the guides, an SVG or a WebP. Raises NotFound."""
    if name not in _figures():
        raise NotFound
    return _folder().joinpath("figures", name).read_bytes()


def anchor_of(heading: str) -> str:
    """The anchor of a heading, as on GitHub."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _folder() -> Traversable:
    return files("tether.http").joinpath("docs")


@cache
def _figures() -> frozenset[str]:
    return frozenset(file.name for file in _folder().joinpath("figures").iterdir())


@cache
def _texts() -> dict[str, str]:
    """The Markdown of each guide by name, in the order of the index."""
    index = _folder().joinpath("README.md").read_text(encoding="utf-8")
    names = [name for _, name in _LINK.findall(index)]
    return {INDEX: index} | {
        name: _folder().joinpath(f"{name}.md").read_text(encoding="utf-8") for name in names
    }


@cache
def _groups() -> list[tuple[str, list[tuple[str, str]]]]:
    """The groups of guides in the index: (heading, [(guide, title)])."""
    parts = re.split(r"^## (.+)$", _texts()[INDEX], flags=re.MULTILINE)[1:]
    return [
        (heading, [(name, title) for title, name in _LINK.findall(text)])
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def _title(name: str) -> str:
    return _texts()[name].partition("\n")[0].removeprefix("# ").replace("`", "")


@cache
def _sections() -> list[Section]:
    return [section for name in _texts() if name for section in _sections_of(name)]


def _sections_of(name: str) -> Iterator[Section]:
    text = _texts()[name]
    # A comment in a code block looks like a heading.
    visible = _FENCE.sub(lambda block: re.sub(r"^#", " #", block[0], flags=re.MULTILINE), text)
    headings = list(_HEADING.finditer(visible))
    ends = [heading.start() for heading in headings[1:]] + [len(visible)]
    for heading, end in zip(headings, ends, strict=True):
        title, below = _plain(heading[2]), _plain(visible[heading.end() : end])
        yield Section(name, anchor_of(title), title, below, f"{title} {below}".casefold())


def _plain(text: str) -> str:
    return " ".join(_MARKUP.sub(lambda match: match[1] or "", text).split())


def _excerpt(text: str, words: list[str]) -> Markup:
    """Some text around the first word, from word to word, and all words marked."""
    pattern = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)
    first = pattern.search(text)
    middle = first.start() if first else 0
    start = text.find(" ", middle - _AROUND, middle) + 1 or middle if middle > _AROUND else 0
    end = text.find(" ", middle + _AROUND)
    if end < 0:
        end = len(text)
    cut = text[start:end]
    parts, last = ["…" if start else ""], 0
    for match in pattern.finditer(cut):
        parts += [escape(cut[last : match.start()]), f"<mark>{escape(match[0])}</mark>"]
        last = match.end()
    parts += [escape(cut[last:]), "…" if end < len(text) else ""]
    return Markup("".join(parts))  # noqa: S704 - each part is escaped


def _rendered(name: str) -> tuple[Markup, list[tuple[str, str]]]:
    """The guide as HTML, and its chapters as (anchor, heading)."""
    markdown = MarkdownIt("commonmark", {"html": False, "highlight": _highlighted}).enable("table")
    tokens = markdown.parse(_texts()[name])
    _prepare_tables(tokens)
    contents = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            title = "".join(child.content for child in inline.children or ())
            opening.attrSet("id", anchor_of(title))
            if opening.tag == "h2":
                contents.append((anchor_of(title), title))
            _add_link_to(anchor_of(title), inline)
        if inline.type == "inline":
            _lead_to_pages(name, inline.children or [])
    html = markdown.renderer.render(tokens, markdown.options, {})
    # What is wider than the screen scrolls, also by keyboard.
    html = html.replace("<table>", '<div class="wide" tabindex="0"><table>')
    html = html.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    html = html.replace("<th></th>", "<td></td>")  # a heading without a word is none
    return Markup(html), contents  # noqa: S704 - of our own files, whose HTML is escaped


def _prepare_tables(tokens: list[Token]) -> None:
    """Gives each cell the title of its column, which phones show beside it, and marks long code."""
    titles: list[str] = []
    column = 0
    for opening, inline in pairwise(tokens):
        if opening.type == "table_open":
            titles = []
        elif opening.type == "tr_open":
            column = 0
        elif opening.type == "th_open":
            titles.append(_plain(inline.content))
        elif opening.type == "td_open":
            opening.attrSet("data-title", titles[column])
            column += 1
            for child in inline.children or ():
                if child.type == "code_inline" and len(child.content) > _LONG_CODE:
                    child.attrSet("class", "long")


def _add_link_to(anchor: str, heading: Token) -> None:
    opening = Token("link_open", "a", 1, attrs={"href": f"#{anchor}", "class": "anchor"})
    opening.attrSet("aria-label", "Link to this section")
    children = heading.children or []
    heading.children = [*children, opening, Token("text", "", 0, content="#"),
                        Token("link_close", "a", -1)]  # fmt: skip


def _lead_to_pages(name: str, tokens: list[Token]) -> None:
    """Makes links between files links between pages. Names of other files are not links."""
    only_named = False
    for token in tokens:
        if token.type == "image":
            token.attrSet("src", _address(name, str(token.attrGet("src"))))
        elif token.type == "link_open" and not _ELSEWHERE.match(str(token.attrGet("href"))):
            path, hash_sign, fragment = str(token.attrGet("href")).partition("#")
            file = normpath(f"{dirname(name)}/{path}").lstrip("/") if path else ""
            only_named = bool(path) and file.removesuffix(".md") not in {*_texts(), "README"}
            if only_named:
                token.tag, token.attrs = "span", {"title": file.removeprefix("../")}
            elif path:
                address = _address(name, path.removesuffix(".md").removesuffix("README"))
                token.attrSet("href", address.rstrip("/") + hash_sign + fragment)
        elif token.type == "link_close" and only_named:
            token.tag, only_named = "span", False


def _address(name: str, path: str) -> str:
    """The address of a page or figure that the file of a guide refers to by this path."""
    return _top(name) + normpath(f"guides/{dirname(name)}/{path}")


def _top(name: str) -> str:
    """The relative path to `/`. All links are relative, because a proxy may use a prefix."""
    return "../" * (1 + name.count("/")) if name else ""


def _highlighted(code: str, language: str, _: Any) -> str:
    try:
        lexer = get_lexer_by_name({"ndjson": "json", "ts": "typescript"}.get(language, language))
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


_PAGE = Environment(
    loader=PackageLoader("tether.http"), autoescape=select_autoescape(), trim_blocks=True,
    lstrip_blocks=True,
).get_template("guide.html")  # fmt: skip


def _render(top: str, **values: Any) -> bytes:
    return _PAGE.render(top=top, groups=_groups(), **values).encode()
