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
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < grey.length; i += 1) {
    grey[i] = pixels[i] & 255;
    pixels[i] = colours[grey[i]];
  }
  kept.set(layer, { token, grey, width, height });
  const bitmap = await createImageBitmap(image);
  const copy = grey.slice();
  self.postMessage({ kind: "painted", layer, token, bitmap, grey: copy, width, height }, [bitmap, copy.buffer]);
}

function find({ layer, token, threshold, imageWidth, imageHeight }) {
  const map = kept.get(layer);
  if (map?.token !== token) {
    // Another picture has come meanwhile; answered all the same, or the page would wait for ever.
    self.postMessage({ kind: "regions", layer, token, regions: null });
    return;
  }
  const found = regions(map.grey, map.width, map.height, threshold, imageWidth, imageHeight);
  const listed = found.map(({ runs, ...rest }) => ({ ...rest, outline: outline({ runs }) }));
  self.postMessage({ kind: "regions", layer, token, threshold, regions: listed, width: map.width, height: map.height });
}
