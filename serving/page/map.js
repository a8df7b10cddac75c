// The population on two axes, drawn whole each time: some thousand points take a few milliseconds.

const PAD = 16;

export function drawMap(canvas, points, you, alike) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const colour = (name) => getComputedStyle(canvas).getPropertyValue(name).trim();
  const all = you ? [...points, ...alike, you] : points;
  const range = [0, 1].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (const point of all) {
      low = Math.min(low, point[axis]);
      high = Math.max(high, point[axis]);
    }
    return [low, high - low || 1];
  });
  const at = (point) => [
    PAD + ((point[0] - range[0][0]) / range[0][1]) * (width - 2 * PAD),
    height - PAD - ((point[1] - range[1][0]) / range[1][1]) * (height - 2 * PAD),
  ];
  const circle = (point, radius) => {
    pen.beginPath();
    pen.arc(...at(point), radius, 0, 2 * Math.PI);
  };
  pen.fillStyle = colour("--dot");
  pen.globalAlpha = points.length > 600 ? 0.4 : 0.65;
  for (const point of points) {
    circle(point, 1.6);
    pen.fill();
  }
  pen.globalAlpha = 1;
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 2;
  for (const point of alike) {
    circle(point, 5);
    pen.stroke();
  }
  if (!you) return;
  pen.fillStyle = colour("--you");
  pen.strokeStyle = colour("--card");
  circle(you, 6.5);
  pen.fill();
  pen.stroke();
}
