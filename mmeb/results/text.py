"""Text that others wrote, made fit for terminals, tables and file names."""

import hashlib
import re

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, line separators, overrides of the writing direction, surrogates, and noncharacters."""
_LONGEST = 100
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&]|^[-+])")


def plain(text: str) -> str:
    """Text from a file on one line, fit for every terminal and table."""
    return " ".join(_UNFIT.sub("\ufffd", " ".join(text.split())).split())


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell too: no emphasis, link, tag or column break."""
    text = _SPECIAL.sub(r"\\\1", text)
    return text.replace("://", "&#58;//").replace("www.", "www&#46;")  # GitHub links bare addresses


def file_stem(name: str) -> str:
    """A model's name as a file name that no shell, path or file system stumbles over.

    A slash becomes `__`, whatever else is no letter, digit, dot, dash or underscore of ASCII a dash; where that lost a
    letter or a sign of another script, a few digits of the name's hash keep it unique.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "__")).strip("-.")[:_LONGEST]
    if stem and name.isascii() and len(name) <= _LONGEST:
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{stem or 'model'}-{digest}"
