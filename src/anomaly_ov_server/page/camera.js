// Pictures from a camera, one after the other, without leaving the page.
import { openDialog } from "./dialogs.js";
import { el } from "./dom.js";
import { failed, toast } from "./notices.js";
import { upload } from "./upload.js";

export async function openCamera() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1920 } },
    });
  } catch (error) {
    const why = error.name === "NotAllowedError" ? "The browser was not allowed to use it." : "None was found.";
    toast(`No camera. ${why}`, { bad: true });
    return;
  }
  const video = el("video", { autoplay: true, playsinline: true, muted: true, class: "camera" });
  video.srcObject = stream;
  const shutter = el("button", {
    type: "button",
    class: "primary",
    text: "Take a picture",
    onclick: () => take(video),
  });
  await openDialog("Camera", video, el("div", { class: "row end" }, shutter));
  for (const track of stream.getTracks()) track.stop();
}

async function take(video) {
  const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  const time = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  const sent = upload([new File([blob], `camera-${time}.jpg`, { type: "image/jpeg" })], "Camera");
  sent.catch(failed);
  toast("Taken.");
}
