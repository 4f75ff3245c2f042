// Suspicious regions of a grey map, by the same rule as the service (anomaly_ov.scoring.regions): connected pieces,
// corners count, of values >= threshold; highest peak first; pieces under MIN_AREA_FRACTION of the picture are left out,
// but never the first: what reaches the threshold has a region.
//
// One scan finds the runs of each row and joins those that touch (union-find), so the cost is one look at each value.

export const MIN_AREA_FRACTION = 1e-4;

// The smallest grey value that counts. The service's map is float32, its threshold is not rounded.
export function cutOf(threshold) {
  let cut = Math.max(0, Math.floor(threshold * 255) - 1);
  while (cut < 256 && Math.fround(cut / 255) < threshold) cut += 1;
  return cut;
}

// Where the block of picture pixels of each map cell begins; the last is the number of pixels.
export function edges(cells, pixels) {
  const found = new Int32Array(cells + 1);
  for (let i = 0; i <= cells; i += 1) found[i] = Math.floor((2 * i * pixels + cells - 1) / (2 * cells));
  return found;
}

// [{box: [x0, y0, x1, y1], area, peak, mean, runs: [[y, x0, x1], ...] in map cells}, ...]
export function regions(grey, width, height, threshold, imageWidth, imageHeight, limit = 64) {
  const runs = findRuns(grey, width, height, cutOf(threshold));
  const columns = edges(width, imageWidth);
  const rows = edges(height, imageHeight);
  const pieces = measure(grey, width, runs, rows, columns);
  const smallest = MIN_AREA_FRACTION * imageWidth * imageHeight;
  return pieces
    .sort((a, b) => b.peak - a.peak || b.area - a.area || a.first - b.first)
    .filter((piece, index) => index === 0 || piece.area >= smallest)
    .slice(0, limit)
    .map(({ x0, y0, x1, y1, area, peak, sum, cells, members }) => ({
      box: [columns[x0], rows[y0], columns[x1], rows[y1]],
      area,
      peak: peak / 255,
      mean: sum / cells / 255,
      runs: members.map((run) => [runs.y[run], runs.start[run], runs.end[run]]),
    }));
}

function findRuns(grey, width, height, cut) {
  const y = [];
  const start = [];
  const end = [];
  const parent = [];
  const root = (run) => {
    while (parent[run] !== run) {
      parent[run] = parent[parent[run]];
      run = parent[run];
    }
    return run;
  };
  let above = 0; // first run of the row above that can still touch
  let rowBegin = 0;
  for (let row = 0; row < height; row += 1) {
    const previousEnd = start.length;
    above = rowBegin;
    rowBegin = previousEnd;
    const base = row * width;
    for (let x = 0; x < width; x += 1) {
      if (grey[base + x] < cut) continue;
      const begin = x;
      while (x < width && grey[base + x] >= cut) x += 1;
      const run = start.length;
      y.push(row);
      start.push(begin);
      end.push(x);
      parent.push(run);
      while (above < previousEnd && end[above] < begin) above += 1;
      // The last one that touches may touch the next run too, so `above` stays.
      for (let other = above; other < previousEnd && start[other] <= x; other += 1) {
        const a = root(other);
        const b = root(run);
        if (a !== b) parent[Math.max(a, b)] = Math.min(a, b);
      }
    }
  }
  return { y, start, end, root };
}

function measure(grey, width, runs, rows, columns) {
  const pieces = new Map();
  for (let run = 0; run < runs.y.length; run += 1) {
    const first = runs.root(run);
    const [y, start, end] = [runs.y[run], runs.start[run], runs.end[run]];
    let piece = pieces.get(first);
    if (!piece) {
      piece = { first, x0: start, x1: end, y0: y, y1: y + 1, area: 0, peak: 0, sum: 0, cells: 0, members: [] };
      pieces.set(first, piece);
    }
    piece.x0 = Math.min(piece.x0, start);
    piece.x1 = Math.max(piece.x1, end);
    piece.y1 = y + 1;
    piece.area += (rows[y + 1] - rows[y]) * (columns[end] - columns[start]);
    piece.cells += end - start;
    for (let i = y * width + start; i < y * width + end; i += 1) {
      piece.sum += grey[i];
      if (grey[i] > piece.peak) piece.peak = grey[i];
    }
    piece.members.push(run);
  }
  return [...pieces.values()];
}

// SVG path, in map cells, around the runs of one region: the sides of each, and of its top and bottom what no run of
// the next row covers. Beyond `most` runs the outline of the box serves; nobody can see more.
export function outline(region, most = 6000) {
  const { runs } = region;
  if (runs.length > most) return null;
  const byRow = new Map();
  for (const run of runs) {
    if (!byRow.has(run[0])) byRow.set(run[0], []);
    byRow.get(run[0]).push(run);
  }
  let path = "";
  for (const [y, x0, x1] of runs) {
    path += `M${x0} ${y}v1M${x1} ${y}v1`;
    path += uncovered(byRow.get(y - 1), x0, x1, y) + uncovered(byRow.get(y + 1), x0, x1, y + 1);
  }
  return path;
}

function uncovered(others, x0, x1, y) {
  let path = "";
  let x = x0;
  for (const [, start, end] of others ?? []) {
    if (end <= x || start >= x1) continue;
    if (start > x) path += `M${x} ${y}H${start}`;
    x = end;
  }
  if (x < x1) path += `M${x} ${y}H${x1}`;
  return path;
}
