// Decodes grey maps, colours them and finds their regions, beside the page so that it never waits.
import { outline, regions } from "./regions.js";

const kept = new Map(); // layer -> {grey, width, height}

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "paint") await paint(data);
    if (data.kind === "regions") find(data);
  } catch (error) {
    self.postMessage({ ...data, blob: null, kind: "failed", message: String(error) });
  }
};

// {layer, token, blob, colours: Uint32Array(256) of RGBA} -> the coloured bitmap and the grey values.
async function paint({ layer, token, blob, colours }) {
  const source = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = source;
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(source, 0, 0);
  source.close();
  const image = pen.getImageData(0, 0, width, height);
  const grey = new Uint8Array(width * height);
  let peak = 0;
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < grey.length; i += 1) {
    grey[i] = pixels[i] & 255;
    pixels[i] = colours[grey[i]];
    if (grey[i] > peak) peak = grey[i];
  }
  kept.set(layer, { token, grey, width, height });
  const bitmap = await createImageBitmap(image);
  const copy = grey.slice();
  const answer = { kind: "painted", layer, token, bitmap, grey: copy, peak: peak / 255, width, height };
  self.postMessage(answer, [bitmap, copy.buffer]);
}

// The middle of a region's topmost row, in map cells: a place on its outline, unlike the corner of its box.
const anchorOf = ([y, start, end]) => [(start + end) / 2, y];

function find({ layer, token, threshold, imageWidth, imageHeight }) {
  const map = kept.get(layer);
  if (map?.token !== token) {
    // Another picture has come meanwhile; answered all the same, or the page would wait for ever.
    self.postMessage({ kind: "regions", layer, token, regions: null });
    return;
  }
  const found = regions(map.grey, map.width, map.height, threshold, imageWidth, imageHeight);
  const listed = found.map(({ runs, ...rest }) => ({ ...rest, outline: outline({ runs }), anchor: anchorOf(runs[0]) }));
  self.postMessage({ kind: "regions", layer, token, threshold, regions: listed, width: map.width, height: map.height });
}
