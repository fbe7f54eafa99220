// Draws a handful of meshes with WebGL2. Solid parts first, then what is seen through: of every such part the far walls,
// then the near ones, parts from the farthest to the nearest. That is right for shells that do not cross, as lungs and
// airways nearly do not.

import { multiply } from "./matrix.js";

const VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
uniform mat4 clipFromScene;
out vec3 place;
out vec3 facing;
void main() {
  place = position;
  facing = normal;
  gl_Position = clipFromScene * vec4(position, 1.0);
}`;

// Light comes from the viewer. Glassy parts are denser at their rim, so that their shape is seen; where the cut opens a
// solid part, its inside is drawn flat, as a filled cut.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 place;
in vec3 facing;
uniform vec3 eye;
uniform vec4 color;
uniform vec4 cut;
uniform bool glassy;
out vec4 shown;
void main() {
  if (dot(cut.xyz, place) > cut.w) discard;
  float slope = abs(dot(normalize(facing), normalize(eye - place)));
  if (!glassy) {
    shown = vec4(color.rgb * (gl_FrontFacing ? 0.55 + 0.45 * slope : 0.8), 1.0);
    return;
  }
  float rim = pow(1.0 - slope, 2.0);
  float alpha = clamp(color.a * (0.55 + 1.6 * rim), 0.0, 1.0);
  shown = vec4(color.rgb * (0.75 + 0.25 * slope) * alpha, alpha);
}`;

export const NO_CUT = [0, 0, 0, 1];

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{positions: Float32Array, normals: Float32Array, indices: Uint32Array}[]} parts
 * @returns null where there is no WebGL2, else {gl, draw, free}
 */
export function createRenderer(canvas, parts) {
  const gl = canvas.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true });
  if (!gl) return null;
  const program = linked(gl);
  const at = Object.fromEntries(
    ["clipFromScene", "eye", "color", "cut", "glassy"].map((name) => [name, gl.getUniformLocation(program, name)]),
  );
  const meshes = parts.map((part) => uploaded(gl, part));

  function fill(number, { color, glassy }, side) {
    gl.uniform4fv(at.color, color);
    gl.uniform1i(at.glassy, glassy ? 1 : 0);
    if (side === undefined) gl.disable(gl.CULL_FACE);
    else gl.enable(gl.CULL_FACE), gl.cullFace(side);
    gl.bindVertexArray(meshes[number].vertices);
    gl.drawElements(gl.TRIANGLES, meshes[number].count, gl.UNSIGNED_INT, 0);
  }

  /** looks[k] = {color: [r, g, b, a], glassy, visible} for parts[k]; cut = [a, b, c, d] hides a x + b y + c z > d. */
  function draw({ view, projection, eye }, looks, cut = NO_CUT) {
    gl.useProgram(program);
    gl.uniformMatrix4fv(at.clipFromScene, false, multiply(projection, view));
    gl.uniform3fv(at.eye, eye);
    gl.uniform4fv(at.cut, cut);
    gl.enable(gl.DEPTH_TEST);
    gl.depthMask(true);
    gl.disable(gl.BLEND);
    const shown = parts.map((_, number) => number).filter((number) => looks[number].visible);
    for (const number of shown.filter((k) => !looks[k].glassy)) fill(number, looks[number]);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthMask(false);
    const away = (number) => Math.hypot(...[0, 1, 2].map((k) => eye[k] - (parts[number].min[k] + parts[number].max[k]) / 2));
    const glass = shown.filter((k) => looks[k].glassy && looks[k].color[3] > 0).sort((a, b) => away(b) - away(a));
    for (const number of glass) fill(number, looks[number], gl.FRONT);
    for (const number of glass) fill(number, looks[number], gl.BACK);
    gl.depthMask(true);
    gl.bindVertexArray(null);
  }

  function free() {
    for (const mesh of meshes) mesh.free();
    gl.deleteProgram(program);
  }

  return { gl, draw, free };
}

/** Empties the picture and makes it as large as its element is shown. */
export function clearCanvas(gl, canvas) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((value) => Math.max(1, Math.round(value * scale)));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  gl.viewport(0, 0, width, height);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(gl.getProgramInfoLog(program) ?? "");
  }
  return program;
}

function uploaded(gl, { positions, normals, indices }) {
  const vertices = gl.createVertexArray();
  gl.bindVertexArray(vertices);
  const buffers = [positions, normals].map((values, location) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, 3, gl.FLOAT, false, 0, 0);
    return buffer;
  });
  const order = gl.createBuffer();
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, order);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
  gl.bindVertexArray(null);
  const free = () => {
    gl.deleteVertexArray(vertices);
    for (const buffer of [...buffers, order]) gl.deleteBuffer(buffer);
  };
  return { vertices, count: indices.length, free };
}
