/** The client of a host's own server: one HTTP request over the Unix socket per operation. */

import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { UnderstudyError, errnoOf, messageOf } from '../model/errors.ts';
import { OPERATIONS } from '../server/api/contract.ts';
import type { Operation, OperationName, Params, Progress, Result } from '../server/api/contract.ts';
import { FAILURE } from '../server/api/shapes.ts';
import { openSocketAddress, socketPath } from '../server/api/socket-path.ts';

/** A short operation that says nothing for this long hangs; long ones report, or wait as long as the user does. */
const SILENCE_MS_MAX = 120_000;
const ANSWER_BYTES_MAX = 256 << 20;

export interface CallOptions {
  signal: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Each element that is sent ahead of the result. */
  onItem?: (item: unknown) => void;
}

/**
 * Calls one operation. Rejects with the host's UnderstudyError; with SERVER_NOT_RUNNING, SERVER_FORBIDDEN,
 * SERVER_WENT_AWAY or SERVER_HANGS (all `io`) when there is no answer; with the signal's reason when it is aborted,
 * which aborts the operation too.
 */
export async function callHost<N extends OperationName>(
  dataFolder: string,
  name: N,
  params: Params<N>,
  options: CallOptions,
): Promise<Result<N>> {
  const operation: Operation = OPERATIONS[name];
  options.signal.throwIfAborted();
  try {
    const answer = await post(dataFolder, name, JSON.stringify(params), operation.long === true, options.signal);
    const lines = answer.headers['content-type']?.startsWith('application/x-ndjson') === true;
    return (lines ? await readLines(answer, options) : await readValue(answer)) as Result<N>;
  } catch (error) {
    options.signal.throwIfAborted();
    throw error instanceof UnderstudyError ? error : unreachable(error, dataFolder);
  }
}

function post(
  dataFolder: string,
  name: string,
  body: string,
  long: boolean,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const { address, release } = openSocketAddress(socketPath(dataFolder));
  return new Promise<IncomingMessage>((resolve, reject) => {
    const call = request({
      socketPath: address,
      method: 'POST',
      path: `/api/v1/${name}`,
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'accept': long ? 'application/x-ndjson' : 'application/json',
      },
      agent: false,
      signal,
    });
    if (!long) {
      call.setTimeout(SILENCE_MS_MAX, () => {
        call.destroy(
          new UnderstudyError(
            'io',
            'SERVER_HANGS',
            `the server did not answer ${name} within ${SILENCE_MS_MAX / 1000} s`,
            'Look at its log, and restart it if need be.',
          ),
        );
      });
    }
    call.once('response', resolve);
    call.once('error', reject);
    call.end(body);
  }).finally(release);
}

async function readValue(answer: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) throw invalid(`more than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  if (answer.statusCode === 200) return parse(text);
  throw failureIn(jsonOf(text)) ?? refused(answer.statusCode, text);
}

async function readLines(answer: IncomingMessage, { onProgress, onItem }: CallOptions): Promise<unknown> {
  for await (const line of linesOf(answer)) {
    const message = parse(line);
    if (typeof message !== 'object' || message === null) throw invalid(line);
    if ('progress' in message) onProgress?.(message.progress as Progress);
    else if ('item' in message) onItem?.(message.item);
    else if ('result' in message) return message.result;
    else throw failureIn(message) ?? invalid(line);
  }
  throw new Error('the answer ended early');
}

/** Not `readline`: that does not pass on the errors of its input, such as a server that dies. */
async function* linesOf(answer: IncomingMessage): AsyncIterable<string> {
  let rest = '';
  for await (const chunk of answer.setEncoding('utf8') as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > ANSWER_BYTES_MAX) throw invalid(`a line of more than ${ANSWER_BYTES_MAX} bytes`);
    yield* lines;
  }
}

function parse(text: string): unknown {
  const value = jsonOf(text);
  if (value === undefined) throw invalid(text);
  return value;
}

/** What the text says; undefined when it is no JSON. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The failure that the value is; null when it is none. */
function failureIn(value: unknown): UnderstudyError | null {
  const parsed = FAILURE.safeParse(value);
  if (!parsed.success) return null;
  const { kind, code, message, remedy } = parsed.data.error;
  return new UnderstudyError(kind, code, message, remedy);
}

/** Our servers give every refusal a cause: this one is older, or it is another program that answers. */
function refused(status: number | undefined, text: string): UnderstudyError {
  return new UnderstudyError(
    'io',
    'SERVER_ANSWER_INVALID',
    `the server refused with HTTP ${status}, and gave no cause that is understood: ${shortened(text)}`,
    'Give the command again; use the same version of understudy as the server.',
  );
}

const shortened = (text: string): string => (text.length > 100 ? `${text.slice(0, 100)}…` : text);

function invalid(text: string): UnderstudyError {
  return new UnderstudyError(
    'io',
    'SERVER_ANSWER_INVALID',
    `the server's answer cannot be understood: ${shortened(text)}`,
    'Use the same version of understudy as the server.',
  );
}

function unreachable(error: unknown, dataFolder: string): UnderstudyError {
  const errno = errnoOf(error);
  if (errno === 'ENOENT' || errno === 'ECONNREFUSED' || errno === 'ENOTDIR') {
    return new UnderstudyError(
      'io',
      'SERVER_NOT_RUNNING',
      `no server runs on ${dataFolder}`,
      `Start it with: understudy serve --data ${dataFolder}`,
      { cause: error },
    );
  }
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new UnderstudyError(
      'io',
      'SERVER_FORBIDDEN',
      `the server's socket in ${dataFolder} belongs to another user`,
      'Run this command as the user that runs the server.',
      { cause: error },
    );
  }
  return new UnderstudyError(
    'io',
    'SERVER_WENT_AWAY',
    `the server went away before it answered: ${messageOf(error)}`,
    `Look whether it still runs: understudy status --data ${dataFolder}`,
    { cause: error },
  );
}
