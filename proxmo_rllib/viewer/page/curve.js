// The learning curve: success of the training's episodes as a line in the band of its 95% intervals, panels as points.

const CURVE = { height: 150, left: 40, right: 12, top: 10, bottom: 22 };

function drawCurve(curve, iteration) {
  const section = document.getElementById("curve");
  const all = [...curve.training, ...curve.panel];
  if (!all.length) {
    section.replaceChildren(make("p", "soft", "There is no learning curve: no metrics with a success rate lie beside the record."));
    return;
  }
  const width = Math.max(300, section.clientWidth - 32);
  const first = all.reduce((least, [x]) => Math.min(least, x), Infinity);
  const last = all.reduce((most, [x]) => Math.max(most, x), -Infinity);
  const x = (value) => CURVE.left + ((value - first) / Math.max(1, last - first)) * (width - CURVE.left - CURVE.right);
  const y = (rate) => CURVE.top + (1 - rate) * (CURVE.height - CURVE.top - CURVE.bottom);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${CURVE.height}`, role: "img", "aria-label": inWords(curve) });
  for (const rate of [0, 0.5, 1]) {
    svg.append(drawn("line", { class: "grid", x1: CURVE.left, x2: width - CURVE.right, y1: y(rate), y2: y(rate) }));
    svg.append(drawn("text", { x: CURVE.left - 6, y: y(rate) + 4, "text-anchor": "end" }, `${100 * rate}%`));
  }
  for (const value of new Set([first, Math.round((first + last) / 2), last])) {
    svg.append(drawn("text", { x: x(value), y: CURVE.height - 7, "text-anchor": "middle" }, String(value)));
  }
  svg.append(drawn("text", { x: CURVE.left + 8, y: CURVE.top + 10 }, "success, with 95% intervals: line in training, points on the panel"));
  const points = curve.training;
  if (points.length) {
    const upper = points.map(([at, , , high]) => `${x(at)},${y(high)}`);
    const lower = points.map(([at, , low]) => `${x(at)},${y(low)}`).reverse();
    svg.append(drawn("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
    svg.append(drawn("polyline", { class: "training", points: points.map(([at, rate]) => `${x(at)},${y(rate)}`).join(" ") }));
  }
  for (const [at, rate, low, high] of curve.panel) {
    const words = `panel after iteration ${at}: ${percent(rate)} [${percent(low)}, ${percent(high)}]`;
    const mark = drawn("g", { class: "panel" }, drawn("title", {}, words));
    mark.append(drawn("line", { x1: x(at), x2: x(at), y1: y(low), y2: y(high) }));
    mark.append(drawn("circle", { cx: x(at), cy: y(rate), r: 3.5 }));
    svg.append(mark);
  }
  if (iteration !== null) svg.append(drawn("line", { class: "here", x1: x(iteration), x2: x(iteration), y1: y(1), y2: y(0) }));
  section.replaceChildren(svg);
}

function inWords(curve) {
  const say = (name, points) => {
    if (!points.length) return "";
    const [[from, before], [to, after]] = [points[0], points[points.length - 1]];
    return `${name}: ${percent(before)} at iteration ${from}, ${percent(after)} at iteration ${to}. `;
  };
  return `Success rate by iteration. ${say("In training", curve.training)}${say("On the panel", curve.panel)}`;
}
