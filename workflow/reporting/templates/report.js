"use strict";
// A button in each heading sorts its table; rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.scope = "col";
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("n");
      const up = heading.hasAttribute("aria-sort") ? heading.getAttribute("aria-sort") !== "ascending" : !numeric;
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        const text = cell.dataset.sort ?? cell.textContent.trim();
        return numeric ? Number.parseFloat(text.replace("\u2212", "-")) : text;
      };
      const rows = [...body.rows].map((row) => ({ row, key: key(row) }));
      rows.sort((a, b) => {
        if (numeric) {
          const gone = Number.isNaN(a.key) - Number.isNaN(b.key);
          return gone || (up ? a.key - b.key : b.key - a.key) || 0;
        }
        return up ? a.key.localeCompare(b.key) : b.key.localeCompare(a.key);
      });
      body.append(...rows.map(({ row }) => row));
    });
  });
}

// Filters show the rows that have all of what was chosen.
for (const form of document.querySelectorAll("form.filters")) {
  const table = document.getElementById(form.dataset.table);
  const rows = [...table.tBodies[0].rows];
  const told = form.querySelector("output");
  const apply = () => {
    const chosen = new FormData(form);
    const words = chosen.get("words").trim().toLowerCase();
    for (const row of rows) {
      const fits = ["family", "kind", "tier"].every((key) => !chosen.get(key) || row.dataset[key] === chosen.get(key));
      row.hidden = !fits || !row.cells[0].textContent.toLowerCase().includes(words);
    }
    table.classList.toggle("brief", !chosen.has("columns"));
    told.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}

// Columns that there is no room for are shown where the reader asks for them.
for (const table of document.querySelectorAll("table[data-columns]")) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  label.className = "check";
  box.type = "checkbox";
  label.append(box, `all ${table.dataset.columns} columns`);
  box.addEventListener("input", () => table.classList.toggle("brief", !box.checked));
  table.parentElement.before(label);
  table.classList.add("brief");
}

// What is wider than its frame can be scrolled by keyboard too; a folded table once it is open.
const frames = new ResizeObserver((changed) => changed.forEach(({ target }) => {
  const wide = target.scrollWidth > target.clientWidth;
  const told = { tabindex: "0", role: "group", "aria-label": target.querySelector("caption")?.textContent ?? "Figure, wider than the screen" };
  for (const [name, value] of Object.entries(told)) {
    if (wide && !(name === "role" && target.matches("figure"))) target.setAttribute(name, value);
    else target.removeAttribute(name);
  }
}));
document.querySelectorAll(".scroll:not([role]), .glance, .wide").forEach((frame) => frames.observe(frame));

// Text that the page holds as base64 of gzip.
async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

for (const button of document.querySelectorAll("button[data-packed]")) {
  button.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await unpack(button.dataset.packed)], { type: "text/csv" }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

// A link into what is folded unfolds it.
const unfold = () => {
  const entry = document.querySelector(":target")?.closest("details");
  if (entry) entry.open = true;
};
addEventListener("hashchange", unfold);
unfold();

// What is folded on the screen is open on paper, but for what would fill pages with little.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open], [data-long])")];
  folded.forEach((entry) => { entry.open = true; });
});
addEventListener("afterprint", () => folded.forEach((entry) => { entry.open = false; }));
