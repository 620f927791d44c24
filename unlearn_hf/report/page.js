"use strict";
(() => {
  const box = document.getElementById("filter");
  if (!box) return;
  const split = document.getElementById("split");
  const count = document.getElementById("count");
  // Probabilities are no words of an answer.
  const words = (row) => Array.from(row.querySelectorAll("small")).reduce((text, each) => text.replace(each.textContent, ""), row.textContent);
  const rows = Array.from(document.querySelectorAll(".answer"), (row) => [row, words(row).toLowerCase()]);
  const show = () => {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      const fits = (!split.value || row.dataset.split === split.value) && wanted.every((word) => text.includes(word));
      row.hidden = !fits;
      if (fits) shown += 1;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  box.addEventListener("input", show);
  split.addEventListener("change", show);
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
    } else if (event.key === "Escape" && (box.value || split.value)) {
      box.value = "";
      split.value = "";
      show();
    }
  });
  show();
})();
