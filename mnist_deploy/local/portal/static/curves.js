// Curves: a line in a small picture, with its description as the picture's text.

const SIZE = { width: 120, height: 28, margin: 2 };

export const short = (value, digits = 2) =>
  value.toLocaleString("en", { maximumSignificantDigits: digits });

/** A line through points [x, y]; `across` and `upwards` are the ends of both axes. */
export function drawCurve(label, points, across, upwards) {
  const { width, height, margin } = SIZE;
  const share = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
  const place = ([x, y]) => {
    const left = width * share(x, across);
    const top = height - margin - (height - 2 * margin) * share(y, upwards);
    return `${left.toFixed(1)},${top.toFixed(1)}`;
  };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const attributes = {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, preserveAspectRatio: "none",
  };
  for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, value);
  const line = document.createElementNS(svg.namespaceURI, "polyline");
  line.setAttribute("points", points.map(place).join(" "));
  svg.append(line);
  return svg;
}
