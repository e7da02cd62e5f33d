/** A guest agent for tests, on a Unix socket, with every bad habit. It is frozen or not, as a guest would be. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd, type Ending } from '../../../test/rig/at-end.ts';

/** Answers a command in its own way: text to send, or null for nothing. Absent: as a good agent does. */
export type Habit = (agent: FakeAgent, socket: Socket, args: Record<string, unknown>) => string | null | undefined;

export class FakeAgent {
  readonly path: string;
  frozen = false;
  /** Commands in order, without the synchronisations. */
  readonly asked: string[] = [];
  readonly habits = new Map<string, Habit>();
  /** Sent to whoever connects, before anything is asked. */
  greeting: string | Buffer = '';
  readonly interfaces: unknown[] = [];
  readonly ran: { path: string; args: string[] }[] = [];
  exitCode = 0;
  #server: Server;
  #sockets = new Set<Socket>();

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(t: Ending): Promise<FakeAgent> {
    const folder = await mkdtemp(join(tmpdir(), 'understudy-agent-'));
    const agent = new FakeAgent(join(folder, 'qga.sock'));
    await agent.listen();
    atEnd(t, async () => {
      await agent.close();
      await rm(folder, { recursive: true, force: true });
    });
    return agent;
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(this.path, () => resolve()));
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket)).on('error', () => undefined);
    if (this.greeting.length > 0) socket.write(this.greeting);
    let text = '';
    socket.setEncoding('latin1').on('data', (data: string) => {
      text += data;
      const lines = text.split('\n');
      text = lines.pop()!;
      for (const line of lines) this.#answer(socket, line);
    });
  }

  #answer(socket: Socket, line: string): void {
    const { execute, arguments: args = {} } = JSON.parse(line.slice(line.lastIndexOf('\xff') + 1)) as { execute: string; arguments?: Record<string, unknown> };
    if (execute !== 'guest-sync-delimited') this.asked.push(execute);
    const habit = this.habits.get(execute)?.(this, socket, args);
    const said = habit === undefined ? this.#well(execute, args) : habit;
    if (said !== null && !socket.destroyed) socket.write(Buffer.from(said, 'latin1'));
  }

  #well(execute: string, args: Record<string, unknown>): string {
    const answer = (value: unknown) => `${JSON.stringify({ return: value })}\n`;
    switch (execute) {
      case 'guest-sync-delimited': return `\xff${answer(args['id'])}`;
      case 'guest-fsfreeze-freeze':
        this.frozen = true;
        return answer(2);
      case 'guest-fsfreeze-thaw': {
        const count = this.frozen ? 2 : 0;
        this.frozen = false;
        return answer(count);
      }
      case 'guest-network-get-interfaces': return answer(this.interfaces);
      case 'guest-exec':
        this.ran.push({ path: args['path'] as string, args: args['arg'] as string[] });
        return answer({ pid: 7 });
      case 'guest-exec-status': return answer({ 'exited': true, 'exitcode': this.exitCode, 'err-data': Buffer.from('RTNETLINK: no').toString('base64') });
      default: return `${JSON.stringify({ error: { class: 'CommandNotFound', desc: `The command ${execute} has not been found` } })}\n`;
    }
  }
}
