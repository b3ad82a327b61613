"use strict";
// A click on a heading sorts the rows by that column, a second click reverses the order. Empty cells come last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort;
      const compare = (a, b) =>
        "number" in heading.dataset ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      [...body.rows]
        .sort((a, b) => {
          const [first, second] = [key(a), key(b)];
          if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
          return down ? compare(second, first) : compare(first, second);
        })
        .forEach((row) => body.append(row));
    });
  });
}
