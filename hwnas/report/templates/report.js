"use strict";
(() => {
  /* Figures: colours are CSS variables, resolved for the theme that is shown. */
  const resolved = (value, style) => {
    if (typeof value === "string") {
      const match = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return match ? style.getPropertyValue(match[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((each) => resolved(each, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v, style)]));
    }
    return value;
  };
  const plots = [...document.querySelectorAll(".plot")].map((box) => {
    const source = box.querySelector("script");
    const figure = { box, spec: JSON.parse(source.textContent) };
    box.replaceChildren();
    return figure;
  });
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const draw = ({ box, spec }) => {
    const { data, layout } = resolved(spec, getComputedStyle(document.documentElement));
    return Plotly.react(box, data, { ...layout, autosize: true }, config).catch((error) => {
      box.textContent = "This figure cannot be drawn: " + error.message;
    });
  };
  const shown = () => plots.filter(({ box }) => box.offsetParent);
  const drawAll = () => Promise.all(shown().map(draw));

  /* What is folded away has no width: it is drawn when it is opened. */
  for (const details of document.querySelectorAll("details")) {
    details.addEventListener("toggle", () => {
      if (details.open) plots.filter(({ box }) => details.contains(box)).forEach(draw);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("print");
    drawAll();
    shown().forEach(({ box }) => Plotly.relayout(box, { width: box.clientWidth }));
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("print");
    drawAll();
  });

  /* Tables: a click on a heading sorts, a second one turns the order round. */
  const keyOf = (cell) => {
    const number = cell.dataset.sort ?? "";
    if (number !== "") return Number(number);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, index) => {
      heading.querySelector("button").addEventListener("click", () => {
        const ascending = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[index]), row]);
        rows.sort(([a], [b]) => {
          /* Rows without a value stay last in both orders. */
          if (a === null || b === null) return (a === null) - (b === null);
          return ascending ? compare(a, b) : compare(b, a);
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  /* Downloads and copies: made here, nothing is fetched. */
  for (const button of document.querySelectorAll("button[data-download]")) {
    button.addEventListener("click", () => {
      const content = JSON.parse(button.parentElement.querySelector("script").textContent);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([content], { type: button.dataset.mime }));
      link.download = button.dataset.download;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  drawAll().then(() => document.documentElement.setAttribute("data-ready", String(plots.length)));
})();
