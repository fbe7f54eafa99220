// Follows a job until it ends: the service's events say when to look.

const LOOK_EVERY_MS = 2000;

/**
 * @param {any} api
 * @param {string} job
 * @param {(status: any) => void} onStatus
 * @returns {() => void} stops following
 */
export function follow(api, job, onStatus) {
  const ended = new AbortController();
  const { signal } = ended;
  let timer = 0;

  async function look() {
    clearTimeout(timer);
    const status = await api.json(`v1/jobs/${job}`, { signal });
    if (signal.aborted) return;
    onStatus(status);
    if (!isLive(status)) ended.abort();
    // The place in the line moves without an event.
    else timer = setTimeout(() => look().catch(stopped), LOOK_EVERY_MS);
  }

  const stopped = (error) => {
    if (!signal.aborted) timer = setTimeout(() => look().catch(stopped), LOOK_EVERY_MS);
    return error;
  };

  look().catch(stopped);
  listen(api, job, signal, () => look().catch(stopped)).catch(stopped);
  return () => {
    clearTimeout(timer);
    ended.abort();
  };
}

export const isLive = (status) => status.state === "queued" || status.state === "running";

/** Server-sent events by hand: EventSource cannot be refused in words, nor sign in. */
async function listen(api, job, signal, onEvent) {
  const response = await api.request("GET", `v1/jobs/${job}/events`, { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    if (parts.some((part) => part.includes("event:"))) onEvent();
  }
}
