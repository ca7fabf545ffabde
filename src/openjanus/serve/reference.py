"""The API's reference as a page that needs neither scripts nor anything from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.1rem; margin-top: 2.5rem; } code { font-size: .95em; } .method { opacity: .7; margin-right: .5rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top;
border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
"""


def reference_page(schema: Mapping[str, Any]) -> str:
    """HTML that tells every path of an OpenAPI schema, with the fields of its body."""
    parts = [
        f"<h2><code><span class='method'>{method.upper()}</span>{escape(path)}</code></h2>"
        f"<p>{escape(about.get('summary', ''))}</p>" + _fields(about, schema)
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    ]
    info = schema["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><p>{escape(info.get('description', ''))} The same for machines: "
        f"<a href=openapi.json>openapi.json</a>.</p>{''.join(parts)}</html>"
    )


def _fields(about: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    bodies = about.get("requestBody", {}).get("content", {})
    rows = []
    for media, body in bodies.items():
        model = _resolved(body["schema"], schema)
        rows.append(f"<p><code>{escape(media)}</code> {escape(model.get('description', ''))}</p><table>")
        required = model.get("required", ())
        for name, field in model.get("properties", {}).items():
            must = (
                "must be given" if name in required else f"default {field['default']}" if field.get("default") is not None else ""
            )
            kind = f"<code>{escape(_kind(field, schema))}</code>"
            rows.append(f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(must)}")
        rows.append("</table>")
    return "".join(rows)


def _resolved(model: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in model:
        found: Mapping[str, Any] = schema["components"]["schemas"][model["$ref"].rsplit("/", 1)[1]]
        return found
    return model


def _kind(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A field's kind in words: its type, or all that it may be, and its limits."""
    if "$ref" in field:
        inner = _resolved(field, schema).get("properties", {})
        return "{" + ", ".join(inner) + "}"
    kinds = [one for one in field.get("anyOf", field.get("oneOf", [])) if one.get("type") != "null"]
    if kinds:
        return " or ".join(_kind(one, schema) for one in kinds)
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}), schema)}"
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]}" for name, sign in limits.items() if name in field]
    return " ".join([str(field.get("const", field.get("type", "any"))), *bounds])
