/* Tables that sort by click and keyboard, and the switch between light and dark. */
(() => {
  "use strict";

  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  /* Cells without a number (nothing could be counted) stay at the end in both directions. */
  function compare(a, b, numeric, direction) {
    const missing = (key) => key === "" || (numeric && Number.isNaN(Number(key)));
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return direction * (numeric ? Number(a) - Number(b) : words.compare(a, b));
  }

  function sort(table, heading) {
    const numeric = heading.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = heading.ariaSort === first ? other : first;
    for (const each of table.tHead.rows[0].cells) each.ariaSort = each === heading ? order : null;
    const direction = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[heading.cellIndex].dataset.key;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(key(a), key(b), numeric, direction));
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sort(table, heading));
      heading.replaceChildren(button);
    }
  }

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const asked = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme ?? asked) === "dark" ? "light" : "dark";
  });
})();
