"use strict";
// Draws the figures of the page, in the colours of its style, light or dark; for paper light ones.
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = Array.from(document.querySelectorAll(".plot"));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function look(layout) {
    const found = {
      "font.color": colour("--ink"),
      "paper_bgcolor": "rgba(0,0,0,0)",
      "plot_bgcolor": "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": colour("--tint"),
      "hoverlabel.bordercolor": colour("--line"),
      "hoverlabel.font.color": colour("--ink"),
    };
    Object.keys(layout).filter((key) => /^[xy]axis/.test(key)).forEach((axis) => {
      found[axis + ".gridcolor"] = colour("--line");
      found[axis + ".linecolor"] = colour("--line");
    });
    return found;
  }

  function drawn(plot) {
    const figure = figures[plot.dataset.figure];
    const config = {responsive: true, displayModeBar: false};  // two clicks undo a zoom
    if (window.matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;  // a finger scrolls the page
    return Plotly.newPlot(plot, figure.data, figure.layout, config).then(() => Plotly.relayout(plot, look(figure.layout)));
  }

  function again() {
    plots.forEach((plot) => Plotly.relayout(plot, look(figures[plot.dataset.figure].layout)));
  }

  Promise.all(plots.map(drawn)).then(() => { document.documentElement.dataset.drawn = String(plots.length); });
  dark.addEventListener("change", again);
  window.addEventListener("beforeprint", () => {
    plots.forEach((plot) => Plotly.relayout(plot, Object.assign(look(figures[plot.dataset.figure].layout), {width: 660})));
  });
  window.addEventListener("afterprint", () => {
    plots.forEach((plot) => Plotly.relayout(plot, {width: null, autosize: true}));
    again();
  });
})();
