"""The page that a study ends in, as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from search.escaping import as_line
from search.page import chapters, handover, judged, mistakes, searched
from search.page.article import Block, Chapter, Charts, ReportContent, count_trials

__all__ = ["ReportContent", "count_trials", "write_report"]

ORDER = (
    chapters.decision,
    judged.test_split,
    judged.gaps,
    searched.search,
    searched.mattered,
    mistakes.mistakes,
    mistakes.calibration,
    judged.costs,
    handover.model,
    handover.risks,
    chapters.changes,
    handover.reproduction,
)


def write_report(content: ReportContent, folder: Path) -> tuple[Path, Path]:
    """Writes `report.md` and `report.html` into `folder`; returns both paths."""
    front = list(chapters.front(content))
    parts = [chapter for tell in ORDER for chapter in tell(content)]
    values = {"study": content.study, "front": front, "chapters": parts}
    pages = {"report.md": _markdown(values), "report.html": _html(values, _drawn(front, parts))}
    paths = []
    for name, text in pages.items():
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths[0], paths[1]


def _drawn(front: list[Block], parts: list[Chapter]) -> list[dict[str, Any]]:
    """What the page's script draws: the figure of every chart."""
    blocks = [*front, *(block for chapter in parts for block in chapter.blocks)]
    charts = [chart for block in blocks if isinstance(block, Charts) for chart in block.charts]
    return [
        {"id": c.id, "figure": c.figure, "choices": [update for _, update in c.choices]}
        for c in charts
    ]


def _markdown(values: dict[str, Any]) -> str:
    environment = _environment(autoescape=False)
    environment.filters |= {"line": as_line, "code": _indented}
    return environment.get_template("report.md.j2").render(values)


def _html(values: dict[str, Any], drawn: list[dict[str, Any]]) -> str:
    """The page; a script that is not Podium's own is blocked by the browser.

    Its policy names the two scripts by their digests, and allows no request of any kind.
    """
    environment = _environment(autoescape=True)
    scripts = [_plotly() if drawn else "", _own(environment, "report.js.j2")]
    return environment.get_template("report.html.j2").render(
        values,
        style=Markup(_own(environment, "report.css.j2")),
        scripts=[Markup(script) for script in scripts if script],
        digests=[_digest(script) for script in scripts if script],
        drawn=htmlsafe_json_dumps(drawn, allow_nan=False, separators=(",", ":")),
    )


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("search"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _own(environment: Environment, name: str) -> str:
    from search.canvas import PALETTE

    return environment.get_template(name).render(palette=PALETTE)


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Plotly's own code, in which nothing ends the element that it stands in."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("\r\n", "\n").replace("</script", "<\\/script")


def _digest(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _indented(text: str) -> str:
    """Lines of code in Markdown, each indented so that it cannot end the block."""
    return "\n".join(f"    {line}" for line in text.splitlines())
