// Talks to the service. A refusal becomes a Problem with what the service said (RFC 9457).

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? String(status));
    this.status = status;
    this.code = document.code ?? "";
    this.document = document;
  }
}

export function createApi(base) {
  const url = (path) => new URL(path.replace(/^\//, ""), base).href;

  async function request(method, path, { body, headers, signal } = {}) {
    const own = method === "GET" ? {} : { "X-Requested-With": "lungnodule" };
    const json = body !== undefined && !(body instanceof Blob || body instanceof FormData);
    const response = await fetch(url(path), {
      method,
      signal,
      credentials: "same-origin",
      headers: { ...own, ...(json ? { "Content-Type": "application/json" } : {}), ...headers },
      body: json ? JSON.stringify(body) : body,
    });
    if (!response.ok) {
      throw new Problem(response.status, await response.json().catch(() => ({})));
    }
    return response;
  }

  return {
    url,
    request,
    json: async (path, options) => (await request("GET", path, options)).json(),
    bytes: async (path, options) => new Uint8Array(await (await request("GET", path, options)).arrayBuffer()),
    send: (method, path, body, headers) => request(method, path, { body, headers }),
  };
}
