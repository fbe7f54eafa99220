// A camera that goes round a point. Angles in radians, lengths in metres. In the scene's frame (glTF, from LPS by
// (x, y, z) -> (-x, z, y)) x points to the patient's right, y to the head and z to the back; yaw 0 looks from the front.

import { multiply, perspective, rotationX, rotationY, transform, translation } from "./matrix.js";

const FIELD_OF_VIEW = Math.PI / 6;
const UPRIGHT = Math.PI / 2 - 0.001;

/** Names of the fixed views: from the patient's front, from the patient's left and from the head. */
export const VIEWS = { front: [0, 0], side: [-Math.PI / 2, 0], top: [0, UPRIGHT] };

export function cameraFor({ min, max }) {
  const target = [0, 1, 2].map((k) => (min[k] + max[k]) / 2);
  const radius = Math.max(0.01, Math.hypot(...[0, 1, 2].map((k) => max[k] - min[k])) / 2);
  return { target, radius, distance: radius / Math.sin(FIELD_OF_VIEW / 2) / 1.15, yaw: 0, pitch: 0, home: target };
}

export const turned = (camera, yaw, pitch) => ({
  ...camera,
  yaw: camera.yaw + yaw,
  pitch: Math.min(UPRIGHT, Math.max(-UPRIGHT, camera.pitch + pitch)),
});

export const seenFrom = (camera, [yaw, pitch]) => ({ ...camera, yaw, pitch });

export const zoomed = (camera, factor) => ({
  ...camera,
  distance: Math.min(camera.radius * 12, Math.max(camera.radius * 0.15, camera.distance * factor)),
});

/** Moves what is looked at by parts of the picture's height: to the right and up. */
export function panned(camera, right, up) {
  const height = 2 * camera.distance * Math.tan(FIELD_OF_VIEW / 2);
  const turn = rotationOf(camera);
  const shift = [0, 1, 2].map((k) => -height * (right * turn[k * 4] + up * turn[k * 4 + 1]));
  return { ...camera, target: camera.target.map((value, k) => value + shift[k]) };
}

// The scene is turned so that the front looks at the viewer: by half a turn about the head-foot axis.
const rotationOf = ({ yaw, pitch }) => multiply(rotationX(pitch), rotationY(Math.PI + yaw));

/** {view, projection, eye}: from the scene to the camera, from there to clip space, and where the camera is. */
export function matricesOf(camera, aspect) {
  const turn = rotationOf(camera);
  const view = multiply(translation([0, 0, -camera.distance]), multiply(turn, translation(camera.target.map((v) => -v))));
  const near = Math.max(camera.radius * 0.01, camera.distance - camera.radius * 3);
  const wide = aspect < 1 ? 2 * Math.atan(Math.tan(FIELD_OF_VIEW / 2) / aspect) : FIELD_OF_VIEW;
  const projection = perspective(wide, aspect, near, camera.distance + camera.radius * 3);
  const eye = camera.target.map((value, k) => value + camera.distance * turn[k * 4 + 2]);
  return { view, projection, eye };
}

/** Where a point of the scene is in the picture: [x, y] in pixels from its upper left, and depth; null behind the camera. */
export function project(camera, point, width, height) {
  const { view, projection } = matricesOf(camera, width / height);
  const [x, y, z, w] = transform(multiply(projection, view), point);
  return w > 0 ? [((x / w + 1) / 2) * width, ((1 - y / w) / 2) * height, z / w] : null;
}
