"""The report's page: its style and its frame. Text comes in escaped; figures are inline SVG."""

from string import Template

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2126; --soft: #5d6670; --rule: #dcdad3;
  --k0: #0072b2; --k1: #c04a00; --k2: #00805e; --k3: #a04a84; --k4: #8a6d00; --k5: #3b82c4;
  --k6: #444b54; --k7: #a83232; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --card: #1c2026; --ink: #e9ebee; --soft: #a0a9b4; --rule: #343a43;
  --k0: #56b4e9; --k1: #ff9a4d; --k2: #35c79a; --k3: #e29ac6; --k4: #e8c84a; --k5: #8fc3ff;
  --k6: #c3cad3; --k7: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 44px 0 6px; }
h3 { font-size: 1rem; margin: 0 0 8px; }
h4 { font-size: .82rem; margin: 12px 0 4px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 12px; max-width: 72ch; } .soft, .note { color: var(--soft); }
code, pre { font: .86em/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; white-space: pre-wrap; }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px;
  min-width: 0; }
.figure b { display: block; font-size: 1.75rem; line-height: 1.2; }
svg { display: block; width: 100%; height: auto; } .map { max-width: 640px; margin: 0 auto; }
svg text { fill: var(--ink); font: 13px system-ui, -apple-system, sans-serif; }
svg text.note { fill: var(--soft); font-size: 12px; }
svg text.end { font-weight: 600; font-size: 12px; }
svg text.label { font-weight: 700; font-size: 15px; paint-order: stroke; stroke: var(--card);
  stroke-width: 5px; stroke-linejoin: round; }
path.grid { stroke: var(--rule); stroke-width: 1; }
path.level { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 2 4; }
polyline { fill: none; stroke-linejoin: round; stroke: currentColor; }
polyline.line { stroke-width: 2.5; }
polyline.thin { stroke: var(--soft); stroke-width: 1; opacity: .55; }
.dash1 { stroke-dasharray: 7 4; } .dash2 { stroke-dasharray: 2 3; }
.dash3 { stroke-dasharray: 9 3 2 3; }
.p { fill: currentColor; opacity: .78; }
.p .hollow { fill: none; stroke: currentColor; stroke-width: 1.6; }
.k0 { color: var(--k0); } .k1 { color: var(--k1); } .k2 { color: var(--k2); }
.k3 { color: var(--k3); } .k4 { color: var(--k4); } .k5 { color: var(--k5); }
.k6 { color: var(--k6); } .k7 { color: var(--k7); }
svg text.end[class*=" k"] { fill: currentColor; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; justify-content: center;
  font-size: .88rem; }
.left { justify-content: flex-start; } .wide { white-space: pre; } .wrap { white-space: normal; }
.legend span { display: inline-flex; align-items: center; gap: 6px; } .mark { width: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 8px 12px 8px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
th small, td small { color: var(--soft); font-weight: 400; display: block; }
td { font-variant-numeric: tabular-nums; } td.ours { font-weight: 700; color: var(--k0); }
td.ours small { font-weight: 400; }
th:first-child, td:first-child { white-space: normal; min-width: 9.5rem; }
.bar { width: 96px; margin-top: 3px; } .bar .rail { stroke: var(--rule); }
.bar .range { stroke: currentColor; stroke-width: 2.5; } .bar circle { fill: currentColor; }
ol, ul { margin: 0; padding-left: 1.2em; font-size: .9rem; }
li { margin: 1px 0; overflow-wrap: anywhere; }
.shelf { border-top: 1px solid var(--rule); margin-top: 12px; padding-top: 2px; }
summary { cursor: pointer; padding: 6px 0; }
"""

FRAME = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>$style</style></head>
<body><main>
<h1>$title</h1>
<p class="soft">$lead</p>
<div class="grid">$figures</div>
<h2>How it learned</h2>
<p>$curves_note</p>
<div class="grid">$curves</div>
<h2>Users it never saw, on a map</h2>
<p>$map_note</p>
<div class="card"><div class="map">$map</div><div class="legend">$legend</div></div>
<h2>Three of them, and what lies nearest to them</h2>
<p>$people_note</p>
<div class="grid">$people</div>
<h2>Against its controls</h2>
<p>$table_note</p>
<div class="card scroll">$table</div>
$details
<h2>How this was made</h2>
$made
</main></body></html>
"""
)


def page(parts: dict[str, str]) -> str:
    """Return the whole page; `parts` are HTML fragments by the frame's names, KeyError for none."""
    return FRAME.substitute(parts, style=STYLE)
