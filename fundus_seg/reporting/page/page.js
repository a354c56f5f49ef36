"use strict";
// Tables that can be ordered and filtered, outlines that can be switched, zoom, copying, and printing of what is folded.

const words = new Intl.Collator("en", { numeric: true });

for (const grid of document.querySelectorAll(".grid.live")) {
  const body = grid.querySelector("tbody"), tools = grid.querySelector(".tools");
  const rows = [...body.rows];
  if (rows.length > 1) makeSortable(grid, body, rows);
  if (tools) makeFiltered(tools, rows);
}

function makeSortable(grid, body, rows) {
  const heads = [...grid.querySelectorAll("th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const number = head.classList.contains("number"), sign = down ? -1 : 1;
      const ordered = rows.map((row, place) => ({ row, place, ...keyOf(row.cells[column], number) }));
      // What has no number stands last in either order; equal rows keep the order of the report.
      ordered.sort((a, b) => a.none - b.none || sign * compared(a.key, b.key) || a.place - b.place);
      body.append(...ordered.map((each) => each.row));
    });
  });
}

function keyOf(cell, number) {
  if (!number) return { key: cell.textContent, none: 0 };
  const key = cell.dataset.key === undefined ? NaN : Number(cell.dataset.key);
  return { key: Number.isNaN(key) ? 0 : key, none: Number.isNaN(key) ? 1 : 0 };
}

function compared(one, other) {
  return typeof one === "string" ? words.compare(one, other) : one - other;
}

function makeFiltered(tools, rows) {
  const search = tools.querySelector("input"), told = tools.querySelector("output");
  const choices = [...tools.querySelectorAll("select")];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" "));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [place, row] of rows.entries()) {
      const fits = choices.every((each) => !each.value || row.cells[each.dataset.column].textContent === each.value);
      row.hidden = !(fits && words.every((word) => texts[place].includes(word)));
      shown += !row.hidden;
    }
    told.textContent = `${shown} of ${rows.length} rows`;
  };
  tools.hidden = false;
  tools.addEventListener("input", filter);
  filter();
}

for (const gallery of document.querySelectorAll(".gallery")) {
  for (const box of gallery.querySelectorAll("[data-shows]")) {
    box.addEventListener("change", () => {
      for (const each of gallery.querySelectorAll(`.cases .${box.dataset.shows}`)) each.classList.toggle("off", !box.checked);
    });
  }
  const zoom = gallery.querySelector("[data-zoom]");
  zoom.addEventListener("input", () => {
    for (const view of gallery.querySelectorAll(".zoomed")) zoomed(view, Number(zoom.value));
  });
}

function zoomed(view, factor) {
  const x = (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth;
  const y = (view.scrollTop + view.clientHeight / 2) / view.scrollHeight;
  view.firstElementChild.style.width = `${100 * factor}%`;
  view.scrollTo(x * view.scrollWidth - view.clientWidth / 2, y * view.scrollHeight - view.clientHeight / 2);
}

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  });
}

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});
