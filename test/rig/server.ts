/** A real `understudy serve` process over its own data folder, and its command line. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { endsWithFile } from './at-end.ts';
import { kill9, run, type Done } from './program.ts';

export const UNDERSTUDY = fileURLToPath(new URL('../../bin/understudy', import.meta.url));

export class TestServer {
  readonly name: string;
  readonly data: string;
  readonly env: Record<string, string>;
  peerPort = 0;
  httpAddress = '';
  log = '';
  readonly #more: string[];
  #child: ChildProcess | null = null;

  /** `more`: further words of `serve`. */
  constructor(name: string, data: string, env: Record<string, string> = {}, more: string[] = []) {
    this.#more = more;
    this.name = name;
    this.data = data;
    this.env = env;
    mkdirSync(data, { recursive: true });
  }

  /** Resolves at its ready line; rejects with what it said when it ends before. A restart takes the same ports again. */
  async start(): Promise<void> {
    const child = endsWithFile(spawn(UNDERSTUDY, ['serve', '--data', this.data, '--peer', `127.0.0.1:${this.peerPort}`, '--http', this.httpAddress || '127.0.0.1:0',
      '--name', this.name, ...this.#more], { env: { ...process.env, ...this.env }, stdio: ['ignore', 'pipe', 'pipe'] }));
    this.#child = child;
    child.stderr.on('data', (data: Buffer) => (this.log += data.toString()));
    let said = '';
    const ready = new Promise<void>((resolve, reject) => {
      child.stdout.on('data', (data: Buffer) => {
        said += data.toString();
        const found = /ready peer=\S+:(\d+) http=(\S+) /.exec(said);
        if (found === null) return;
        this.peerPort = Number(found[1]);
        this.httpAddress = found[2]!;
        resolve();
      });
      child.once('exit', (code) => reject(new Error(`${this.name} ended with ${code}: ${said}${this.log.slice(-2000)}`)));
    });
    await ready;
  }

  get pid(): number {
    return this.#child!.pid!;
  }

  async kill9(): Promise<void> {
    if (this.#child !== null) await kill9(this.#child);
  }

  /** The clean stop; returns the exit code. */
  async stop(): Promise<number | null> {
    const child = this.#child!;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const gone = once(child, 'exit') as Promise<[number | null]>;
    child.kill('SIGTERM');
    return (await gone)[0];
  }

  /** One command against this server, as a person would type it. */
  cli(...words: string[]): Promise<Done> {
    return run(UNDERSTUDY, ['--data', this.data, ...words], { env: this.env });
  }

  /** One command with --json; an exit code other than 0 is an error. */
  async json<T = Record<string, unknown>>(...words: string[]): Promise<T> {
    const done = await this.cli(...words, '--json');
    if (done.status !== 0) throw new Error(`${words.join(' ')}: exit ${done.status}: ${done.stdout}${done.stderr}`);
    return JSON.parse(done.stdout) as T;
  }

  /** Asks again until the condition holds; for what happens by itself. Rejects with the last answer when it does not in time. */
  async until<T>(words: string[], holds: (answer: T) => boolean, timeoutMs = 60_000): Promise<T> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const answer = await this.json<T>(...words);
      if (holds(answer)) return answer;
      if (performance.now() > end) throw new Error(`${words.join(' ')} stays at ${JSON.stringify(answer)}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
