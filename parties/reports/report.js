// Draws what the page has as data. Without it, or where it fails, the tables stay open.
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const [id, figure] of Object.entries(figures)) {
  const place = document.getElementById(id);
  Plotly.newPlot(place, figure.data, figure.layout, { displayModeBar: false, responsive: true })
    .then(() => { place.parentElement.querySelector("details").open = false; });
}
