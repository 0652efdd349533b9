"use strict";
(() => {
  const root = document.documentElement;
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch {
      return null; // files opened from disk may have no storage
    }
  };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    stored(root.dataset.theme);
  });

  // Cells without a value go last in either direction; equal ones keep the order of the board.
  const compare = (column, sign) => (left, right) => {
    const [a, b] = [left.row.cells[column].dataset.value, right.row.cells[column].dataset.value];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined) || left.index - right.index;
    const [x, y] = [Number(a), Number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
    return sign * order || left.index - right.index;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, index) => ({ row, index }));
    for (const row of body.rows) {
      for (const cell of row.cells) {
        if (cell.dataset.value === undefined && cell.textContent !== "–" && !cell.classList.contains("num")) cell.dataset.value = cell.textContent;
      }
    }
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        body.append(...[...rows].sort(compare(column, ascending ? 1 : -1)).map((entry) => entry.row));
      });
    });
  }

  // One filter for all tables of a board; a row is found by the text that it has in any of them.
  for (const form of document.querySelectorAll("form.filters")) {
    const section = document.getElementById(form.dataset.section);
    const rows = [...section.querySelectorAll("table.sortable tbody tr")];
    const first = [...section.querySelector("table.first").tBodies[0].rows];
    const texts = new Map();
    for (const row of rows) texts.set(row.dataset.name, (texts.get(row.dataset.name) || "") + row.textContent.toLowerCase());
    const apply = () => {
      const find = form.elements.find.value.trim().toLowerCase();
      const family = form.elements.family.value;
      for (const row of rows) {
        const kept = (!find || texts.get(row.dataset.name).includes(find)) && (!family || row.dataset.family === family);
        row.hidden = !kept || (form.elements.ranked.checked && row.dataset.kind !== "ranked");
      }
      form.querySelector("output").textContent = `${first.filter((row) => !row.hidden).length} of ${first.length} rows`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    for (let part = target; part; part = part.parentElement) {
      if (part instanceof HTMLDetailsElement) part.open = true;
    }
    if (target) target.scrollIntoView();
  };
  // On a phone a table is a card per row, so the tables after the first begin closed.
  if (matchMedia("(max-width: 40rem)").matches) {
    for (const part of document.querySelectorAll("details.part")) part.open = false;
  }
  addEventListener("hashchange", open);
  open();
})();
