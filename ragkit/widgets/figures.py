"""How figures and tables of the notebooks look: one colour for each thing, whatever the figure is about.

from ragkit.widgets import COLOURS, show
"""

import base64
import io

from IPython.display import HTML, Markdown, display

from ragkit.widgets.parts import escaped

# Six of the colours by Okabe and Ito that stay apart for those who see fewer; lines differ in dashes, too.
BLUE, RED, GREEN, ORANGE, PURPLE, GRAY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#737373"
COLOURS = {
    "policy": BLUE,
    "reference": GRAY,
    "chosen": GREEN,
    "rejected": RED,
    "before": GRAY,
    "after": BLUE,
    "held out": BLUE,
    "trained on": GRAY,
    "other": ORANGE,
    "fourth": PURPLE,
}


def show(figure, description: str) -> None:
    """Display a matplotlib figure on white, with what it shows in words for those who can't see it.

    The words are the picture's alt text, which nbconvert reads and JupyterLab does not; so they stand below
    it once more, folded, where a screen reader finds them in any front end.
    """
    import matplotlib.pyplot as plt  # slow, and a panel needs none

    figure.set_facecolor("white")
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    display(figure, metadata={"image/png": {"alt": description}})
    display(
        Markdown(f"<details><summary>The figure in words</summary>\n\n{escaped(description)}\n</details>")
    )
    plt.close(figure)


def png(figure, dpi: int = 80) -> str:
    """A matplotlib figure as a PNG in base64: for an <img>, or an output."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return base64.b64encode(file.getvalue()).decode()


def image(figure, alt: str) -> str:
    """A figure as HTML."""
    return f'<img src="data:image/png;base64,{png(figure)}" alt="{escaped(alt)}">'


def table(rows: list[dict], caption: str = "") -> HTML:
    """Rows, one dict each with the same keys, as an HTML table; texts are escaped, numbers stand right."""

    def cell(value) -> str:
        if isinstance(value, (int, float)):
            shown = f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"
            return f"<td style='text-align:right'>{shown}</td>"
        return f"<td style='text-align:left'>{escaped(str(value))}</td>"

    head = "".join(f"<th scope='col' style='text-align:left'>{escaped(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(cell, row.values()))}</tr>" for row in rows)
    return HTML(f"<table><caption>{escaped(caption)}</caption><tr>{head}</tr>{body}</table>")
