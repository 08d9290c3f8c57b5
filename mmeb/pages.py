"""HTML pages that need neither a server nor a network: a jinja2 template with its styles, scripts and data inside."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(package: str, values: Mapping[str, Any]) -> str:
    """The page that `web/page.html` of `package` makes of `values`.

    All values are escaped. The template has `file(name)`, the text of a file beside it (a script, a style) as it is;
    `|tojson` writes a value as JSON that nothing in it can leave, for a script element.
    """

    def file(name: str) -> Markup:
        return Markup(resources.files(package).joinpath("web", name).read_text(encoding="utf-8"))

    environment = Environment(
        loader=PackageLoader(package, "web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    return environment.get_template("page.html").render(values, file=file)
