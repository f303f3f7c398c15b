"""A browser without JavaScript: follows redirects, keeps cookies, and sends forms as they stand on the page."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-site": "same-origin"}


class _Reader(HTMLParser):
    """Collects forms with what their fields hold, links, and the words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.fields: list[list[tuple[str, str]]] = []
        self.links: list[dict[str, str]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self._select = ""
        self._textarea: str | None = None
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += values
        if tag == "form":
            self.forms.append(values)
            self.fields.append([])
            self._inside = True
        elif tag == "a":
            self.links.append(values)
        elif self._inside:
            self._field(tag, values)

    def _field(self, tag: str, values: dict[str, str]) -> None:
        name = values.get("name", "")
        if tag == "input" and name:
            ticked = values.get("type") not in ("checkbox", "radio") or "checked" in values
            if ticked:
                self.fields[-1].append((name, values.get("value", "")))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in values:
            self.fields[-1].append((self._select, values.get("value", "")))
        elif tag == "textarea":
            self._textarea = name
            self.fields[-1].append((name, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._textarea is not None:
            self.fields[-1][-1] = (self._textarea, self.fields[-1][-1][1] + data)


class Page:
    """What the person sees, and what they can do next."""

    def __init__(self, http: httpx.AsyncClient, answer: httpx.Response) -> None:
        self._http, self.answer = http, answer
        self._reader = _Reader()
        self._reader.feed(answer.text)

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def path(self) -> str:
        return self.answer.url.raw_path.decode()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._reader.words).replace("\u00a0", " ").split())

    @property
    def tags(self) -> list[str]:
        return self._reader.tags

    @property
    def attributes(self) -> set[str]:
        return set(self._reader.attributes)

    @property
    def anchors(self) -> list[dict[str, str]]:
        """The attributes of every link."""
        return self._reader.links

    @property
    def links(self) -> list[str]:
        return [link.get("href", "") for link in self._reader.links]

    def form(self, action: str, method: str = "") -> tuple[str, list[tuple[str, str]]]:
        """(method, fields) of the form that goes to ``action``; of two the one that posts, unless ``method`` is given."""
        found = [
            (form.get("method", "get"), list(fields))
            for form, fields in zip(self._reader.forms, self._reader.fields, strict=True)
            if form.get("action") == action and method in ("", form.get("method", "get"))
        ]
        assert found, f"no form goes to {action}: {[form.get('action') for form in self._reader.forms]}"
        return max(found)  # post comes after get

    def fields(self, action: str, method: str = "") -> list[tuple[str, str]]:
        return self.form(action, method)[1]

    async def submit(self, action: str, *extra: tuple[str, str], method: str = "", **typed: str) -> Page:
        """Send that form with some fields typed over and ``extra`` ones (ticked boxes, the button) added."""
        used, fields = self.form(action, method)
        pairs = [*((name, value) for name, value in fields if name not in typed), *typed.items(), *extra]
        if used == "get":
            answer = await self._http.get(action, params=pairs, headers=BROWSER, follow_redirects=True)
        else:
            body = str(httpx.QueryParams(pairs)).encode()
            headers = BROWSER | {"content-type": "application/x-www-form-urlencoded"}
            answer = await self._http.post(action, content=body, headers=headers, follow_redirects=True)
        return Page(self._http, answer)


async def visit(http: httpx.AsyncClient, path: str, **headers: str) -> Page:
    """Load a page as a browser does."""
    return Page(http, await http.get(path, headers=BROWSER | headers, follow_redirects=True))
