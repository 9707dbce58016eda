"""What a run found: medians with their spread, ratios, and the bars that are met or missed; as Markdown and JSON."""
import dataclasses
import datetime
import json
import statistics

from bars import AGENT, HOLDFAST, SYNC, bars

MEASURES = {
    "wall": lambda sample: sample.wall_seconds,
    "own CPU": lambda sample: sample.own_cpu_seconds,
    "machine CPU": lambda sample: sample.machine_cpu_seconds,
    "stored, MB": lambda sample: sample.stored_bytes and sample.stored_bytes / 1e6,
    "peak, MiB": lambda sample: sample.peak_bytes and sample.peak_bytes / 2**20,
    "each, ms": lambda sample: sample.each_seconds and 1000 * statistics.median(sample.each_seconds),
}


def values(samples, measure):
    found = [MEASURES[measure](sample) for sample in samples]
    return [value for value in found if value is not None]


def median(samples, measure):
    found = values(samples, measure)
    return statistics.median(found) if found else None


def spread(found, digits=2):
    """Returns a median with the lowest and the highest value: `1.20 (1.10 to 1.40)`."""
    if not found:
        return ""
    text = f"{statistics.median(found):.{digits}f}"
    return text if len(found) == 1 else f"{text} ({min(found):.{digits}f} to {max(found):.{digits}f})"


def ratio(ours, theirs, measure):
    """Returns ours divided by theirs, for each pair of runs and as ratio of the medians; `None` if nothing is there."""
    top, bottom = median(ours, measure), median(theirs, measure)
    if not top or not bottom:
        return None, []
    pairs = zip(values(ours, measure), values(theirs, measure), strict=False)
    return top / bottom, [a / b for a, b in pairs if b]


def table(rows, ours):
    """Returns the Markdown table of one place: a line for each row and tool; `ours` is what the ratio divides."""
    lines = ["| | tool | wall, s | ours / its | own CPU, s | machine CPU, s | peak, MiB | stored, MB | requests |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row, tools in rows:
        for title, samples in tools.items():
            # A command that works alone is compared with one that works alone.
            first = ours[::-1] if title == SYNC else ours
            reference = next((tools[name] for name in first if name in tools), None)
            of_medians, pairs = ratio(reference, samples, "wall") if reference else (None, [])
            is_ours = title in ours
            shown = "" if is_ours or not of_medians else f"{of_medians:.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
            lines.append("| " + " | ".join([
                row, f"**{title}**" if is_ours else title, wall(samples), shown, plain(samples, "own CPU"),
                plain(samples, "machine CPU"), peak(samples), plain(samples, "stored, MB"), requests(samples)]) + " |")
    return lines


def wall(samples):
    each = median(samples, "each, ms")
    text = spread(values(samples, "wall"))
    return f"{text}; {each:.0f} ms each" if each else text


def plain(samples, measure):
    found = median(samples, measure)
    return f"{found:.1f}" if found is not None else ""


def peak(samples):
    found = values(samples, "peak, MiB")
    return f"{max(found):.0f}" if found else ""


def requests(samples):
    counts = samples[-1].requests
    return ", ".join(f"{number} {kind}" for kind, number in sorted((counts or {}).items()))


def judged(samples):
    """Returns a line for each bar that this run can judge: row, place, measure, beside what, limit, found, met."""
    chains = [row for _, row in samples if row.startswith("restore of incremental ")]
    last = max((int(row.rsplit(" ", 1)[1]) for row in chains), default=0)
    lines = []
    for place in dict.fromkeys(place for place, _ in samples):
        for bar in bars(last):
            tools = samples.get((place, bar.row), {})
            others = {name: tools[name] for name in bar.rivals if name in tools}
            if bar.against:
                others = {bar.against: samples.get((place, bar.against), {}).get(bar.ours, [])}
            if (bar.places and place not in bar.places) or bar.ours not in tools:
                continue
            found = [(ratio(tools[bar.ours], theirs, bar.measure)[0], name) for name, theirs in others.items()]
            found = [(value, name) for value, name in found if value]
            if not bar.rivals and not bar.against and (value := median(tools[bar.ours], bar.measure)):
                found = [(value, "")]
            if found:
                value, name = max(found)
                lines.append((bar.row, place, bar.measure, name, bar.limit, value, "met" if value <= bar.limit else ""))
    return lines


def markdown(facts, places, samples):
    machine = facts["machine"]
    lines = [f"{facts['started']}, {machine['cores']} cores of {machine['processor']}, "
             f"{machine['memory_bytes'] / 2**30:.0f} GiB, kernel {machine['kernel']}; load average at the start "
             f"{machine['load_at_start']:.1f}, at the end {facts['load_at_end']:.1f}. Data: {facts['data']}. "
             f"{facts['runs']} alternations. Versions: {', '.join(facts['versions'].values())}.", ""]
    ours = (AGENT, HOLDFAST)
    for place in places:
        rows = [(row, tools) for (name, row), tools in samples.items() if name == place.name]
        if rows:
            lines += [f"### {place.title[0].upper()}{place.title[1:]}", "", *table(rows, ours), ""]
    found = judged(samples)
    if found:
        lines += ["### Beside the bars", "", "| work | place | measure | beside | at most | found | |",
                  "|---|---|---|---|---|---|---|"]
        lines += [f"| {row} | {place} | {measure} | {name} | {limit:.2f} | {value:.2f} | {met or '**missed**'} |"
                  for row, place, measure, name, limit, value, met in found]
    return "\n".join(lines) + "\n"


def as_json(facts, samples):
    rows = [{"place": place, "row": row, "tool": tool, "samples": [dataclasses.asdict(sample) for sample in found]}
            for (place, row), tools in samples.items() for tool, found in tools.items()]
    return json.dumps({"version": 1, **facts, "rows": rows}, indent=2) + "\n"


def now():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
