// Talks to the service. A refusal becomes a Problem with what the service said (RFC 9457).

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? String(status));
    this.status = status;
    this.code = document.code ?? "";
    this.document = document;
  }
}

/** Sent with everything that changes something: a foreign page's form cannot set it. */
export const OWN_HEADER = { "X-Requested-With": "lungnodule" };

/**
 * @param {URL} base where the service lies
 * @param {() => Promise<void>} [signIn] asks the person for a key; the request that was refused is then made once more
 */
export function createApi(base, signIn) {
  /** A path of the API, or a link that the service gave: these start with its root path, which `base` holds too. */
  const url = (path) => {
    const root = base.pathname;
    const rest = root !== "/" && path.startsWith(root) ? path.slice(root.length) : path.replace(/^\//, "");
    return new URL(rest, base).href;
  };

  async function once(method, path, { body, headers, signal } = {}) {
    const json = body !== undefined && !(body instanceof Blob || body instanceof FormData);
    const response = await fetch(url(path), {
      method,
      signal,
      credentials: "same-origin",
      headers: {
        ...(method === "GET" ? {} : OWN_HEADER),
        ...(json ? { "Content-Type": "application/json" } : {}),
        ...headers,
      },
      body: json ? JSON.stringify(body) : body,
    });
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
    return response;
  }

  async function request(method, path, options) {
    try {
      return await once(method, path, options);
    } catch (problem) {
      if (problem.status !== 401 || !signIn || path.includes("v1/session")) throw problem;
      await signIn();
      return once(method, path, options);
    }
  }

  return {
    url,
    request,
    json: async (path, options) => (await request("GET", path, options)).json(),
    /** The same, null where the service has no such thing. */
    jsonOrNull: async (path, options) => {
      try {
        return await (await request("GET", path, options)).json();
      } catch (problem) {
        if (problem.status === 404 || problem.status === 405) return null;
        throw problem;
      }
    },
    bytes: async (path, options) => new Uint8Array(await (await request("GET", path, options)).arrayBuffer()),
    send: (method, path, body, headers) => request(method, path, { body, headers }),
  };
}
