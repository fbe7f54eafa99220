// Grey values on a canvas. Slabs come windowed; another window is laid over them at once by a table of 256 entries,
// exact where the new window lies within the old one's steps, and replaced as soon as the exact slab is here.

/**
 * Screen grey for each stored grey.
 * @param {{center: number, width: number}} from window the slab was made with
 * @param {{center: number, width: number}} to window to show
 * @param {boolean} inverted
 * @returns {Uint8Array} 256 entries
 */
export function greyTable(from, to, inverted) {
  const table = new Uint8Array(256);
  for (let grey = 0; grey < 256; grey++) {
    const hu = (grey / 255 - 0.5) * from.width + from.center;
    const shown = Math.min(1, Math.max(0, (hu - to.center) / to.width + 0.5)) * 255;
    table[grey] = Math.round(inverted ? 255 - shown : shown);
  }
  return table;
}

/** Paint one slice, pixel for pixel, on a canvas of its size. */
export function paint(canvas, slice, table) {
  const { rows, columns, pixels } = slice;
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const words = new Uint32Array(image.data.buffer);
  const opaque = Uint32Array.from(table, (grey) => 0xff000000 | (grey << 16) | (grey << 8) | grey);
  for (let place = 0; place < pixels.length; place++) words[place] = opaque[pixels[place]];
  context.putImageData(image, 0, 0);
}
