// What a person dropped or chose, as a flat list of files.

/** Droppings of operating systems; everything else is the reader's to judge. */
const NOT_MEANT = /^(\.|Thumbs\.db$|desktop\.ini$)/i;

/**
 * Every file of what was dropped, folders walked to their ends.
 * @param {DataTransfer} transfer
 * @returns {Promise<File[]>}
 */
export async function droppedFiles(transfer) {
  // The entries must be taken before the first await: afterwards the browser has emptied the transfer.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = entries.length ? (await Promise.all(entries.map(walked))).flat() : [...transfer.files];
  return meant(files);
}

/** @param {Iterable<File>} files */
export const meant = (files) => [...files].filter((file) => !NOT_MEANT.test(file.name));

async function walked(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  // readEntries gives at most a hundred at a time, and nothing at the end.
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(walked))).flat();
}
