"""Every link in a notebook or a Markdown file that stays in the repo leads to what JupyterLab opens."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = "README BENCHMARKS CHANGELOG SCALE data/README data/tiny-rag-lm/README notebooks/glossary".split()
PAGES = [*(ROOT / f"{name}.md" for name in FILES), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)  # http:, https:, mailto:


def prose(path: Path) -> str:
    """The Markdown of a page, without its code blocks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(<?([^()\s>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\)", text)
    found += re.findall(r"<a\s[^>]*href=\"([^\"]+)\"", text)
    found += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, flags=re.M)
    return [link for link in found if not ELSEWHERE.match(link)]


def anchors(path: Path) -> set[str]:
    """The names under which a page's headings are linked: JupyterLab's in a notebook, GitHub's in a file."""
    names = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*$", prose(path), flags=re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        if path.suffix == ".ipynb":
            names.add(heading.replace(" ", "-"))
        else:
            names.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return names


def lost(page: Path) -> list[str]:
    """The links of a page that lead nowhere, or out of the folder in which `jupyter lab` starts."""
    wrong = []
    for link in links(prose(page)):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.is_relative_to(ROOT) or not target.exists():
            wrong.append(link)
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_somewhere(page):
    assert links(prose(page)) and lost(page) == []


def test_what_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_links.ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# A `b` c, d!\n[x](#a-b-c-d)")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#a-b-c-d) [c](gone.md) [d](there.md#e) [e](../out.md) [f](https://x.org/y)\n"
        '<a href="gone.svg">g</a> ![h](gone.png "title")\n```\n[no](link.md)\n```\n[i]: gone.txt\n'
    )
    gone = ["gone.md", "there.md#e: no such heading", "../out.md", "gone.png", "gone.svg", "gone.txt"]
    assert lost(page) == gone and lost(tmp_path / "there.md") == []


def test_jupyterlab_starts_where_every_link_is_within_reach():
    """Started in `notebooks/`, it could open nothing in `data/`."""
    starts = re.findall(r"jupyter lab\b(.*)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert starts and not any(rest.strip() for rest in starts)
