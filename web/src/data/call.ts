/** The host's operations over HTTP, typed by its own contract. */
import type { OperationName, Params, Result } from '../../../src/server/api/contract.ts';

/** What the server says when it refuses: shown to the person as it is. */
export class Refusal extends Error {
  readonly code: string;
  readonly remedy: string;
  readonly status: number;

  constructor(failure: { code: string; message: string; remedy: string }, status: number) {
    super(failure.message);
    this.code = failure.code;
    this.remedy = failure.remedy;
    this.status = status;
  }
}

export async function call<N extends OperationName>(name: N, params: Params<N>, signal?: AbortSignal): Promise<Result<N>> {
  return (await post(`/api/v1/${name}`, params, signal)) as Result<N>;
}

export async function post(path: string, body: unknown, signal?: AbortSignal): Promise<unknown> {
  return answerOf(() =>
    fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      ...(signal === undefined ? {} : { signal }),
    }),
  );
}

export async function get(path: string): Promise<unknown> {
  return answerOf(() => fetch(path));
}

async function answerOf(ask: () => Promise<Response>): Promise<unknown> {
  let response: Response;
  try {
    response = await ask();
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Refusal(
      { code: 'NO_ANSWER', message: 'the server does not answer', remedy: 'See that understudy serve runs on the host.' },
      0,
    );
  }
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  throw refusalIn(text, response.status);
}

function refusalIn(text: string, status: number): Refusal {
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string; remedy: string } };
    return new Refusal(error, status);
  } catch {
    return new Refusal(
      { code: 'ANSWER_INVALID', message: `the server answered with status ${status}`, remedy: 'Look at its log.' },
      status,
    );
  }
}
