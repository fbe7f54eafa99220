// The scene in the room: WebXR where the browser has it, else what the phone's own viewer can do. Each is offered only
// where it can work.

import { invert, multiply, rotationY, scaling, transform, translation } from "./matrix.js";
import { middleOf } from "./parts.js";

const AWAY_M = 1;

/** @returns {Promise<{webxr: boolean, sceneViewer: string | null, quickLook: string | null}>} */
export async function arOffers(api, job) {
  const [webxr, open] = await Promise.all([hasImmersiveAr(), isOpen(api)]);
  const secure = location.protocol === "https:";
  // The phone's viewers are other programs: they bring no session, so they can only fetch what needs none.
  const android = open && secure && /\bAndroid\b/.test(navigator.userAgent);
  const apple = open && secure && document.createElement("a").relList.supports?.("ar") === true;
  return {
    webxr,
    sceneViewer: android ? sceneViewerLink(api.url(`v1/jobs/${job}/scene.glb`)) : null,
    quickLook: apple && (await answers(api, `v1/jobs/${job}/scene.usdz`)) ? api.url(`v1/jobs/${job}/scene.usdz`) : null,
  };
}

async function hasImmersiveAr() {
  try {
    return (await navigator.xr?.isSessionSupported("immersive-ar")) === true;
  } catch {
    return false;
  }
}

/** Whether the service asks for no key; a service without sessions asks for none. */
async function isOpen(api) {
  try {
    return (await api.json("v1/session")).access === "off";
  } catch (problem) {
    return problem.status === 404;
  }
}

async function answers(api, path) {
  try {
    await (await api.request("GET", path)).body?.cancel();
    return true;
  } catch {
    return false;
  }
}

/** https://developers.google.com/ar/develop/scene-viewer: life size, since resizable is off. */
export function sceneViewerLink(file) {
  const query = `file=${encodeURIComponent(file)}&mode=ar_preferred&resizable=false`;
  const app = "scheme=https;package=com.google.android.googlequicksearchbox;action=android.intent.action.VIEW;end;";
  return `intent://arvr.google.com/scene-viewer/1.0?${query}#Intent;${app}`;
}

/** From the scene to the room: its middle a metre in front of the viewer, upright, its front to the viewer. */
export function placed(viewerMatrix, bounds) {
  const [x, , z] = transform(viewerMatrix, [0, 0, -1], 0);
  const level = Math.hypot(x, z);
  const ahead = level > 1e-3 ? [x / level, 0, z / level] : [0, 0, -1];
  const place = [0, 1, 2].map((k) => viewerMatrix[12 + k] + ahead[k] * AWAY_M);
  // Straight ahead is -z of the room; the scene's front is its -z too, so half a turn brings it to face the viewer.
  const turn = rotationY(Math.atan2(-ahead[0], -ahead[2]) + Math.PI);
  return multiply(translation(place), multiply(turn, translation(middleOf(bounds).map((value) => -value))));
}

/**
 * Runs a session until it ends; a tap brings the scene before the viewer again.
 *
 * @param {{viewer: object, overlay: HTMLElement, factor: () => number, onEnd: () => void}} parts
 * @returns {Promise<() => Promise<void>>} ends the session
 */
export async function startAr({ viewer, overlay, factor, onEnd }) {
  const session = await navigator.xr.requestSession("immersive-ar", {
    optionalFeatures: ["dom-overlay"],
    domOverlay: { root: overlay },
  });
  viewer.pause(true);
  let place = null;
  session.addEventListener("end", () => {
    viewer.pause(false);
    onEnd();
  });
  session.addEventListener("select", () => (place = null));
  try {
    const { gl } = viewer.renderer;
    await gl.makeXRCompatible();
    session.updateRenderState({ baseLayer: new XRWebGLLayer(session, gl) });
    const room = await session.requestReferenceSpace("local");
    const onFrame = (_time, frame) => {
      session.requestAnimationFrame(onFrame);
      const pose = frame.getViewerPose(room);
      if (!pose) return;
      place ??= placed(Array.from(pose.transform.matrix), viewer.bounds);
      paint(viewer, session.renderState.baseLayer, pose, multiply(place, grown(viewer.bounds, factor())));
    };
    session.requestAnimationFrame(onFrame);
  } catch (error) {
    await session.end();
    throw error;
  }
  return () => session.end();
}

/** About its own middle. */
function grown(bounds, factor) {
  const middle = middleOf(bounds);
  const back = middle.map((value) => -value);
  return multiply(translation(middle), multiply(scaling([factor, factor, factor]), translation(back)));
}

function paint(viewer, layer, pose, roomFromScene) {
  const { gl, draw } = viewer.renderer;
  gl.bindFramebuffer(gl.FRAMEBUFFER, layer.framebuffer);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  for (const seen of pose.views) {
    const { x, y, width, height } = layer.getViewport(seen);
    gl.viewport(x, y, width, height);
    const view = multiply(Array.from(seen.transform.inverse.matrix), roomFromScene);
    const eye = transform(invert(view), [0, 0, 0]).slice(0, 3);
    draw({ view, projection: Array.from(seen.projectionMatrix), eye }, viewer.looks(), viewer.cut());
  }
}
