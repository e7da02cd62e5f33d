/**
 * A conversation with QEMU's guest agent: JSON lines over the Unix socket of a virtio-serial port.
 *
 * The agent may be of any age and mood: absent, late, from an earlier conversation, or somebody else altogether. So every conversation
 * begins with a synchronisation (guest-sync-delimited: whatever comes before its marker and its number is of the past), every answer has
 * a time limit and a bound, and after anything unexpected the conversation is over.
 */
import type { Duplex } from 'node:stream';
import { messageOf, UnderstudyError } from '../../model/errors.ts';
import type { Clock, LocalSockets, Random } from '../../model/ports.ts';

export interface AgentChannel {
  /** Resolves with what the agent returns. @throws GUEST_AGENT_ERROR, and the others when the conversation is over */
  call(command: string, args: object | null, timeoutMs: number): Promise<unknown>;
  close(): void;
}

export const ANSWER_BYTES_MAX = 1 << 20;
/** Begins an answer to guest-sync-delimited, and occurs nowhere else in UTF-8. */
const DELIMITER = 0xff;
const NEWLINE = 0x0a;

/** Connected and synchronised, in `timeoutMs`. @throws GUEST_AGENT_UNREACHABLE, GUEST_AGENT_SILENT, GUEST_AGENT_GARBAGE */
export async function openAgentSocket(
  parts: { sockets: LocalSockets; clock: Clock; random: Random }, path: string, timeoutMs: number,
): Promise<AgentChannel> {
  let stream: Duplex;
  try {
    stream = await parts.sockets.connect(path);
  } catch (cause) {
    throw new UnderstudyError('io', 'GUEST_AGENT_UNREACHABLE', `nobody answers at the socket of the guest agent, ${path}: ${messageOf(cause)}`,
      'See that the guest runs, and that QEMU has this socket: -chardev socket,path=…,server=on,wait=off,id=qga.', { cause });
  }
  const channel = new SocketChannel(parts.clock, stream, path);
  try {
    await channel.synchronise(Buffer.from(parts.random.bytes(4)).readUInt32BE() >>> 1, timeoutMs);
    return channel;
  } catch (error) {
    channel.close();
    throw error;
  }
}

class SocketChannel implements AgentChannel {
  #clock: Clock;
  #stream: Duplex;
  #path: string;
  #lines: string[] = [];
  #part: Buffer[] = [];
  #partBytes = 0;
  /** Until the marker of the synchronisation everything is of the past. */
  #skipping = true;
  #ended: UnderstudyError | null = null;
  #news = Promise.withResolvers<void>();

