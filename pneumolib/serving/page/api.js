// Asks the server, and turns all that may go wrong into one kind of error.

const DICOM = /\.(dcm|dicom)$/i;
const ATTEMPTS = 4;
let key = '';

// Problem details (RFC 9457) as the server sends them, or as this page words what never reached it.
export class Problem extends Error {
  constructor({ title, detail, code, status = 0, request_id: requestId = '' }, retryAfter = 0) {
    super(detail);
    Object.assign(this, { title, detail, code, status, requestId, retryAfter });
  }
}

// The key lives in this variable and nowhere else.
export function useKey(value) {
  key = value;
}

export const hasKey = () => key !== '';

export const model = (signal) => ask('v1/model', { signal });

export async function predict(file, operatingPoint, signal) {
  const query = new URLSearchParams({ heatmap: 'layer', picture: 'true' });
  if (operatingPoint) query.set('operating_point', operatingPoint);
  const body = await file.arrayBuffer().catch(() => {
    throw new Problem({ code: 'unreadable', title: 'The file cannot be opened', detail: 'The browser could not read it. A folder, or a file that has moved, cannot be sent.' });
  });
  signal.throwIfAborted();
  // The body is the bare file: its name stays here.
  const type = file.type || (DICOM.test(file.name) ? 'application/dicom' : 'application/octet-stream');
  return ask(`v1/predict?${query}`, { method: 'POST', body, headers: { 'Content-Type': type }, signal });
}

async function ask(address, options) {
  const headers = new Headers(options.headers);
  if (key) headers.set('Authorization', `Bearer ${key}`);
  let response, told;
  try {
    response = await fetch(address, { ...options, headers, cache: 'no-store' });
    told = await response.text();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem({ code: 'unreachable', title: 'The server does not answer', detail: 'It may have been stopped, or the connection to it is broken.' });
  }
  const content = parsed(told);
  if (response.ok && content) return content;
  const problem = content?.code ? content : {
    code: 'foreign',
    status: response.status,
    title: `The answer was ${response.status}, not in the words of this API`,
    detail: 'Something between this page and the server may have answered in its place.',
  };
  throw new Problem(problem, Number(response.headers.get('Retry-After')) || 0);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// Ask again where the server says when to; `waiting` hears the seconds that are left.
export async function patiently(question, signal, waiting) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await question();
    } catch (problem) {
      if (!problem.retryAfter || attempt === ATTEMPTS) throw problem;
      // Not all that were sent away come back in the same moment.
      const until = Date.now() + 1000 * problem.retryAfter * (1 + Math.random() / 4);
      for (let left; (left = until - Date.now()) > 0;) {
        waiting(Math.ceil(left / 1000));
        await pause(Math.min(left, 1000), signal);
      }
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, milliseconds);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
