"use strict";
// A click, or Enter, on a heading sorts its table; rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    heading.tabIndex = 0;
    const sort = () => {
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
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
}
