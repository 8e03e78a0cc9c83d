"""Formulas of the documentation as MathML, which browsers draw by themselves: no script, no font, no network.

A hook of mkdocs (`hooks:` in mkdocs.yml): `pymdownx.arithmatex` marks what stands between dollars, and here it becomes
MathML. The sources stay LaTeX, which code hosts and notebooks draw, too. Only what the pages use is known, and
anything else is an error that names it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import chain

MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[0-9]+(?:\.[0-9]+)?|\S")

LETTERS = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "eta": "η",
    "lambda": "λ",
    "mu": "μ",
    "sigma": "σ",
    "tau": "τ",
    "theta": "θ",
    "Omega": "Ω",
    "ell": "ℓ",
    "infty": "∞",
    "log": "log",
    "ln": "ln",
    "exp": "exp",
}
SIGNS = {
    "cdot": "·",
    "times": "×",
    "in": "∈",
    "notin": "∉",
    "to": "→",
    "le": "≤",
    "ge": "≥",
    "ne": "≠",
    "approx": "≈",
    "cap": "∩",
    "cup": "∪",
    "ldots": "…",
    "top": "⊤",
    "lfloor": "⌊",
    "rfloor": "⌋",
    "mid": "|",
    "{": "{",
    "}": "}",
    "%": "%",
}
LIMITS = {"sum": "∑", "prod": "∏", "max": "max", "min": "min", "argmax": "arg max"}
"""What carries its limits below and above where a formula stands alone."""
SPACES = {",": "0.17em", "quad": "1em", "qquad": "2em"}
ACCENTS = {"hat": "^", "bar": "¯"}
LOWERED, LIFTED = "_", "^"


def on_page_content(content: str, **given: object) -> str:
    """Replace the marked formulas of a page (HTML); mkdocs calls this for each page."""
    return MARKED.sub(lambda found: mathml(html.unescape(found[2]), block=found[1] == "div"), content)


def formulas(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield the formulas of a page (Markdown) and whether each stands alone; code is no formula."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", markdown, flags=re.DOTALL | re.MULTILINE)
    for found in re.finditer(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", prose, flags=re.DOTALL):
        yield (found[1], True) if found[1] else (found[2], False)


def mathml(tex: str, *, block: bool) -> str:
    """Return a formula as a `<math>` element.

    Raises:
        ValueError: it holds a command that is not known here, or a brace without its partner.
    """
    reader = _Reader(tex, block=block)
    display = "block" if block else "inline"
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="{display}">{reader.row(end=None)}</math>'


class _Reader:
    """Reads the tokens of one formula from left to right."""

    def __init__(self, tex: str, *, block: bool):
        self.tex, self.block = tex, block
        self.tokens = list(chain.from_iterable(_tokens(tex)))
        self.place = 0

    def row(self, end: str | None) -> str:
        """Read up to the token `end`, or to the end of the formula."""
        parts = []
        while (token := self.peek()) != end:
            if token is None or token in ("}", "\\right"):
                raise ValueError(f"formula {self.tex!r}: {end or 'the formula'} expected, got {token}")
            parts.append(self.scripted())
        if end is not None:
            self.take()
        return f"<mrow>{''.join(parts)}</mrow>"

    def scripted(self) -> str:
        """Read one thing with what hangs below and above it."""
        token = self.peek() or ""
        base = self.one()
        hanging: dict[str, str] = {}
        while self.peek() in (LOWERED, LIFTED):
            mark = self.take()
            hanging[mark] = self.one()
        if not hanging:
            return base
        limits = self.block and token[1:] in LIMITS
        below, above = ("under", "over") if limits else ("sub", "sup")
        name = "m" + (below if LOWERED in hanging else "") + (above if LIFTED in hanging else "")
        return f"<{name}>{base}{hanging.get(LOWERED, '')}{hanging.get(LIFTED, '')}</{name}>"

    def one(self) -> str:
        """Read a letter, a number, a sign, a group or a command."""
        token = self.take()
        if token == "{":
            return self.row("}")
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        still = ' stretchy="false"' if token in "()[]|" else ""  # they grow after "left" alone
        return f"<mo{still}>{html.escape('−' if token == '-' else token)}</mo>"

    def command(self, name: str) -> str:
        if name in LETTERS:
            return f"<mi>{LETTERS[name]}</mi>"
        if name in SIGNS:
            return f"<mo>{SIGNS[name]}</mo>"
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}"></mspace>'
        if name in LIMITS:
            return f"<mo>{LIMITS[name]}</mo>"
        if name in ("text", "mathrm"):
            self.take()  # the brace; its words are one token
            words = self.take()
            self.take()
            return f"<mtext>{html.escape(words)}</mtext>" if name == "text" else f"<mi>{html.escape(words)}</mi>"
        if name == "mathbf":
            return f'<mstyle style="font-weight: bold">{self.one()}</mstyle>'
        if name in ACCENTS:
            return f'<mover accent="true">{self.one()}<mo>{ACCENTS[name]}</mo></mover>'
        if name == "frac":
            return f"<mfrac>{self.one()}{self.one()}</mfrac>"
        if name == "sqrt":
            return f"<msqrt>{self.one()}</msqrt>"
        if name == "left":
            first = self.take()
            inside = self.row("\\right")
            return f"<mrow><mo>{html.escape(first)}</mo>{inside}<mo>{html.escape(self.take())}</mo></mrow>"
        raise ValueError(f"formula {self.tex!r}: \\{name} is not known to tools/formulas.py")

    def peek(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise ValueError(f"formula {self.tex!r} ends too early")
        self.place += 1
        return token


def _tokens(tex: str) -> Iterator[list[str]]:
    """Yield tokens; the words of \\text{...} and \\mathrm{...} are one, with their braces around."""
    for piece in re.split(r"(\\(?:text|mathrm)\{[^}]*\})", tex):
        words = re.fullmatch(r"\\(text|mathrm)\{([^}]*)\}", piece)
        yield [f"\\{words[1]}", "{", words[2], "}"] if words else TOKEN.findall(piece)
