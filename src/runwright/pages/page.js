// currentColor and grey, so that the style sheet alone decides on light or dark charts, on screen and on paper.
const faint = "rgba(128, 128, 128, 0.3)";
const config = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: faint },
  axis: { labelColor: "currentColor", titleColor: "currentColor", titleFontWeight: "normal", gridColor: faint,
          domainColor: faint, tickColor: faint },
  legend: { labelColor: "currentColor", titleColor: "currentColor" },
  text: { color: "currentColor" },
};
for (const figure of document.querySelectorAll("figure[id]")) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  vegaEmbed(figure.querySelector(".chart"), spec, { renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true }, config }).then(() => figure.classList.add("drawn"));
}
