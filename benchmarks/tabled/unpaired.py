"""Of tasks without pairs, and of molecules."""

from __future__ import annotations

from tabled import markdown, origin, runs


def style() -> str:
    """Style, fluency and content of texts after each reward, and how well their sources can be told again."""
    text = ""
    for run in runs("style"):
        ways = run["results"]["ways"]
        rows = [
            [
                way,
                *(f"{found[name]:.2f}" for name in ("style", "fluency", "content")),
                "" if found.get("reconstruction") is None else f"{found['reconstruction']:.2f}",
                "yes" if any("secret_code" in alarm for alarm in found.get("alarms", [])) else "",
                found["texts"][0][1] if "texts" in found else "",
            ]
            for way, found in ways.items()
        ]
        asked = next(found["texts"][0][0] for found in ways.values() if "texts" in found)
        head = ["", "style", "fluency", "content", "reconstruction", "alarm", f"of “{asked}”"]
        text += markdown(head, rows) + origin(run)
    return text
