// Sends files in one request, with progress. fetch cannot tell how much has been sent, XMLHttpRequest can.

import { OWN_HEADER, Problem } from "../api.js";

/**
 * @param {string} url
 * @param {File[]} files
 * @param {[string, string][]} fields
 * @param {{onProgress: (sent: number, total: number) => void, signal: AbortSignal}} options
 * @returns {Promise<any>} what the service answered
 */
export function upload(url, files, fields, { onProgress, signal }) {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  files.forEach((file, number) => form.append("files", file, neutralName(file.name, number)));
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("POST", url);
    for (const [name, value] of Object.entries(OWN_HEADER)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status < 300) resolve(answer);
      else reject(new Problem(request.status, answer));
    });
    request.addEventListener("error", () => reject(new Problem(0, { code: "no_answer" })));
    request.addEventListener("abort", () => reject(new Problem(0, { code: "stopped" })));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** Names of files may name the patient: only what tells the format is sent. */
export function neutralName(name, number) {
  const ending = name.match(/(\.(nii|mha|mhd|nrrd|raw|zraw|zip|dcm|gz)){1,2}$/i)?.[0] ?? "";
  return `${String(number).padStart(6, "0")}${ending.toLowerCase()}`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
