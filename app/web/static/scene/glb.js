// Reads binary glTF 2.0 (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html): the triangles of every node, in
// the scene's frame. Everything is in the one file; what asks for more (extensions, sparse accessors, other files) is
// refused, as is every offset that leaves its buffer.

import { IDENTITY, multiply, rotation, scaling, transform, translation } from "./matrix.js";

const MAGIC = 0x46546c67;
const [JSON_CHUNK, BINARY_CHUNK] = [0x4e4f534a, 0x004e4942];
const COMPONENTS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
const TRIANGLES = 4;
const DEEPEST = 32;
const NUMBERS = {
  5121: { bytes: 1, read: (view, at) => view.getUint8(at), array: Uint32Array },
  5123: { bytes: 2, read: (view, at) => view.getUint16(at, true), array: Uint32Array },
  5125: { bytes: 4, read: (view, at) => view.getUint32(at, true), array: Uint32Array },
  5126: { bytes: 4, read: (view, at) => view.getFloat32(at, true), array: Float32Array },
};

/** The file is not a GLB that this module reads; `message` says what is wrong. */
export class GlbError extends Error {}

function demand(condition, message) {
  if (!condition) throw new GlbError(message);
}

/**
 * @param {ArrayBuffer} buffer the file
 * @returns {{name: string, extras: object, positions: Float32Array, normals: Float32Array, indices: Uint32Array,
 *   min: number[], max: number[]}[]} parts by node, in metres; colours are the page's own
 */
export function readGlb(buffer) {
  const { document, binary } = chunks(buffer);
  demand(document?.asset?.version === "2.0", "not glTF 2.0");
  demand(!document.extensionsRequired?.length, `needs extensions: ${document.extensionsRequired}`);
  for (const list of ["scenes", "nodes", "meshes", "accessors", "bufferViews"]) {
    demand(Array.isArray(document[list] ?? []), `${list} is no list`);
  }
  const parts = [];
  const scene = (document.scenes ?? [])[document.scene ?? 0];
  demand(Array.isArray(scene?.nodes), "no scene");
  const visit = (number, parent, depth) => {
    const node = (document.nodes ?? [])[number];
    demand(node && depth < DEEPEST, `node ${number} is not there, or nodes form a loop`);
    const matrix = multiply(parent, placeOf(node));
    if (node.mesh !== undefined) parts.push(...partsOf(document, binary, node, matrix));
    demand(Array.isArray(node.children ?? []), `the children of node ${number} are no list`);
    for (const child of node.children ?? []) visit(child, matrix, depth + 1);
  };
  for (const number of scene.nodes) visit(number, IDENTITY, 0);
  return parts;
}

function chunks(buffer) {
  const view = new DataView(buffer);
  demand(buffer.byteLength >= 20 && view.getUint32(0, true) === MAGIC, "not a GLB");
  demand(view.getUint32(4, true) === 2, "not version 2");
  demand(view.getUint32(8, true) === buffer.byteLength, "its length is not what it says: cut off?");
  const found = {};
  for (let at = 12; at < buffer.byteLength; ) {
    demand(at + 8 <= buffer.byteLength, "a chunk's header is cut off");
    const [length, type] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    demand(at + 8 + length <= buffer.byteLength, "a chunk is longer than the file");
    found[type] ??= new DataView(buffer, at + 8, length);
    at += 8 + length;
  }
  demand(found[JSON_CHUNK], "no JSON chunk");
  try {
    return { document: JSON.parse(new TextDecoder().decode(found[JSON_CHUNK])), binary: found[BINARY_CHUNK] };
  } catch {
    throw new GlbError("its JSON cannot be read");
  }
}

function placeOf(node) {
  const numbers = (given, length, otherwise) => {
    const sound = Array.isArray(given) && given.length === length && given.every(Number.isFinite);
    demand(given === undefined || sound, "a node's place is not made of numbers");
    return given ?? otherwise;
  };
  if (node.matrix !== undefined) return numbers(node.matrix, 16);
  const [t, r] = [numbers(node.translation, 3, [0, 0, 0]), numbers(node.rotation, 4, [0, 0, 0, 1])];
  const s = numbers(node.scale, 3, [1, 1, 1]);
  return multiply(translation(t), multiply(rotation(r), scaling(s)));
}

