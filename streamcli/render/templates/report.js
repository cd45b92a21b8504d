"use strict";
// Sorting, filtering and figures. Without this script the page still reads; only these are gone.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Sorting: a heading becomes a button; what has no value stays last in both directions.
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const number = (key) => ({ inf: "Infinity", "-inf": "-Infinity" })[key] ?? key;

  function sort(heading) {
    const table = heading.closest("table");
    const place = heading.cellIndex;
    const way = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    all("thead th", table).forEach((each) => each.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", way);
    const key = (row) => number(row.cells[place].dataset.key);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return way === "ascending" ? compare(x, y) : compare(y, x);
    });
    table.tBodies[0].append(...rows);
  }

  for (const heading of all("thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(heading));
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
  }

  // Filtering: a row stays where it, or its table's title, contains every word.
  const box = document.getElementById("filter");
  if (box) {
    const count = document.querySelector(".filter output");
    const tables = all(".comparison").map((article) => {
      const title = article.querySelector("h3").textContent.toLowerCase();
      const rows = [...article.querySelector("tbody").rows];
      return { article, rows: rows.map((row) => [row, `${title} ${row.textContent.toLowerCase()}`]) };
    });
    const total = tables.reduce((sum, table) => sum + table.rows.length, 0);
    const filter = () => {
      const words = box.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      let shown = 0;
      for (const { article, rows } of tables) {
        let here = 0;
        for (const [row, text] of rows) {
          row.hidden = !words.every((word) => text.includes(word));
          here += !row.hidden;
        }
        article.hidden = !here;
        shown += here;
      }
      count.textContent = words.length ? `${shown} of ${total} rows` : "";
      document.getElementById("none").hidden = shown > 0;
    };
    box.closest(".filter").hidden = false;
    box.addEventListener("input", filter);
    filter();
  }

  // Figures: see-through, under the page's own headings; on dark paper every grey is turned round.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const plots = all("figure").map((figure) => [
    figure.querySelector(".plot"),
    JSON.parse(figure.querySelector("script").textContent),
  ]);

  const HEX = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i;
  const RGBA = /^rgba\((\d+), ?(\d+), ?(\d+), ?([\d.]+)\)$/;

  // A hue that is dim on dark paper, nearer to white.
  function lighter(colour, parts) {
    const [red, green, blue] = parts.map((each) => (each / 255) ** 2.2);
    if (0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.19) return colour;
    return `rgb(${parts.map((each) => Math.round(each + 0.4 * (255 - each))).join(", ")})`;
  }

  function turned(colour) {
    const rgba = RGBA.exec(colour);
    if (!rgba && !HEX.test(colour)) return colour;
    const hex = colour.length === 4 ? colour.replace(/[0-9a-f]/gi, "$&$&") : colour;
    const parts = rgba ? rgba.slice(1, 4).map(Number) : hex.match(/[0-9a-f]{2}/gi).map((each) => parseInt(each, 16));
    const [low, high] = [Math.min(...parts), Math.max(...parts)];
    if (high - low > 12) return lighter(colour, parts);
    if (low > 128 && low < 192) return colour; // a grey for both
    const grey = Math.round(243 - 0.86 * low);
    return `rgba(${grey}, ${grey}, ${grey}, ${rgba ? rgba[4] : 1})`;
  }

  function onDark(value) {
    if (typeof value === "string") return turned(value);
    if (Array.isArray(value)) return value.map(onDark);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, onDark(each)]));
  }

  function layout(given) {
    const out = { ...given, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
    const top = out.annotations?.length ? 32 : 12;
    if (out.height && out.margin?.t > top) out.height -= out.margin.t - top;
    out.margin = { ...out.margin, t: top };
    delete out.title;
    delete out.width;
    if (printing) out.width = 680; // pixels between the margins of A4
    return out;
  }

  function draw() {
    for (const [plot, figure] of plots) {
      const shown = dark.matches && !printing ? onDark(figure) : structuredClone(figure);
      Plotly.react(plot, shown.data, layout(shown.layout), { responsive: true, displaylogo: false });
    }
  }

  draw();
  dark.addEventListener("change", draw);

  // A link to a run opens what it points into.
  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();

  // Printing: black on white, with one line a run on where the rows come from.
  const print = (begins) => {
    printing = begins;
    if (begins) all(".provenance, .rest").forEach((each) => (each.open = true));
    draw();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
