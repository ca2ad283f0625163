"""HTML from values: whatever is not markup is escaped, so that a name stays a name."""

import base64
import hashlib
import html
import json
import re
from typing import Any

# Controls, lone halves of a character, and marks that turn the direction of what follows.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_VOID = {"br", "meta", "input"}
# In a script element nothing but these could end it, or begin a comment that hides its end.
_IN_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


class Html(str):
    """Markup; every other text is escaped on its way into it."""

    __slots__ = ()


def visible(name: str) -> str:
    """A text from outside, with a mark where a letter would show nothing or move others."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", name)


def joined(*children: object) -> Html:
    """Children one after the other; None is left out."""
    return Html("".join(_child(child) for child in children if child is not None))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element. Attributes: class_ stands for class, data_x for data-x; None is left out."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    written = "".join(
        f" {name}" if value is True else f' {name}="{html.escape(visible(str(value)))}"'
        for name, value in names.items()
        if value is not None and value is not False
    )
    end = "" if tag in _VOID else f"{joined(*children)}</{tag}>"
    return Html(f"<{tag}{written}>{end}")


def _child(child: object) -> str:
    if isinstance(child, Html):
        return child
    # A number and its sign stay on one line.
    return html.escape(visible(str(child)), quote=False).replace(" %", "\N{NO-BREAK SPACE}%")


def data_block(identifier: str, document: Any) -> Html:  # noqa: ANN401
    """JSON for a script to read."""
    text = as_json(document).translate(_IN_SCRIPT)
    return Html(f'<script type="application/json" id="{identifier}">{text}</script>')


def as_json(document: Any) -> str:  # noqa: ANN401
    """Return JSON as short as possible; ASCII only."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def script(code: str) -> Html:
    """A script of ours. Raises AssertionError if the code could end its element."""
    if "</script" in code.lower() or "<!--" in code:
        raise AssertionError("a script holds what would end it")
    return Html(f"<script>{code}</script>")


def script_hash(code: str) -> str:
    """The name under which a content security policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
