"""The style of a report's page, for screens of any width, light and dark, and for paper; and its one script."""

STYLE = """
:root {
  --back: #ffffff; --card: #f5f6f8; --text: #1b1f24; --quiet: #59636e; --line: #d8dee4; --link: #0a58b8;
  --warn: #b3261e; --warn-back: #fdebe9; --hover: #e3e8ee;
  --color0: #2f6fd0; --color1: #d9650b; --color2: #138a5e; --color3: #a04fc4; --color4: #c7316b; --color5: #0f8c9c;
  --others: #7a6a58; --kept: #868f9a;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --back: #12161b; --card: #1b2129; --text: #e4e9ee; --quiet: #9da7b1; --line: #343c46; --link: #7cb3ff;
    --warn: #ff9d94; --warn-back: #3d1f1d; --hover: #2a323c;
    --color0: #6aa5f8; --color1: #f2924a; --color2: #45c496; --color3: #c68be6; --color4: #f2749f; --color5: #4ccadb;
    --others: #b8a58f; --kept: #66707b;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 3rem; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem; background: var(--back); color: var(--text);
  overflow-wrap: anywhere; font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; }
a { color: var(--link); }
.files { margin: 0.25rem 0 0; color: var(--quiet); }
.files strong { color: var(--text); }
nav { display: flex; gap: 1.25rem; }
.about { margin: 0 0 0.75rem; }
small, caption, figcaption, .about { color: var(--quiet); font-size: 0.875rem; }

.headlines { display: grid; gap: 0.75rem; margin: 1.25rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
.headlines div { background: var(--card); border-radius: 8px; padding: 0.75rem 1rem; }
.headlines dt { color: var(--quiet); font-size: 0.875rem; }
.headlines dd { margin: 0; }
.headlines b { display: block; font-size: 1.4rem; font-weight: 600; line-height: 1.4; }
.headlines span { font-size: 0.875rem; }

svg { display: block; overflow: visible; }
svg text { fill: var(--text); font-size: 0.8125rem; }
svg .tick { fill: var(--quiet); font-size: 0.75rem; font-variant-numeric: tabular-nums; }
svg .panel { font-weight: 600; }
svg .grid { stroke: var(--line); }
svg .range { stroke-width: 8; stroke-linecap: round; }
svg.many .range { stroke-width: 4; }
svg .hit { fill: transparent; }
svg a:hover .hit, svg a:focus .hit { fill: var(--hover); }
svg .ring { fill: none; stroke: var(--warn); stroke-width: 2; pointer-events: none; }
svg text.lowest { fill: var(--warn); font-weight: 600; pointer-events: none; }
figure { margin: 0; }
.sizes { width: 100%; margin-bottom: 1rem; }
svg.layers { width: calc(100% - 60px); margin-left: 60px; }
.swatch, .swatch rect { display: inline; width: 0.75rem; height: 0.75rem; }
.color0 { fill: var(--color0); stroke: var(--color0); } .color1 { fill: var(--color1); stroke: var(--color1); }
.color2 { fill: var(--color2); stroke: var(--color2); } .color3 { fill: var(--color3); stroke: var(--color3); }
.color4 { fill: var(--color4); stroke: var(--color4); } .color5 { fill: var(--color5); stroke: var(--color5); }
.others { fill: var(--others); stroke: var(--others); } rect.kept { fill: var(--kept); stroke: var(--kept); }
rect { stroke-width: 0; }

table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.5rem; }
th, td { padding: 0.3rem 0.6rem; text-align: right; vertical-align: baseline; white-space: nowrap;
  border-bottom: 1px solid var(--line); font-weight: normal; }
thead th { position: sticky; top: 0; background: var(--back); font-weight: 600; z-index: 1;
  box-shadow: 0 1px var(--line); }
tbody th, tfoot th, thead th:first-child { text-align: left; white-space: normal; }
tfoot * { font-weight: 600; }
.layers tbody th, .kept tbody th { min-width: 14rem;
  font: 0.8125rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.layers th:nth-child(2), .layers th:nth-child(3), .layers td:nth-child(3) { text-align: left; white-space: normal; }
table.layers { font-size: 0.9375rem; }
.layers thead th { white-space: nowrap; }
.layers td:nth-child(3) { font-size: 0.875rem; min-width: 9rem; }
.layers td:first-child { color: var(--quiet); }
.kept .why th { padding-top: 1.25rem; font: inherit; font-weight: 600; }
.why span { color: var(--quiet); font-weight: normal; }
table.layers .lowest { background: var(--warn-back); }
mark { background: none; color: var(--warn); font-weight: 600; }
tr:target { outline: 2px solid var(--link); outline-offset: -2px; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: "↕"; color: var(--quiet); padding-left: 0.25em; font-weight: normal; }
[aria-sort=ascending] button::after { content: "↑"; color: var(--link); }
[aria-sort=descending] button::after { content: "↓"; color: var(--link); }

@media screen and (max-width: 43rem) {
  body { padding: 1rem; }
  .headlines { grid-template-columns: repeat(2, 1fr); }
  .headlines div:nth-child(-n+2) { grid-column: 1 / -1; }
}
@media screen and (max-width: 61rem) { /* a row becomes a block: the name, then figures that say what they are */
  tr { display: flex; flex-wrap: wrap; column-gap: 1.25rem; padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
  table, caption, thead, tbody, tfoot { display: block; }
  thead:not(:has(button)) { display: none; }
  thead th { position: static; box-shadow: none; }
  th, td { border: 0; padding: 0.1rem 0; }
  tbody th, tfoot th, .layers td:nth-child(3) { flex: 1 0 100%; }
  .layers tbody th { flex: 1 0 calc(100% - 5rem); }
  td::before { color: var(--quiet); }
  td:empty { display: none; }
  .formats td:nth-child(2)::before { content: "tensors "; }
  .formats td:nth-child(3)::before { content: "before "; }
  .formats td:nth-child(4)::before { content: "after "; }
  .formats td:nth-child(5)::before, .layers td:nth-child(5)::before { content: "bits "; }
  .formats td:nth-child(6)::before { content: "lowest SQNR "; }
  .layers td:nth-child(7)::before { content: "SQNR "; }
}
@media print {
  .headlines { grid-template-columns: repeat(3, 1fr); }
  html { font-size: 10px; }
  body { max-width: none; padding: 0; }
  nav, th button::after { display: none; }
  th button { display: contents; } /* Chromium leaves buttons out of heads that it repeats on each page */
  thead th { position: static; }
  tr, figure, .headlines div { break-inside: avoid; }
  h2 { break-after: avoid; }
  a { color: inherit; text-decoration: none; }
  .headlines div, tr { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# The head of each column becomes a button that sorts by it. What has a <data> element is compared by its value.
SCRIPT = """
const table = document.querySelector("table.layers");
const heads = table ? [...table.tHead.rows[0].cells] : [];
heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  const key = row => {
    const data = row.cells[column].querySelector("data");
    return data ? Number(data.value) : row.cells[column].textContent;
  };
  button.addEventListener("click", () => {
    const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
    rows.sort(([a], [b]) => sign * ((a > b) - (a < b)));
    rows.forEach(([, row]) => table.tBodies[0].append(row));
  });
});
"""
