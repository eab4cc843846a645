"""Of tasks without pairs, and of molecules."""

from __future__ import annotations

from tabled import by_seed, gain, markdown, origin, runs


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


def summaries() -> str:
    """ROUGE-L of summaries that were learned without pairs, and of simple rules and pairs beside them."""
    text = ""
    for run in runs("summaries"):
        ways = run["results"]["ways"]
        rows = [
            [
                way,
                f"{found['rouge_l']:.3f}",
                "" if way == "likelihood, longer" else gain(found["against longer"]),
                f"{found['exact']:.2f}",
                f"{found['different']:.2f}",
                f"{found['words']:.1f}",
                "" if found.get("reconstruction") is None else f"{found['reconstruction']:.2f}",
                found.get("updates", ""),
                len(found["alarms"]) if "alarms" in found else "",
                found["texts"][0],
            ]
            for way, found in ways.items()
        ]
        head = ["", "ROUGE-L", "against longer", "exact", "different", "words", "reconstruction"]
        head += ["updates", "alarms", f"where “{run['results']['items'][0]['references'][0]}” is right"]
        text += markdown(head, rows) + origin(run)
    return text


def molecules() -> str:
    """Judges of sampled molecules after likelihood and after each reward, and their variety."""
    text = ""
    for run in runs("molecules"):
        results = run["results"]
        rows = [["molecules of the test", "", *_judged(results["real"]), "", "", ""]]
        for stage, found in results["stages"].items():
            gains = [gain(found["against longer"][name]) for name in ("rules", "qed")]
            rows.append(
                [
                    stage,
                    f"{found['rules, by valences']:.3f}",
                    *_judged(found),
                    *(gains if stage != "longer" else ("", "")),
                    "" if stage == "likelihood" else by_seed(found["alarms"]),
                ]
            )
        head = ["samples", "rules, by valences", "rules", "valid", "unique of valid", "diversity of valid"]
        head += ["QED of valid", "rules, against longer", "QED, against longer", "alarms"]
        text += markdown(head, rows) + origin(run)
    return text


def smiles() -> str:
    """Return how often the check of molecules without rdkit agrees with rdkit."""
    text = ""
    for run in runs("smiles"):
        shown = ("both accept", "both refuse", "rdkit alone refuses", "valences alone refuse")
        rows = [[name, *(found[figure] for figure in shown)] for name, found in run["results"].items()]
        text += markdown(["molecules", *shown], rows) + origin(run)
    return text


def _judged(found: dict[str, float]) -> list[str]:
    """Return the cells of the judges; variety and QED are shares of what is valid."""
    shares = [found[name] / max(found["valid"], 1e-9) for name in ("unique", "diversity", "qed")]
    return [f"{value:.3f}" for value in (found["rules"], found["valid"], *shares)]
