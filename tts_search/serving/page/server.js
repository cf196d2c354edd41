// What the page asks the server for. A key, if the server wants one, stays in this tab.

let key = sessionStorage.getItem("tts-search key") ?? "";

export function setKey(value) {
  key = value.trim();
  sessionStorage.setItem("tts-search key", key);
}

export const keyed = () => key !== "";

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function call(path, options = {}) {
  const headers = { ...(options.headers ?? {}) };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server is not there.", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new ServerError(told?.error?.message ?? `The server said ${response.status}.`, response.status);
}

export async function models() {
  return (await (await call("v1/models")).json()).data;
}

// A search under way. Its reply is kept open: a reply that nobody waits for is a search that the server ends.
export async function ask(body, signal) {
  const response = await call("v1/chat/completions", {
    method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify({ ...body, stream: true }),
  });
  drain(response.body);
  return response.headers.get("x-search-id");
}

export function cancel(id) {
  return call(`v1/searches/${id}`, { method: "DELETE" });
}

async function drain(body) {
  const reader = body.getReader();
  try {
    while (!(await reader.read()).done);
  } catch { /* the events say what happened */ }
}

// The events of a search, one after another, from its first on.
export async function* events(id, signal) {
  const response = await call(`v1/searches/${id}/events`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}
