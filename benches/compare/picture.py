"""The medians of a run as a picture: a bar for each tool, in SVG."""
from xml.sax.saxutils import escape

from report import median

WIDTH, BAR, GAP, TEXT, LABEL = 900, 14, 3, 330, 90
OURS, THEIRS = "#1a6fb5", "#b9b9b9"


def drawn(places, samples):
    """Returns the picture: for each place and row the wall time of each tool; the slowest of a row fills the width."""
    parts, y = [], 10
    for place in places:
        rows = [(row, tools) for (name, row), tools in samples.items() if name == place.name]
        if not rows:
            continue
        y += 16
        parts.append(text(10, y, place.title, "bold"))
        for row, tools in rows:
            y += 22
            parts.append(text(10, y, row))
            medians = {tool: median(found, "wall") for tool, found in tools.items()}
            slowest = max(medians.values())
            for tool, seconds in medians.items():
                y += BAR + GAP
                length = max(1, (WIDTH - TEXT - LABEL) * seconds / slowest)
                colour = OURS if tool.startswith("Holdfast") else THEIRS
                parts.append(text(30, y, tool, "", "#444"))
                where = f'x="{TEXT - 60}" y="{y - BAR + 3}" width="{length:.1f}" height="{BAR}"'
                parts.append(f'<rect {where} fill="{colour}"/>')
                parts.append(text(TEXT - 54 + length, y, f"{seconds:.2f} s", "", "#444"))
        y += 12
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}" font-family="sans-serif" '
            f'font-size="12"><rect width="{WIDTH}" height="{y + 10}" fill="white"/>')
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def text(x, y, content, weight="", colour="black"):
    bold = ' font-weight="bold"' if weight else ""
    return f'<text x="{x:.0f}" y="{y}"{bold} fill="{colour}">{escape(content)}</text>'