  constructor(clock: Clock, stream: Duplex, path: string) {
    [this.#clock, this.#stream, this.#path] = [clock, stream, path];
    stream.on('data', (data: Buffer) => this.#take(data));
    stream.on('error', (error) => this.#end(hungUp(path, error.message)));
    stream.on('close', () => this.#end(hungUp(path, 'the connection ended')));
  }

  async synchronise(id: number, timeoutMs: number): Promise<void> {
    // The marker makes the agent forget half a command of an earlier conversation.
    this.#send(Buffer.concat([Buffer.of(DELIMITER), lineOf('guest-sync-delimited', { id })]));
    const end = this.#clock.monotonic() + timeoutMs;
    for (;;) {
      const line = await this.#line(end - this.#clock.monotonic(), 'guest-sync-delimited');
      const answer = parsed(line);
      if (answer !== null && 'return' in answer && answer.return === id) return;
      // An answer to somebody before us.
      if (answer === null) throw this.#end(garbage(this.#path, line));
    }
  }

  async call(command: string, args: object | null, timeoutMs: number): Promise<unknown> {
    if (this.#ended !== null) throw this.#ended;
    this.#send(lineOf(command, args));
    const line = await this.#line(timeoutMs, command);
    const answer = parsed(line);
    if (answer === null) throw this.#end(garbage(this.#path, line));
    if ('return' in answer) return answer.return;
    const description = typeof answer.error?.desc === 'string' ? answer.error.desc : JSON.stringify(answer.error);
    throw new UnderstudyError('io', 'GUEST_AGENT_ERROR', `the guest agent refuses ${command}: ${description.slice(0, 300)}`,
      'See the log of qemu-ga in the guest; it may be told not to allow this command.');
  }

  close(): void {
    this.#end(hungUp(this.#path, 'it was closed'));
  }

  #send(bytes: Buffer): void {
    if (!this.#stream.destroyed) this.#stream.write(bytes);
  }

  #take(data: Buffer): void {
    let rest = data;
    for (;;) {
      const marker = rest.indexOf(DELIMITER);
      if (marker < 0) break;
      this.#forget();
      this.#skipping = false;
      rest = rest.subarray(marker + 1);
    }
    if (this.#skipping || this.#ended !== null) return;
    for (let at = rest.indexOf(NEWLINE); at >= 0; at = rest.indexOf(NEWLINE)) {
      const line = Buffer.concat([...this.#part, rest.subarray(0, at)]).toString('utf8');
      [this.#part, this.#partBytes] = [[], 0];
      if (line.trim() !== '') this.#lines.push(line);
      rest = rest.subarray(at + 1);
    }
    this.#part.push(rest);
    this.#partBytes += rest.length;
    if (this.#partBytes > ANSWER_BYTES_MAX || this.#lines.length > 1000) this.#end(garbage(this.#path, `${ANSWER_BYTES_MAX} bytes without an end`));
    this.#tell();
  }

  #forget(): void {
    [this.#lines, this.#part, this.#partBytes] = [[], [], 0];
  }

  async #line(timeoutMs: number, command: string): Promise<string> {
    const timer = new AbortController();
    const late = this.#clock.sleep(Math.max(0, timeoutMs), timer.signal).then(() => true, () => false);
    try {
      for (;;) {
        const line = this.#lines.shift();
        if (line !== undefined) return line;
        if (this.#ended !== null) throw this.#ended;
        this.#news = Promise.withResolvers<void>();
        if (await Promise.race([late, this.#news.promise.then(() => false)])) throw this.#end(silent(this.#path, command, timeoutMs));
      }
    } finally {
      timer.abort();
    }
  }

  #end(error: UnderstudyError): UnderstudyError {
    if (this.#ended !== null) return this.#ended;
    this.#ended = error;
    this.#forget();
    this.#stream.destroy();
    this.#tell();
    return error;
  }

  #tell(): void {
    this.#news.resolve();
  }
}

type Answer = { return: unknown } | { error: { desc?: unknown } | undefined };

/** Null for what is no answer of an agent. */
export function parsed(line: string): Answer | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && ('return' in value || 'error' in value) ? (value as Answer) : null;
  } catch {
    return null;
  }
}

const lineOf = (execute: string, args: object | null): Buffer =>
  Buffer.from(`${JSON.stringify({ execute, ...(args === null ? {} : { arguments: args }) })}\n`);

const hungUp = (path: string, why: string): UnderstudyError =>
  new UnderstudyError('io', 'GUEST_AGENT_UNREACHABLE', `the conversation with the guest agent at ${path} has ended: ${why}`,
    'See that the guest runs, and qemu-ga in it.');

export const silent = (path: string, command: string, timeoutMs: number): UnderstudyError =>
  new UnderstudyError('io', 'GUEST_AGENT_SILENT', `the guest agent at ${path} has not answered ${command} in ${Math.round(timeoutMs)} ms`,
    'See that qemu-ga runs in the guest, and that nobody else holds its socket.');

export const garbage = (path: string, line: string): UnderstudyError =>
  new UnderstudyError('io', 'GUEST_AGENT_GARBAGE', `what answers at ${path} is no guest agent: ${JSON.stringify(line.slice(0, 60))}`,
    'Give the socket of qemu-ga: understudy set NAME --guest-agent SOCKET.');
