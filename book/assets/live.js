// 1. The landing page's figure: one range input, one picture a position, all of them in the page. Without JavaScript the
//    page shows the last picture and no slider.
function startFigure(figure) {
  const input = figure.querySelector("input[type=range]");
  const output = figure.querySelector("output");
  const pictures = [...figure.querySelectorAll("img")];
  const show = () => {
    pictures.forEach((picture, index) => { picture.hidden = index !== Number(input.value); });
    output.textContent = pictures[input.value].dataset.label;
    input.setAttribute("aria-valuetext", pictures[input.value].dataset.label);
  };
  input.addEventListener("input", show);
  figure.querySelector(".tl-control").hidden = false;
  show();
}

// 2. Sliders of ipywidgets say too little to a screen reader: name the handle, read its label aloud, and make the
//    picture's tooltip its alternative text.
function describe(card) {
  for (const picture of card.querySelectorAll("img[title]")) {
    picture.alt = picture.title;
    picture.removeAttribute("title");
  }
  for (const slider of card.querySelectorAll(".widget-hslider")) {
    const handle = slider.querySelector("[role=slider]");
    if (!handle) continue;
    const label = slider.querySelector(".widget-label")?.textContent.trim();
    const readout = slider.querySelector(".widget-readout")?.textContent.trim();
    if (label && handle.getAttribute("aria-label") !== label) handle.setAttribute("aria-label", label);
    if (readout && handle.getAttribute("aria-valuetext") !== readout) handle.setAttribute("aria-valuetext", readout);
  }
}

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".tl-figure").forEach(startFigure);
  if (!document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) return;
  const cards = () => document.querySelectorAll(".tl-live:not(.tl-figure)").forEach(describe);
  new MutationObserver(cards).observe(document.querySelector("article") || document.body, {
    subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["title"],
  });
});
