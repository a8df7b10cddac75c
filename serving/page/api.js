// Calls of the service: a refusal becomes a sentence that says what to do.

const SLOT = "clue-key";

export const setKey = (key) => (key ? sessionStorage.setItem(SLOT, key) : sessionStorage.removeItem(SLOT));
export const hasKey = () => sessionStorage.getItem(SLOT) !== null;

export class Refused extends Error {
  constructor(sentence, { status = 0, errors = [], retry = 0 } = {}) {
    super(sentence);
    Object.assign(this, { sentence, status, errors, retry });
  }
}

const SENTENCES = {
  401: "This service wants an API key. Give it above.",
  403: "This key may not do that. Give another one above.",
  404: "No such user is in the index. Pick another, or write what they did.",
  422: "The service cannot read this:",
  429: "The service is busy. It is asked again in a moment.",
  503: "The service is not ready yet. It is asked again in a moment.",
  504: "The answer took too long. It is asked again in a moment.",
};

export async function call(method, path, body = null, signal = null) {
  const headers = body === null ? {} : { "content-type": "application/json" };
  const key = sessionStorage.getItem(SLOT);
  if (key) headers.authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body === null ? null : JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("The service does not answer. Is it running, and is the network up?", { retry: 5 });
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const sentence = SENTENCES[answer.status] ?? `The service refused: ${found.detail ?? answer.status}`;
  const again = [429, 503, 504].includes(answer.status);
  const retry = again ? Math.max(1, Number(answer.headers.get("retry-after")) || 2) : 0;
  throw new Refused(sentence, { status: answer.status, errors: found.errors, retry });
}