function partsOf(document, binary, node, matrix) {
  const mesh = (document.meshes ?? [])[node.mesh];
  demand(Array.isArray(mesh?.primitives), `mesh ${node.mesh} is not there`);
  return mesh.primitives.map((primitive) => {
    demand(primitive && (primitive.mode ?? TRIANGLES) === TRIANGLES, "only triangles are read");
    const positions = moved(accessor(document, binary, primitive.attributes?.POSITION, "VEC3"), matrix);
    const count = positions.length / 3;
    demand(count > 0, "a mesh without points");
    const indices =
      primitive.indices === undefined
        ? Uint32Array.from({ length: count }, (_, k) => k)
        : accessor(document, binary, primitive.indices, "SCALAR");
    demand(indices.length % 3 === 0 && indices.every((index) => index < count), "a triangle's corner is not there");
    const extras = { ...mesh.extras, ...node.extras };
    return { name: String(node.name ?? ""), extras, positions, indices, normals: normalsOf(positions, indices), ...boundsOf(positions) };
  });
}

function accessor(document, binary, number, type) {
  const given = (document.accessors ?? [])[number];
  demand(given && given.type === type && !given.sparse, `accessor ${number} is not a plain ${type}`);
  const kind = NUMBERS[given.componentType];
  demand(kind && (type !== "VEC3" || given.componentType === 5126), `accessor ${number} has an unknown component type`);
  const bufferView = (document.bufferViews ?? [])[given.bufferView];
  demand(bufferView && bufferView.buffer === 0 && binary, `accessor ${number} has no data in this file`);
  const width = COMPONENTS[type];
  const stride = bufferView.byteStride ?? width * kind.bytes;
  const [start, count] = [(bufferView.byteOffset ?? 0) + (given.byteOffset ?? 0), given.count];
  demand(Number.isInteger(count) && count >= 0 && start >= 0 && stride >= width * kind.bytes, `accessor ${number} makes no sense`);
  const end = count === 0 ? start : start + (count - 1) * stride + width * kind.bytes;
  demand(end <= Math.min(binary.byteLength, (bufferView.byteOffset ?? 0) + bufferView.byteLength), `accessor ${number} leaves its buffer`);
  const values = new kind.array(count * width);
  for (let item = 0; item < count; item++) {
    for (let k = 0; k < width; k++) values[item * width + k] = kind.read(binary, start + item * stride + k * kind.bytes);
  }
  return values;
}

function moved(positions, matrix) {
  const out = new Float32Array(positions.length);
  for (let at = 0; at < positions.length; at += 3) {
    out.set(transform(matrix, [positions[at], positions[at + 1], positions[at + 2]]).slice(0, 3), at);
  }
  demand(out.every(Number.isFinite), "a point is no number");
  return out;
}

/** Normals by the triangles' area: smooth, and there whether the file has them or not. */
function normalsOf(positions, indices) {
  const normals = new Float32Array(positions.length);
  for (let at = 0; at < indices.length; at += 3) {
    const [a, b, c] = [3 * indices[at], 3 * indices[at + 1], 3 * indices[at + 2]];
    const u = [0, 1, 2].map((k) => positions[b + k] - positions[a + k]);
    const v = [0, 1, 2].map((k) => positions[c + k] - positions[a + k]);
    const normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += normal[k];
  }
  for (let at = 0; at < normals.length; at += 3) {
    const length = Math.hypot(normals[at], normals[at + 1], normals[at + 2]) || 1;
    for (let k = 0; k < 3; k++) normals[at + k] /= length;
  }
  return normals;
}

function boundsOf(positions) {
  const [min, max] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  for (let at = 0; at < positions.length; at++) {
    min[at % 3] = Math.min(min[at % 3], positions[at]);
    max[at % 3] = Math.max(max[at % 3], positions[at]);
  }
  return { min, max };
}
